"""Product identity: which listings are one product, by catalog and by the makers' product numbers."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shoplens.search.attributes import attribute_pairs

Identifiers: TypeAlias = tuple[tuple[str, ...], ...]
"""Attribute keys that name a product together, the number last, such as `(("gtin",), ("brand", "mpn"))`."""
UNLISTED = 20
"""Most listings without a catalog that one name joins to a product. A name that more listings carry names no product."""
_LETTERS = 4
"""Least letters and digits of a product number; "없음" and "N/A" are too short."""


def products_of(catalog: np.ndarray, attributes: pa.MapArray, identifiers: Identifiers) -> np.ndarray:
    """int64 [n]: equal for listings of one product; -1 for a listing that neither catalog nor name identifies.

    catalog      int64 [n], negative where unknown
    attributes   map<string, list<string>> [n]
    identifiers  the first identifier whose keys the listing all has, each with one value, gives the listing's *name*.
                 Case and punctuation do not count. The number needs at least four letters and digits, one of them a digit.

    Each catalog's *dominant name* is the one that most of its listings carry. A listing moves to the catalog with its
    name if it has no catalog, or sits under a catalog with a different dominant name. Ambiguous names move nothing: those
    that are dominant in several catalogs (colours of one model), and those whose listings lie mostly elsewhere. Listings
    of one name that are all without a catalog are a product if they are at most `UNLISTED`. Catalogs never merge.
    """
    name = _names(attributes, identifiers)
    product = np.where(catalog >= 0, catalog, -1).astype(np.int64)
    n_names, n_catalogs = int(name.max(initial=-1)) + 1, int(product.max(initial=-1)) + 1
    named = np.flatnonzero(name >= 0)
    filed = named[product[named] >= 0]
    pair, of_row, listings = np.unique(
        name[filed] * n_catalogs + product[filed], return_inverse=True, return_counts=True
    )
    pair_name, pair_catalog = np.divmod(pair, max(1, n_catalogs))
    most = np.zeros(n_catalogs, dtype=np.int64)
    np.maximum.at(most, pair_catalog, listings)
    leads = listings == most[pair_catalog]
    dominant = leads & (np.bincount(pair_catalog[leads], minlength=n_catalogs)[pair_catalog] == 1)

    carriers = np.bincount(name[named], minlength=n_names)
    home = np.full(n_names, -1)
    trusted = dominant & (2 * listings >= carriers[pair_name])
    home[pair_name[trusted]] = pair_catalog[trusted]
    home[np.bincount(pair_name[dominant], minlength=n_names) > 1] = -1

    movable = np.ones(len(product), dtype=bool)
    movable[filed] = ~dominant[of_row]
    moves = named[movable[named] & (home[name[named]] >= 0)]
    product[moves] = home[name[moves]]
    unlisted = (np.bincount(name[filed], minlength=n_names) == 0) & (carriers > 1) & (carriers <= UNLISTED)
    joined = named[unlisted[name[named]]]
    product[joined] = n_catalogs + name[joined]
    return product


def _names(attributes: pa.MapArray, identifiers: Identifiers) -> np.ndarray:
    """int64 [n]: the number of each listing's name, -1 for a listing without one."""
    names, used = np.full(len(attributes), -1, dtype=np.int64), 0
    if not identifiers:
        return names
    pairs = attribute_pairs(attributes, {key for keys in identifiers for key in keys})
    spelled = pc.replace_substring_regex(pc.utf8_lower(pairs.values), r"[^\pL\pN]+", "").dictionary_encode()
    words = spelled.dictionary
    is_word = pc.not_equal(words, "").to_numpy(zero_copy_only=False)
    is_number = pc.and_(
        pc.match_substring_regex(words, r"\pN"), pc.greater_equal(pc.utf8_length(words), _LETTERS)
    ).to_numpy(zero_copy_only=False)
    key_of, value_of = np.divmod(pairs.code, max(1, len(pairs.values)))
    word_of = spelled.indices.to_numpy(zero_copy_only=False).astype(np.int64)[value_of]
    keys = [key.lower() for key in pairs.keys.to_pylist()]
    for identifier in identifiers:
        combined = np.zeros(len(attributes), dtype=np.int64)
        for at, key in enumerate(identifier):
            of_key = key_of == keys.index(key.lower()) if key.lower() in keys else np.zeros(len(key_of), dtype=bool)
            valid = is_number if at == len(identifier) - 1 else is_word
            word = _single(pairs.row[of_key], word_of[of_key], valid, len(attributes))
            combined = np.where((combined >= 0) & (word >= 0), combined * len(words) + word, -1)
            combined = np.unique(combined, return_inverse=True)[1] - int((combined < 0).any())
        new = (names < 0) & (combined >= 0)
        names[new] = used + combined[new]
        used += int(combined.max(initial=-1)) + 1
    return names


def _single(row: np.ndarray, word: np.ndarray, valid: np.ndarray, n: int) -> np.ndarray:
    """int64 [n]: the word of each row that has exactly one, if it is `valid` [words]; else -1."""
    words, several = np.full(n, -1, dtype=np.int64), np.zeros(n, dtype=bool)
    words[row] = word
    several[row[words[row] != word]] = True
    single = np.flatnonzero((words >= 0) & ~several)
    checked = np.full(n, -1, dtype=np.int64)
    checked[single] = np.where(valid[words[single]], words[single], -1)
    return checked
