"""What the training loop knows of a model: everything else of it lives in its recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from shoplens.config import Config

Batch = dict[str, Tensor]


class TrainingConfig(Config):
    """How a recipe is trained; learning rate warms up linearly, then falls to zero on a cosine.

    batch_size         samples of one global step, over all workers
    checkpoint_every   steps between checkpoints; one is always written at the end
    feed               `ray`: Ray Data reads and collates; `loader`: a torch DataLoader inside the worker
    learning_rates     factors of `learning_rate` by part of the model, the longest name first:
                       {image: 0.1, text.trunk: 0.05}
    threads            torch threads of a worker (default: the machine's cores over its workers)
    """

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(256, ge=2)
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


class Recipe(Protocol):
    """Pickles: the loop carries it to every worker."""

    @property
    def training(self) -> TrainingConfig: ...

    @property
    def seed(self) -> int: ...

    @property
    def steps_per_epoch(self) -> int: ...

    def plan(self, epoch: int) -> np.ndarray:
        """Sample ids of every global batch, int64 [steps_per_epoch, batch_size]."""
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

    def evaluate(self, package: str, split: str) -> Any: ...
