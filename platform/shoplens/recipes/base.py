"""What the training loop knows of a model: everything else of it lives in its recipe."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import Annotated, Literal, Protocol

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from shoplens.config import Config

Batch = dict[str, Tensor]


class TrainingConfig(Config):
    """How a recipe is trained; learning rate warms up linearly, then falls to zero on a cosine.

    batch_size         samples of one global step, over all workers
    batch_sizes        larger (or smaller) ones from later epochs on, {4: 512, 8: 1024}; the learning rate stays
    stream_size        samples that a tower encodes at a time on a worker, {image: 64, text: 512}: the batch may
                       then be larger than memory, for one more pass through the tower; the gradient is the same
    checkpoint_every   steps between checkpoints; one is always written at the end
    feed               `ray`: Ray Data reads and collates; `loader`: a torch DataLoader inside the worker
    learning_rates     factors of `learning_rate` by part of the model, the longest name first:
                       {image: 0.1, text.trunk: 0.05}
    threads            torch threads of a worker (default: the machine's cores over its workers)
    """

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(256, ge=2)
    batch_sizes: dict[NonNegativeInt, Annotated[int, Field(ge=2)]] = {}
    stream_size: dict[str, PositiveInt] = {}
    learning_rate: float = Field(1e-3, gt=0)
    learning_rates: dict[str, Annotated[float, Field(gt=0)]] = {}
    weight_decay: float = Field(0.05, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    warmup_steps: int = Field(50, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    checkpoint_every: int = Field(200, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    log_every: int = Field(5, ge=1)
    max_failures: int = Field(3, ge=0)
    feed: Literal["ray", "loader"] = "ray"
    prefetch: int = Field(4, ge=1)
    threads: int | None = Field(None, ge=1)

    def batch_size_of(self, epoch: int) -> int:
        begun = [start for start in self.batch_sizes if start <= epoch]
        return self.batch_sizes[max(begun)] if begun else self.batch_size


class Recipe(Protocol):
    """Pickles: the loop carries it to every worker."""

    @property
    def training(self) -> TrainingConfig: ...

    @property
    def seed(self) -> int: ...

    def steps(self, epoch: int) -> int:
        """Batches of an epoch."""
        ...

    def plan(self, epoch: int) -> np.ndarray:
        """Sample ids of every global batch, int64 [steps, batch_size]."""
        ...

    def plan_statistics(self, plan: np.ndarray) -> dict[str, float]:
        """What there is to say of an epoch's plan, logged as `sampling/...`."""
        ...

    def collate(self, samples: np.ndarray, epoch: int) -> dict[str, np.ndarray]:
        """Reads, decodes and stacks the samples of one micro-batch; the same arguments give the same bytes."""
        ...

    def build(self) -> nn.Module:
        """The model, randomly initialised or pretrained, on the CPU."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Scalars to log; `loss` is differentiated. `model` must be called, not its parts (DDP)."""
        ...


class Timeline:
    """Where a training stands: steps are counted through all epochs, whose batches may differ in size."""

    def __init__(self, recipe: Recipe) -> None:
        epochs = range(recipe.training.epochs)
        steps = [recipe.steps(epoch) for epoch in epochs]
        self._batch = [recipe.training.batch_size_of(epoch) for epoch in epochs]
        self._first_step = [0, *accumulate(steps)]
        self._seen = [0, *accumulate(size * count for size, count in zip(self._batch, steps, strict=True))]

    @property
    def total(self) -> int:
        """Steps of the whole training."""
        return self._first_step[-1]

    @property
    def total_samples(self) -> int:
        return self._seen[-1]

    def locate(self, step: int) -> tuple[int, int]:
        """(epoch, batch of its plan) of a step."""
        epoch = min(bisect_right(self._first_step, step), len(self._batch)) - 1
        return epoch, step - self._first_step[epoch]

    def first_step(self, epoch: int) -> int:
        return self._first_step[epoch]

    def seen(self, step: int) -> int:
        """Samples before a step."""
        epoch, batch = self.locate(step)
        return self._seen[epoch] + batch * self._batch[epoch]

    def epochs(self, step: int) -> float:
        """Epochs before a step, with the fraction of the one that runs."""
        epoch, batch = self.locate(step)
        return epoch + batch / (self._first_step[epoch + 1] - self._first_step[epoch])
