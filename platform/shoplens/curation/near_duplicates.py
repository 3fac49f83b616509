"""Near-duplicates: photos of almost the same perceptual hash, and pairs of the same words too (e-CLIP, filter)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np


def first_of_duplicates(phash: np.ndarray, texts: Sequence[str], max_distance: int) -> np.ndarray:
    """bool [n]: true for the first pair of every group of near-duplicates.

    phash         uint64 [n]
    max_distance  largest Hamming distance, in bits of 64, of two photos taken as the same

    Two pairs are duplicates if their photos are and their texts hold the same words, in any order. Within a
    distance of b bits two hashes agree in at least one of b + 1 bands, so comparing band by band is exact.
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
    """Pairs of rows int64 [m, 2] of near-duplicate photos, and how many bits their hashes differ in, int64 [m]."""

    pairs: np.ndarray
    distance: np.ndarray


def near_photos(phash: np.ndarray, max_distance: int) -> Links:
    """What joins all photos whose hashes, uint64 [n], differ in so many bits at most.

    Of rows with one hash the first stands for all: the others are linked to it, and it alone to rows of other hashes.
    Two hashes that differ in b bits agree in two of b + 2 bands at least, so comparing what agrees in two bands is
    exact; for b up to 4 such a key has 21 bits or more, and few unlike photos share one.
    """
    value, first, of_row = np.unique(phash, return_index=True, return_inverse=True)
    repeated = np.flatnonzero(first[of_row] != np.arange(len(phash)))
    found = [np.empty(0, np.int64)]
    for mask in _keys(max_distance) if max_distance else ():
        key = value & mask
        order = np.argsort(key, kind="stable")
        run = np.cumsum(np.diff(key[order], prepend=key[order[:1]]) != 0)
        for apart in range(1, int(np.bincount(run).max(initial=1))):
            a, b = order[:-apart][run[:-apart] == run[apart:]], order[apart:][run[:-apart] == run[apart:]]
            near = np.bitwise_count(value[a] ^ value[b]) <= max_distance
            found.append((np.minimum(a, b) * len(value) + np.maximum(a, b))[near])
    a, b = np.divmod(np.unique(np.concatenate(found)), max(1, len(value)))
    pairs = np.concatenate([np.stack([first[of_row[repeated]], repeated], 1), np.stack([first[a], first[b]], 1)])
    return Links(pairs, np.bitwise_count(phash[pairs[:, 0]] ^ phash[pairs[:, 1]]).astype(np.int64))


def _keys(max_distance: int) -> list[np.uint64]:
    """Masks of every two of `max_distance` + 2 bands of 64 bits."""
    edges = np.linspace(0, 64, max_distance + 3).astype(int).tolist()
    bands = [(1 << stop) - (1 << start) for start, stop in zip(edges[:-1], edges[1:], strict=True)]
    return [np.uint64(a | b) for a, b in combinations(bands, 2)]


def cosines(vectors: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """float64 [m]: of the rows `pairs` [m, 2] of vectors [n, d] of unit length; some thousands are held at a time."""
    found = np.empty(len(pairs))
    for first in range(0, len(pairs), 1 << 14):
        a, b = pairs[first : first + (1 << 14)].T
        found[first : first + len(a)] = (vectors[a].astype(np.float64) * vectors[b]).sum(axis=1)
    return found
