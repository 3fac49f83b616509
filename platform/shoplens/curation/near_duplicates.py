"""Near-duplicates: photos whose perceptual hashes differ in few bits, and image-text pairs (e-CLIP, filter)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from shoplens.curation.distinct import distinct


def first_of_duplicates(phash: np.ndarray, texts: Sequence[str], max_distance: int) -> np.ndarray:
    """bool [n]: true for every image-text pair that is no near-duplicate of a kept pair before it.

    phash         uint64 [n]: perceptual hashes
    texts         [n]
    max_distance  largest Hamming distance of near-duplicate photos, in bits of 64

    Two pairs are near-duplicates if their photos are and their texts have the same set of words.
    The search is exact: two hashes that differ in b bits agree in at least one of b + 1 bands.
    """
    words = [" ".join(sorted(set(re.findall(r"\w+", text.casefold())))) for text in texts]
    bands = max_distance + 1
    edges = np.linspace(0, 64, bands + 1).astype(int)
    seen: dict[tuple[str, int, int], list[int]] = defaultdict(list)
    keep = np.ones(len(phash), dtype=bool)
    hashes = [int(value) for value in phash]
    for row, value in enumerate(hashes):
        keys = [
            (words[row], band, (value >> int(edges[band])) & ((1 << int(edges[band + 1] - edges[band])) - 1))
            for band in range(bands)
        ]
        if any((value ^ hashes[other]).bit_count() <= max_distance for key in keys for other in seen[key]):
            keep[row] = False
            continue
        for key in keys:
            seen[key].append(row)
    return keep


class Links(NamedTuple):
    """Near-duplicate photos: pairs of rows int64 [m, 2], and the Hamming distance of each pair, int64 [m]."""

    pairs: np.ndarray
    distance: np.ndarray


def near_photos(phash: np.ndarray, max_distance: int) -> Links:
    """Links between all photos whose hashes, uint64 [n], are at most `max_distance` bits apart.

    Rows with equal hashes are linked to the first of them. Only that first row is linked to rows of other hashes.

    The search is exact: two hashes that differ in b bits agree in at least two of b + 2 bands, so every pair of bands
    is a sort key. For b up to 4 a key has 21 bits or more, and few different photos share one.
    """
    value, first, of_row = np.unique(phash, return_index=True, return_inverse=True)
    repeated = np.flatnonzero(first[of_row] != np.arange(len(phash)))
    found = [np.empty(0, np.int64)]
    for mask in _keys(max_distance) if max_distance else ():
        key = value & mask
        order = np.argsort(key, kind="stable")
        run = np.cumsum(np.diff(key[order], prepend=key[order[:1]]) != 0)
        for step in range(1, int(np.bincount(run).max(initial=1))):
            a, b = order[:-step][run[:-step] == run[step:]], order[step:][run[:-step] == run[step:]]
            near = np.bitwise_count(value[a] ^ value[b]) <= max_distance
            found.append((np.minimum(a, b) * len(value) + np.maximum(a, b))[near])
    a, b = np.divmod(distinct(np.concatenate(found)), max(1, len(value)))
    pairs = np.concatenate([np.stack([first[of_row[repeated]], repeated], 1), np.stack([first[a], first[b]], 1)])
    return Links(pairs, np.bitwise_count(phash[pairs[:, 0]] ^ phash[pairs[:, 1]]).astype(np.int64))


def _keys(max_distance: int) -> list[np.uint64]:
    """Bit masks of every pair of `max_distance` + 2 bands of 64 bits."""
    edges = np.linspace(0, 64, max_distance + 3).astype(int).tolist()
    bands = [(1 << stop) - (1 << start) for start, stop in zip(edges[:-1], edges[1:], strict=True)]
    return [np.uint64(a | b) for a, b in combinations(bands, 2)]


def cosines(vectors: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """float64 [m]: cosines of the row pairs [m, 2] of unit vectors [n, d]; 16,384 pairs are in memory at a time."""
    found = np.empty(len(pairs))
    for first in range(0, len(pairs), 1 << 14):
        a, b = pairs[first : first + (1 << 14)].T
        found[first : first + len(a)] = (vectors[a].astype(np.float64) * vectors[b]).sum(axis=1)
    return found
