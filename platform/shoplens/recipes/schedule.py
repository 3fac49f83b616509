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

    epochs: int = Field(10, ge=1, description="Passes over the plan.")
    batch_size: int = Field(256, ge=2, description="Samples of one global step, over all workers.")
    batch_sizes: dict[NonNegativeInt, Size] = Field(
        {}, description="Other batch sizes from later epochs on, such as {4: 512, 8: 1024}. The learning rate stays."
    )
    stream_size: dict[str, PositiveInt] = Field(
        {},
        description="Samples that a tower encodes at a time on a worker, such as {image: 64, text: 512}. The batch may "
        "then be larger than memory, at the cost of one more forward pass. The gradient is the same.",
    )
    learning_rate: float = Field(1e-3, gt=0, description="The highest learning rate, reached after the warm-up.")
    learning_rates: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {},
        description="Factors of `learning_rate` by part of the model, such as {image: 0.1, text.trunk: 0.05}. The "
        "longest name that fits a weight decides.",
    )
    weight_decay: float = Field(
        0.05, ge=0, description="Weight decay of matrices. Biases, norms and position embeddings have none."
    )
    betas: tuple[float, float] = Field((0.9, 0.98), description="Decay rates of AdamW's two moments.")
    warmup_steps: int = Field(50, ge=0, description="Steps from 0 to `learning_rate`.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients with a larger norm are scaled down to it.")
    checkpoint_every: int = Field(200, ge=1, description="Steps between checkpoints. One is always written at the end.")
    keep_checkpoints: int = Field(2, ge=1, description="Number of checkpoints to keep. Older ones are deleted.")
    log_every: int = Field(5, ge=1, description="Steps between points of the curves in MLflow.")
    max_failures: int = Field(3, ge=0, description="Restarts after a lost worker before the run fails.")
    feed: Literal["ray", "loader", "thread"] = Field(
        "ray",
        description="`ray`: Ray Data reads and collates on the cluster. `loader`: a torch DataLoader in the worker does. "
        "`thread`: a thread of the worker does; it starts at once, and is enough for vectors of a locked trunk.",
    )
    prefetch: int = Field(4, ge=1, description="Batches that are read ahead of the step.")
    threads: int | None = Field(
        None, ge=1, description="Torch threads of a worker. null: the machine's cores divided by its workers."
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
