"""The schedule of a training: its settings, and how steps, epochs and samples follow from them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from shoplens.config import Config

Size = Annotated[int, Field(ge=2)]


class TrainingConfig(Config):
    """How the loop trains a recipe, with AdamW. The learning rate warms up linearly, then falls to 0 on a cosine."""

    epochs: int = Field(10, ge=1, description="passes over the plan of an epoch")
    batch_size: int = Field(256, ge=2, description="samples of one global step, over all workers")
    batch_sizes: dict[NonNegativeInt, Size] = Field(
        {}, description="other sizes from later epochs on, such as {4: 512, 8: 1024}; the learning rate stays"
    )
    stream_size: dict[str, PositiveInt] = Field(
        {},
        description="samples that a tower encodes at a time on a worker, such as {image: 64, text: 512}. The batch may "
        "then be larger than memory, for one more forward pass; the gradient is the same",
    )
    learning_rate: float = Field(1e-3, gt=0, description="the highest, after the warm-up")
    learning_rates: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {},
        description="factors of `learning_rate` by part of the model, such as {image: 0.1, text.trunk: 0.05}; the "
        "longest name that fits a weight decides",
    )
    weight_decay: float = Field(
        0.05, ge=0, description="of weight matrices; biases, norms and embeddings of position have none"
    )
    betas: tuple[float, float] = Field((0.9, 0.98), description="of AdamW")
    warmup_steps: int = Field(50, ge=0, description="steps from 0 to `learning_rate`")
    max_grad_norm: float = Field(1.0, gt=0, description="longer gradients are scaled down to this norm")
    checkpoint_every: int = Field(200, ge=1, description="steps between checkpoints; one is always written at the end")
    keep_checkpoints: int = Field(2, ge=1, description="checkpoints kept; older ones are deleted")
    log_every: int = Field(5, ge=1, description="steps between points of the curves in MLflow")
    max_failures: int = Field(3, ge=0, description="restarts after a lost worker before the run fails")
    feed: Literal["ray", "loader"] = Field(
        "ray",
        description="`ray`: Ray Data reads and collates on the cluster; `loader`: a torch DataLoader in the worker",
    )
    prefetch: int = Field(4, ge=1, description="batches that are ready ahead of the step")
    threads: int | None = Field(
        None, ge=1, description="torch threads of a worker; null: the machine's cores over its workers"
    )

    def batch_size_of(self, epoch: int) -> int:
        begun = [start for start in self.batch_sizes if start <= epoch]
        return self.batch_sizes[max(begun)] if begun else self.batch_size


class Timeline:
    """Steps counted through all epochs of a training, whose batches may differ in size."""

    def __init__(self, training: TrainingConfig, steps: Callable[[int], int]) -> None:
        """`steps` gives the batches of an epoch."""
        epochs = range(training.epochs)
        counts = [steps(epoch) for epoch in epochs]
        self._batch = [training.batch_size_of(epoch) for epoch in epochs]
        self._first_step = [0, *accumulate(counts)]
        self._seen = [0, *accumulate(size * count for size, count in zip(self._batch, counts, strict=True))]

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
