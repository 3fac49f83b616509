"""Statistics of a batch plan: duplicates, repeats and the mix of categories."""

from __future__ import annotations

import numpy as np

from shoplens.datasets.samples import Samples


def plan_statistics(plan: np.ndarray, samples: Samples) -> dict[str, float]:
    """Statistics of a plan int64 [steps, batch] of sample ids. All but `repeats` are means over batches.

    same_catalog      share of samples with another sample of their catalog in the batch
    same_photo        share of samples with another sample of equal perceptual hash in the batch
    category_entropy  entropy of a batch's leaf categories, in nats; samples without a category are left out
    repeats           share of the plan's samples that were drawn earlier in the epoch
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
    """keys [steps, batch] -> mean share of a row's entries that occur more than once in the row."""
    counts = [np.unique(batch, return_counts=True)[1] for batch in keys]
    return float(np.mean([count[count > 1].sum() / keys.shape[1] for count in counts]))


def _entropy(codes: np.ndarray) -> float:
    shares = np.unique(codes, return_counts=True)[1] / max(1, len(codes))
    return float(-(shares * np.log(shares)).sum())
