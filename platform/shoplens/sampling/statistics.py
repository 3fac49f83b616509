"""What a batch plan holds, as figures: duplicates, repeats, how mixed its categories are."""

from __future__ import annotations

import numpy as np

from shoplens.datasets.samples import Samples


def plan_statistics(plan: np.ndarray, samples: Samples) -> dict[str, float]:
    """Of a plan int64 [steps, batch] of sample ids, means over its batches but for `repeats`.

    same_catalog      share of rows that meet another photo of their catalog
    same_photo        share of rows that meet a photo of equal perceptual hash
    category_entropy  entropy of the leaf categories of a batch, in nats; rows without one are left out
    repeats           share of the epoch's rows that were drawn before in it
    """
    row_of = np.full(samples.sample.max() + 1, -1)
    row_of[samples.sample] = np.arange(len(samples))
    rows = row_of[plan]
    leaf = samples.category[:, -1]
    return {
        "same_catalog": _met(samples.catalog[rows]),
        "same_photo": _met(samples.phash[rows]),
        "category_entropy": float(np.mean([_entropy(batch[batch >= 0]) for batch in leaf[rows]])),
        "repeats": 1 - len(np.unique(plan)) / plan.size,
    }


def _met(keys: np.ndarray) -> float:
    """[steps, batch] -> share of entries that have an equal in their row."""
    counts = [np.unique(batch, return_counts=True)[1] for batch in keys]
    return float(np.mean([count[count > 1].sum() / keys.shape[1] for count in counts]))


def _entropy(codes: np.ndarray) -> float:
    shares = np.unique(codes, return_counts=True)[1] / max(1, len(codes))
    return float(-(shares * np.log(shares)).sum())
