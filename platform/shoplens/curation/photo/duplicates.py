"""Groups of photos that show the same picture. Curation keeps one photo of each, and joins what is known of all."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from shoplens.curation.near_duplicates import near_photos

BITS = 4
"""Largest Hamming distance of two photos that are linked. Copies at quality 50, or at half or a third of the size, stay
within it."""
DIAMETER = 12
"""Largest distance within a group. Links chain: without a limit, plain pictures join many different ones."""
FLAT = 1.0
"""Photos of less `sharpness` have no picture that a perceptual hash could tell; only equal bytes are the same."""


BLANK = 0.9
"""Photos of as large a white share have too small a picture: hashes of different things on white pages are equal."""


def telling(sharpness: np.ndarray, white: np.ndarray) -> np.ndarray:
    """bool [n]: whether a perceptual hash can tell the photo, by float [n] of `signals.sharpness` and `white_share`."""
    return (sharpness >= FLAT) & (white < BLANK)


def groups(phash: np.ndarray, file: np.ndarray, tells: np.ndarray) -> np.ndarray:
    """The group of each photo, int64 [n]: numbers from 0 in the order of each group's first photo.

    phash      uint64 [n]: perceptual hashes
    file       int64 [n]: equal for equal bytes
    tells      bool [n]: see `telling`; the others are linked by their bytes only

    Photos are linked if their hashes differ in at most `BITS` bits, or if their bytes are equal. A linked group that is
    wider than `DIAMETER` bits is split: in order, a hash joins the first earlier one within `BITS` that leads a part, or
    leads a part itself. The result does not depend on the order of equal photos.
    """
    n = len(phash)
    shown = np.flatnonzero(tells)
    links = shown[near_photos(phash[shown], BITS).pairs]
    first = np.unique(file, return_index=True, return_inverse=True)
    same = np.stack([first[1][first[2].ravel()], np.arange(n)], 1)
    pairs = np.concatenate([links, same])
    group = connected_components(coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), (n, n)), directed=False)[
        1
    ]
    return _renumbered(_split(group.astype(np.int64), phash, shown))


def representatives(group: np.ndarray, area: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The photo that stands for each group, int64 [groups]: of the largest area, then of the most bytes, then the first."""
    order = np.lexsort((np.arange(len(group)), -size, -area, group))
    return order[np.flatnonzero(np.diff(group[order], prepend=-1))]


def _split(group: np.ndarray, phash: np.ndarray, shown: np.ndarray) -> np.ndarray:
    order = shown[np.argsort(group[shown], kind="stable")]
    runs = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    unused = int(group.max(initial=-1)) + 1
    for rows in runs:
        value, of_row = np.unique(phash[rows], return_inverse=True)
        if len(value) <= 1 or _diameter(value) <= DIAMETER:
            continue
        leaders: list[int] = []
        part = np.empty(len(value), np.int64)
        for place, hash_ in enumerate(value.tolist()):
            near = next((k for k, leader in enumerate(leaders) if (leader ^ hash_).bit_count() <= BITS), len(leaders))
            if near == len(leaders):
                leaders.append(hash_)
            part[place] = near
        group[rows] = unused + part[of_row.ravel()]
        unused += len(leaders)
    return group


def _diameter(value: np.ndarray) -> int:
    """The largest distance of two hashes, or `DIAMETER` + 1 as soon as one is farther from the first."""
    if int(np.bitwise_count(value ^ value[0]).max()) > DIAMETER:
        return DIAMETER + 1
    return max(int(np.bitwise_count(value ^ one).max()) for one in value)


def _renumbered(group: np.ndarray) -> np.ndarray:
    _, first, number = np.unique(group, return_index=True, return_inverse=True)
    place = np.empty(len(first), np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    return place[number.ravel()]
