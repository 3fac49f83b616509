"""Uniform batches, drawn without replacement."""

from __future__ import annotations

import numpy as np

from shoplens.datasets.samples import Samples
from shoplens.errors import ShoplensError


def steps_per_epoch(samples: Samples, batch_size: int) -> int:
    """Number of full batches in one pass. Raises ShoplensError if there is none."""
    steps = len(samples) // batch_size
    if not steps:
        raise ShoplensError(f"{len(samples)} training photos do not fill one batch of {batch_size}: lower batch_size")
    return steps


def uniform_plan(samples: Samples, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Sample ids int64 [steps, batch_size]: one shuffled pass without the incomplete last batch."""
    steps = steps_per_epoch(samples, batch_size)
    order = np.random.default_rng((seed, epoch)).permutation(len(samples))
    return samples.sample[order[: steps * batch_size]].reshape(steps, batch_size)
