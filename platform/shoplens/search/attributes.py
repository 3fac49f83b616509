"""A column of attributes, map<string, list<string>>, as numbers: who has which value, and who has the same values."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class AttributePairs(NamedTuple):
    """Every (row, key, value) of an attributes column once, by key and value, then by row.

    `code` [t] is the key's place in `keys` times the number of `values`, plus the value's place there.
    """

    row: np.ndarray
    code: np.ndarray
    keys: pa.Array
    values: pa.Array


def attribute_pairs(attributes: pa.MapArray, only: Collection[str] | None = None) -> AttributePairs:
    """Of a column map<string, list<string>> [n]; a null has no attributes, a null value is passed over.

    only   keys in any case: others are left out, and keys come back in lower case
    """
    row = np.repeat(np.arange(len(attributes)), np.diff(attributes.offsets.to_numpy()))
    keys, values = attributes.keys, attributes.items
    if only is not None:
        different = keys.dictionary_encode()
        lower = pc.utf8_lower(different.dictionary)
        kept = pc.is_in(lower, value_set=pc.utf8_lower(pa.array(only, pa.string()))).take(different.indices)
        row = row[kept.to_numpy(zero_copy_only=False)]
        keys, values = lower.take(different.indices.filter(kept)), values.filter(kept)
    count = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
    row = np.repeat(row, count)
    keys = keys.dictionary_encode()
    words = values.flatten().dictionary_encode()
    key = np.repeat(keys.indices.to_numpy(zero_copy_only=False), count).astype(np.int64)
    value = words.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    code = key * len(words.dictionary) + value
    known = value >= 0
    ordered = np.sort(code[known] * len(attributes) + row[known])  # np.unique hashes: 15 times as slow on so many
    code, row = np.divmod(ordered[np.diff(ordered, prepend=-1) > 0], max(1, len(attributes)))
    return AttributePairs(row, code, keys.dictionary, words.dictionary)


def variants(attributes: pa.MapArray, keys: Collection[str]) -> np.ndarray:
    """int64 [n]: equal for rows that have the same values of each of the attributes `keys`, in whatever order.

    Upper and lower case of a key are one. An attribute without values is one that is not there. 0 where none is.
    """
    pairs = attribute_pairs(attributes, keys)
    by_row = np.lexsort((pairs.code, pairs.row))
    row, code = pairs.row[by_row], pairs.code[by_row]
    nth = np.arange(len(row)) - np.searchsorted(row, row)
    by_nth = np.argsort(nth, kind="stable")
    found, used = np.zeros(len(attributes), dtype=np.int64), 0
    for at in np.split(by_nth, np.cumsum(np.bincount(nth)))[:-1]:
        so_far = np.unique(found[row[at]], return_inverse=True)[1]
        same = np.unique(so_far * (int(code.max()) + 1) + code[at], return_inverse=True)[1]
        found[row[at]] = used + 1 + same
        used += int(same.max()) + 1
    return found
