"""Uniform batches, drawn without replacement."""

from __future__ import annotations

import numpy as np

from shoplens.datasets.samples import Samples


def steps_per_epoch(samples: Samples, batch_size: int) -> int:
    """Number of full batches in one pass; one smaller batch if the samples do not fill any."""
    return max(1, len(samples) // batch_size)


def uniform_plan(samples: Samples, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Sample ids int64 [steps, batch_size]: one shuffled pass without the incomplete last batch.

    Fewer samples than `batch_size` are one batch of all of them, so that a very small shop trains too.
    """
    steps = steps_per_epoch(samples, batch_size)
    order = np.random.default_rng((seed, epoch)).permutation(len(samples))
    return samples.sample[order[: steps * batch_size]].reshape(steps, -1)
