"""Leaks: catalogs and photos of a split that are also in the splits a model and its heads learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoplens.datasets.samples import Samples

NEAR = 2
"""Near-duplicate photos have perceptual hashes (64 bits) that differ in at most this many bits."""
_PAIRS_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Leaks:
    """Catalogs of a split that are also in other splits, and photos that resemble one there.

    `products` are the rows (`Samples.product`) of the leaked catalogs. `near` holds pairs of sample ids [m, 2], at
    most `NEAR` bits apart, nearest pairs first: a photo of the split, and the nearest photo of the other splits.
    """

    catalogs: np.ndarray
    products: np.ndarray
    near: np.ndarray
    n_catalogs: int

    @property
    def every(self) -> bool:
        """Whether this is a split by photo: all of its catalogs are in the other splits too."""
        return len(self.catalogs) == self.n_catalogs


def leaks(split: Samples, elsewhere: Samples) -> Leaks:
    """Compares catalogs by id and photos by perceptual hash. Both samples must come from one dataset."""
    catalogs = np.intersect1d(split.catalog, elsewhere.catalog)
    nearest, distance = _nearest(split.phash, elsewhere.phash)
    near = np.argsort(distance, kind="stable")[: int((distance <= NEAR).sum())]
    return Leaks(
        catalogs=catalogs,
        products=np.unique(split.product[np.isin(split.catalog, catalogs)]),
        near=np.stack([split.sample[near], elsewhere.sample[nearest[near]]], axis=1),
        n_catalogs=len(np.unique(split.catalog)),
    )


def _nearest(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place in `theirs` and Hamming distance of the nearest hash, uint64 [n] and [m]."""
    place, distance = np.zeros(len(ours), np.int64), np.full(len(ours), 65, np.int64)
    if not len(theirs):
        return place, distance
    step = max(1, _PAIRS_AT_ONCE // len(theirs))
    for start in range(0, len(ours), step):
        bits = np.bitwise_count(ours[start : start + step, None] ^ theirs[None, :])
        place[start : start + step] = bits.argmin(axis=1)
        distance[start : start + step] = bits.min(axis=1)
    return place, distance


def warning(leaked: Mapping[str, Any] | None) -> str:
    """`about["leaks"]` of an evaluation in words; empty if nothing leaked."""
    if not leaked or not leaked["catalogs"] + leaked["near_duplicates"]:
        return ""
    splits = " or ".join(leaked["with"])
    sentences = []
    if leaked["by_photo"]:
        sentences.append(
            f"LEAK: every one of the {leaked['of']} catalogs of this split is also in {splits}. It is a split by photo: "
            "the figures are those of products that training has seen"
        )
    elif leaked["catalogs"]:
        what = "left out" if leaked["left_out"] else "kept, so the figures flatter the model"
        sentences.append(
            f"LEAK: {leaked['catalogs']} of {leaked['of']} catalogs of this split are also in {splits}; "
            f"their {leaked['products']} products are {what}"
        )
    if leaked["near_duplicates"]:
        sentences.append(
            f"{leaked['near_duplicates']} photos look like one in {splits} (perceptual hashes at most {NEAR} of 64 bits apart), "
            f"{leaked['same_words']} of them under a title of the same words"
        )
    return ". ".join(sentences) + "."
