"""Which listings are of one product: those of one catalog, corrected by the numbers that makers give their products."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shoplens.search.attributes import attribute_pairs

Identifiers: TypeAlias = tuple[tuple[str, ...], ...]
"""Attributes that name a product together, the number last: `(("gtin",), ("brand", "mpn"))`."""
UNLISTED = 20
"""Listings without a catalog that one number makes a product at most; one that more have is no product's own."""
_LETTERS = 4
"""Letters and digits that a number has at least; "없음" and "N/A" are none."""


def products_of(catalog: np.ndarray, attributes: pa.MapArray, identifiers: Identifiers) -> np.ndarray:
    """int64 [n]: equal for listings of one product; -1 of one that has no catalog and that no number tells.

    catalog      int64 [n], negative where unknown
    attributes   map<string, list<string>> [n]
    identifiers  a listing is named by the first of them of which it has all, each with one value; case and
                 punctuation do not count, and a number has at least four letters and digits, a digit among them

    A catalog's own name is the one that more of its listings have than any other. A listing joins the catalog whose own
    name it has if it is under no catalog, or under one that has another. A name that is several catalogs' own (colours
    of one model), or of whose listings that catalog has less than half, joins none. Listings that are all without a
    catalog are a product if no more than `UNLISTED` have the name. No two catalogs become one.
    """
    name = _names(attributes, identifiers)
    product = np.where(catalog >= 0, catalog, -1).astype(np.int64)
    n_names, n_catalogs = int(name.max(initial=-1)) + 1, int(product.max(initial=-1)) + 1
    named = np.flatnonzero(name >= 0)
    under = named[product[named] >= 0]
    pair, of_row, listings = np.unique(
        name[under] * n_catalogs + product[under], return_inverse=True, return_counts=True
    )
    pair_name, pair_catalog = np.divmod(pair, max(1, n_catalogs))
    most = np.zeros(n_catalogs, dtype=np.int64)
    np.maximum.at(most, pair_catalog, listings)
    leads = listings == most[pair_catalog]
    own = leads & (np.bincount(pair_catalog[leads], minlength=n_catalogs)[pair_catalog] == 1)

    everywhere = np.bincount(name[named], minlength=n_names)
    home = np.full(n_names, -1)
    believed = own & (2 * listings >= everywhere[pair_name])
    home[pair_name[believed]] = pair_catalog[believed]
    home[np.bincount(pair_name[own], minlength=n_names) > 1] = -1

    astray = np.ones(len(product), dtype=bool)
    astray[under] = ~own[of_row]
    joins = named[astray[named] & (home[name[named]] >= 0)]
    product[joins] = home[name[joins]]
    unlisted = (np.bincount(name[under], minlength=n_names) == 0) & (everywhere > 1) & (everywhere <= UNLISTED)
    alone = named[unlisted[name[named]]]
    product[alone] = n_catalogs + name[alone]
    return product


def _names(attributes: pa.MapArray, identifiers: Identifiers) -> np.ndarray:
    """int64 [n]: a number for each name that a listing has by the identifiers, -1 of one that has none."""
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
        found = np.zeros(len(attributes), dtype=np.int64)
        for at, key in enumerate(identifier):
            told = key_of == keys.index(key.lower()) if key.lower() in keys else np.zeros(len(key_of), dtype=bool)
            fits = is_number if at == len(identifier) - 1 else is_word
            word = _only(pairs.row[told], word_of[told], fits, len(attributes))
            found = np.where((found >= 0) & (word >= 0), found * len(words) + word, -1)
            found = np.unique(found, return_inverse=True)[1] - int((found < 0).any())
        new = (names < 0) & (found >= 0)
        names[new] = used + found[new]
        used += int(found.max(initial=-1)) + 1
    return names


def _only(row: np.ndarray, word: np.ndarray, fits: np.ndarray, n: int) -> np.ndarray:
    """int64 [n]: the word of each row that has a single one and one that fits, else -1."""
    found, several = np.full(n, -1, dtype=np.int64), np.zeros(n, dtype=bool)
    found[row] = word
    several[row[found[row] != word]] = True
    single = np.flatnonzero((found >= 0) & ~several)
    fitting = np.full(n, -1, dtype=np.int64)
    fitting[single] = np.where(fits[found[single]], found[single], -1)
    return fitting
