"""What a split shares with the splits that a model and its heads learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoplens.datasets.samples import Samples

NEAR = 2
"""Bits of 64 in which the perceptual hashes of near-duplicate photos differ at most."""
_PAIRS_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Leaks:
    """Catalogs of a split that are also elsewhere, and photos that look like one there.

    `products` are the rows (`Samples.product`) of the leaked catalogs; `near` holds pairs of sample ids
    [m, 2]: a photo of the split, and the nearest photo elsewhere, at most `NEAR` bits apart, nearest pairs first.
    """

    catalogs: np.ndarray
    products: np.ndarray
    near: np.ndarray
    n_catalogs: int

    @property
    def every(self) -> bool:
        """Whether the split is one by photo: all of its products are elsewhere too."""
        return len(self.catalogs) == self.n_catalogs


def leaks(split: Samples, elsewhere: Samples) -> Leaks:
    """Catalogs by id, photos by perceptual hash; both must come from one dataset."""
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


def warning(told: Mapping[str, Any] | None) -> str:
    """`about["leaks"]` of an evaluation in words; empty where nothing leaked."""
    if not told or not told["catalogs"] + told["near_duplicates"]:
        return ""
    splits = " or ".join(told["with"])
    said = []
    if told["by_photo"]:
        said.append(
            f"LEAK: every one of the {told['of']} catalogs of this split is also in {splits}. It is a split by photo: "
            "the figures are those of products that training has seen"
        )
    elif told["catalogs"]:
        what = "left out" if told["left_out"] else "kept, so the figures flatter the model"
        said.append(
            f"LEAK: {told['catalogs']} of {told['of']} catalogs of this split are also in {splits}; "
            f"their {told['products']} products are {what}"
        )
    if told["near_duplicates"]:
        said.append(
            f"{told['near_duplicates']} photos look like one in {splits} (perceptual hashes at most {NEAR} of 64 bits apart), "
            f"{told['same_words']} of them under a title of the same words"
        )
    return ". ".join(said) + "."
