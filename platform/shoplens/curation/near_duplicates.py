"""Near-duplicate pairs: photos with almost the same perceptual hash and the same words (e-CLIP, filter)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

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
