"""Similar products: photos of one product near each other, by a linear head on an image tower.

The head is Hyp-ViT's (Ermolov et al. 2022), for each of the losses of `objectives.metric_learning`; its first
numbers can be trained to be vectors of their own (Kusupati et al. 2022, Matryoshka representations).
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
    """A linear layer on the rows of the tower.

    dim        numbers that it gives
    prefixes   numbers from the first on that are trained to be vectors too; the loss is the sum over them and `dim`
    served     numbers from the first on that a vector of the package has; null: all
    """

    dim: int = Field(128, ge=2)
    prefixes: tuple[int, ...] = ()
    served: int | None = Field(None, ge=2)

    @model_validator(mode="after")
    def _narrower(self) -> HeadConfig:
        if any(not 2 <= width < self.dim for width in self.prefixes) or len(set(self.prefixes)) < len(self.prefixes):
            raise ValueError(f"prefixes are different numbers from 2 to dim - 1, which is {self.dim - 1}")
        if self.served not in (None, self.dim, *self.prefixes):
            raise ValueError(f"served is {self.served}, which is neither dim nor one of the prefixes")
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Those that are trained, the full one first."""
        return (self.dim, *sorted(self.prefixes))


class SimilarConfig(PhotoEncoderConfig):
    """An image tower, whose vectors have `dim` numbers, and the head on it."""

    head: HeadConfig = HeadConfig()


class SimilarEncoder(PhotoEncoder):
    """Tower and head; with an objective also the loss that trains them.

    The head's weight starts orthogonal, its bias at 0: as wide as the tower's vectors or wider, it then leaves
    their cosines as they are.
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
        """classes   of the objective, for ArcFace"""
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
        """Takes over the image tower of any encoder, and the head of one that has a head of the same shape.

        Raises ShoplensError if a weight of the tower is missing or of another shape.
        """
        own = {name: value for name, value in self.state_dict().items() if not name.startswith("image.")}
        taken = {name: value for name, value in weights.items() if name.startswith("image.")}
        for name in ("head.weight", "head.bias"):
            if name in weights and weights[name].shape == own[name].shape:
                taken[name] = weights[name]
        super().start({**own, **taken})

    def encode_rows(self, pixels: Tensor) -> Tensor:
        """uint8 [n, 3, h, w] -> float32 [n, head.dim] as the head gives them, tangent vectors of the ball."""
        rows = self.tower_rows(pixels)
        with torch.autocast(rows.device.type, enabled=False):
            return self.head(rows)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """uint8 [n, 3, h, w] -> unit rows [n, served]."""
        return functional.normalize(self.encode_rows(pixels)[:, : self.served], dim=1)

    def forward(self, pixels: Tensor, label: Tensor) -> dict[str, Tensor]:
        return self.compared(self.encode_rows(pixels), label)

    def compared(self, rows: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Scalars of rows [n, head.dim] of the classes int64 [n].

        loss      the sum over the widths
        loss_64   of the first 64 numbers, where there are prefixes
        clipped   share of rows that the clip radius shortens, where there is one: at 1, distance ranks as cosine does;
                  clipped_64 likewise
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
