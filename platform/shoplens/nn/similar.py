"""An image tower with a linear head, trained by metric learning.

The head is that of Hyp-ViT (Ermolov et al. 2022), for each of the losses of `objectives.metric_learning`. Prefixes of its
output can be trained as vectors of their own (Matryoshka representations, Kusupati et al. 2022).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from shoplens.config import Config
from shoplens.datasets.preprocessing import Preprocessing
from shoplens.nn.photo_encoder import PhotoEncoder, PhotoEncoderConfig
from shoplens.objectives.metric_learning import MetricConfig, MetricLoss


class HeadConfig(Config):
    """A linear layer on the tower's output."""

    dim: int = Field(128, ge=2, description="Length of the head's output.")
    prefixes: tuple[int, ...] = Field(
        (), description="Lengths of prefixes that are trained as vectors too. The loss is the sum over them and `dim`."
    )
    served: int | None = Field(None, ge=2, description="Length of the prefix that the package serves. null: all of it.")

    @model_validator(mode="after")
    def _narrower(self) -> HeadConfig:
        if any(not 2 <= width < self.dim for width in self.prefixes) or len(set(self.prefixes)) < len(self.prefixes):
            raise ValueError(f"prefixes are different numbers from 2 to dim - 1, which is {self.dim - 1}")
        if self.served not in (None, self.dim, *self.prefixes):
            raise ValueError(f"served is {self.served}, which is neither dim nor one of the prefixes")
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """The trained lengths, the full one first."""
        return (self.dim, *sorted(self.prefixes))


class SimilarConfig(PhotoEncoderConfig):
    """An image tower with vectors of `dim` numbers, and the head on it."""

    head: HeadConfig = Field(HeadConfig(), description="The linear layer on the tower.")


class SimilarEncoder(PhotoEncoder):
    """Tower and head; with an objective also the loss that trains them.

    The head's weight starts orthogonal and its bias at 0. A head at least as wide as the tower's vectors therefore starts
    by keeping their cosines.
    """

    def __init__(
        self,
        config: SimilarConfig,
        preprocessing: Preprocessing,
        *,
        objective: MetricConfig | None = None,
        classes: int = 0,
        pretrained: bool = True,
    ) -> None:
        """classes   number of classes, for ArcFace"""
        super().__init__(config, preprocessing, pretrained=pretrained)
        self.widths, self.served = config.head.widths, config.head.served or config.head.dim
        self.head = nn.Linear(config.dim, config.head.dim)
        nn.init.orthogonal_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.losses = nn.ModuleList(
            [] if objective is None else [MetricLoss(objective, width, classes) for width in self.widths]
        )
        self.lock(config.locked)

    def start(self, weights: Mapping[str, Tensor]) -> None:
        """Takes over the image tower of any encoder, and its head if that has the same shape.

        Raises ShoplensError if a weight of the tower is missing or of another shape.
        """
        own = {name: value for name, value in self.state_dict().items() if not name.startswith("image.")}
        taken = {name: value for name, value in weights.items() if name.startswith("image.")}
        for name in ("head.weight", "head.bias"):
            if name in weights and weights[name].shape == own[name].shape:
                taken[name] = weights[name]
        super().start({**own, **taken})

    def encode_rows(self, pixels: Tensor) -> Tensor:
        """uint8 [n, 3, h, w] -> the head's output float32 [n, head.dim], tangent vectors of the ball."""
        rows = self.tower_rows(pixels)
        with torch.autocast(rows.device.type, enabled=False):
            return self.head(rows)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """uint8 [n, 3, h, w] -> unit rows [n, served]."""
        return functional.normalize(self.encode_rows(pixels)[:, : self.served], dim=1)

    def forward(self, pixels: Tensor, label: Tensor) -> dict[str, Tensor]:
        return self.compared(self.encode_rows(pixels), label)

    def compared(self, rows: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Scalars of rows [n, head.dim] with their classes int64 [n].

        loss      the sum over the widths
        loss_64   the loss of the first 64 numbers, if prefixes are trained
        clipped   share of rows that the clip radius shortens, if the objective has one. At 1, ranking by distance equals
                  ranking by cosine. clipped_64 likewise
        """
        found: dict[str, Tensor] = {}
        for width, objective in zip(self.widths, self.losses, strict=True):
            terms = objective(rows[:, :width], label)
            found["loss"] = found["loss"] + terms.loss if found else terms.loss
            if len(self.widths) > 1:
                found[f"loss_{width}"] = terms.loss
            if terms.clipped is not None:
                found["clipped" if width == self.widths[0] else f"clipped_{width}"] = terms.clipped
        return found
