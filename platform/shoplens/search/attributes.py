"""An attributes column, map<string, list<string>>, as numbers: the rows of each value, and groups of equal values."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class AttributePairs(NamedTuple):
    """Every (row, key, value) of an attributes column once, ordered by key, value, row.

    `code` [t] = place of the key in `keys` * len(`values`) + place of the value in `values`.
    """

    row: np.ndarray
    code: np.ndarray
    keys: pa.Array
    values: pa.Array


def attribute_pairs(attributes: pa.MapArray, only: Collection[str] | None = None) -> AttributePairs:
    """The pairs of a column map<string, list<string>> [n]. A null row has no attributes; null values are skipped.

    only   keep these keys alone, in any case; keys come back in lower case
    """
    row = np.repeat(np.arange(len(attributes)), np.diff(attributes.offsets.to_numpy()))
    keys, values = attributes.keys, attributes.items
    if only is not None:
        encoded = keys.dictionary_encode()
        lower = pc.utf8_lower(encoded.dictionary)
        kept = pc.is_in(lower, value_set=pc.utf8_lower(pa.array(only, pa.string()))).take(encoded.indices)
        row = row[kept.to_numpy(zero_copy_only=False)]
        keys, values = lower.take(encoded.indices.filter(kept)), values.filter(kept)
    count = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
    row = np.repeat(row, count)
    keys = keys.dictionary_encode()
    words = values.flatten().dictionary_encode()
    key = np.repeat(keys.indices.to_numpy(zero_copy_only=False), count).astype(np.int64)
    value = words.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    code = key * len(words.dictionary) + value
    known = value >= 0
    ordered = np.sort(code[known] * len(attributes) + row[known])  # np.unique hashes, 15 times slower here
    code, row = np.divmod(ordered[np.diff(ordered, prepend=-1) > 0], max(1, len(attributes)))
    return AttributePairs(row, code, keys.dictionary, words.dictionary)


def variants(attributes: pa.MapArray, keys: Collection[str]) -> np.ndarray:
    """int64 [n]: equal for rows with the same set of values of each of the attributes `keys`; 0 for rows without any.

    The case of a key does not count. An attribute without values counts as absent.
    """
    pairs = attribute_pairs(attributes, keys)
    by_row = np.lexsort((pairs.code, pairs.row))
    row, code = pairs.row[by_row], pairs.code[by_row]
    nth = np.arange(len(row)) - np.searchsorted(row, row)
    by_nth = np.argsort(nth, kind="stable")
    variant, used = np.zeros(len(attributes), dtype=np.int64), 0
    for at in np.split(by_nth, np.cumsum(np.bincount(nth)))[:-1]:
        so_far = np.unique(variant[row[at]], return_inverse=True)[1]
        same = np.unique(so_far * (int(code.max()) + 1) + code[at], return_inverse=True)[1]
        variant[row[at]] = used + 1 + same
        used += int(same.max()) + 1
    return variant
