"""Metric learning: losses that pull photos of one class together and push different classes apart.

A batch holds several photos of each of its classes (`sampling.classes`). Workers exchange their rows, so several
workers compute the loss and gradient of one worker with the whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from pytorch_metric_learning.losses import ArcFaceLoss, TripletMarginLoss
from pytorch_metric_learning.miners import BatchEasyHardMiner, BatchHardMiner
from torch import Tensor, nn
from torch.nn import functional

from shoplens.config import Config
from shoplens.errors import ShoplensError
from shoplens.objectives.gather import gather_rows, gather_rows_with_gradient, own_rows
from shoplens.objectives.hyperbolic import clipped_share, distances, to_ball
from shoplens.objectives.tiles import accumulator

Kind = Literal["hyperbolic", "spherical", "triplet", "arcface"]

DEFAULTS: dict[str, dict[str, float]] = {
    "hyperbolic": {"temperature": 0.2},
    "spherical": {"temperature": 0.1},
    "triplet": {"margin": 0.2},
    "arcface": {"margin": 0.25, "scale": 32.0},
}


class MetricConfig(Config):
    """Settings of the metric learning loss. Defaults of temperature, margin and scale depend on the kind."""

    kind: Kind = Field(
        "hyperbolic",
        description="The loss. `hyperbolic`: pairwise cross-entropy of -distance / `temperature` in the Poincaré ball "
        "(Hyp-ViT). `spherical`: the same with cosine / `temperature`. `triplet`: on the unit sphere, the distance to "
        "a photo of the same class must be smaller by `margin` than the distance to a photo of another class. `arcface`: "
        "cross-entropy of `scale` * cosine to a weight vector for each class, with `margin` added to the angle to the "
        "photo's own class.",
    )
    temperature: float = Field(
        0.2, gt=0, description="Divides the similarities (hyperbolic: 0.2 by default; spherical: 0.1)."
    )
    curvature: float = Field(
        0.1, gt=0, description="Curvature parameter c of the Poincaré ball, whose curvature is -c (hyperbolic)."
    )
    clip_radius: float | None = Field(
        2.3,
        gt=0,
        description="Longer tangent vectors are clipped to this norm before they enter the ball; null: no clipping "
        "(hyperbolic).",
    )
    margin: float = Field(
        0.2, ge=0, description="A distance for triplet (0.2 by default), an angle in radians for arcface (0.25)."
    )
    scale: float = Field(32.0, gt=0, description="Factor of the cosines (arcface).")
    mining: Literal["hardest", "semihard"] = Field(
        "hardest",
        description="Triplets of a batch (triplet). The positive is the farthest photo of the class. The negative is "
        "the nearest photo of another class: of all (`hardest`), or of those farther away than the positive "
        "(`semihard`).",
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_kind(cls, tree: Any) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        return {**DEFAULTS.get(tree.get("kind", "hyperbolic"), {}), **tree}

    @model_validator(mode="after")
    def _margin_is_an_angle(self) -> MetricConfig:
        if self.kind == "arcface" and self.margin >= math.pi:
            raise ValueError("the margin of arcface is an angle in radians and must be less than pi: 0.25 is usual")
        return self


class MetricTerms(NamedTuple):
    """Scalars of this worker's rows. Their mean over workers is the value of the whole batch.

    clipped   share of rows that the clip radius clips (hyperbolic), else None. Near 1, ranking by hyperbolic
              distance equals ranking by cosine.
    """

    loss: Tensor
    clipped: Tensor | None


class MetricLoss(nn.Module):
    """The loss of `config`, a submodule of the model it trains, since ArcFace learns weights for `classes` classes.

    The other kinds have neither parameters nor buffers, so they add nothing to a checkpoint.
    """

    def __init__(self, config: MetricConfig, dim: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.classes = classes
        self.of_classes: nn.Module | None = None
        if config.kind == "arcface":
            self.of_classes = ArcFaceLoss(classes, dim, margin=math.degrees(config.margin), scale=config.scale)

    def forward(self, rows: Tensor, label: Tensor) -> MetricTerms:
        """The loss of the global batch, which all workers hold together.

        rows    output of the head on this worker [n, d], with equal n on all workers; cast to float32 inside autocast
        label   int64 [n], class of each row; 0 to `classes` - 1 for ArcFace

        A row's gradient is that of the sum of all workers' losses. DDP averages gradients, so it expects this.
        Raises ShoplensError if the loss cannot use the classes of the batch: ArcFace knows no such class, or the
        pairwise cross-entropy gets different numbers of photos a class.
        """
        config, clipped = self.config, None
        with torch.autocast(rows.device.type, enabled=False):
            rows = rows.to(accumulator(rows))
            match config.kind:
                case "hyperbolic":
                    clipped = clipped_share(rows, config.curvature, config.clip_radius)
                    points = to_ball(rows, config.curvature, config.clip_radius)
                    similarity = -distances(points, gather_rows_with_gradient(points), config.curvature)
                    loss = pairwise_cross_entropy(similarity / config.temperature, gather_rows(label))
                case "spherical":
                    unit = functional.normalize(rows, dim=1)
                    similarity = unit @ gather_rows_with_gradient(unit).T
                    loss = pairwise_cross_entropy(similarity / config.temperature, gather_rows(label))
                case "triplet":
                    loss = triplet(gather_rows_with_gradient(rows), gather_rows(label), config)
                case "arcface":
                    loss = self._of_classes(rows, label)
        return MetricTerms(loss, clipped)

    def _of_classes(self, rows: Tensor, label: Tensor) -> Tensor:
        assert self.of_classes is not None
        if label.min() < 0 or label.max() >= self.classes:
            raise ShoplensError(
                f"arcface has weights for classes 0 to {self.classes - 1}, but the batch has others: check the labels"
            )
        loss: Tensor = self.of_classes(rows, label)
        return loss


def pairwise_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Pairwise cross-entropy of Hyp-ViT (Ermolov et al. 2022) as a mean over this worker's rows.

    logits  similarities over the temperature [n, W n], of own rows (see `own_rows`) with all rows
    label   int64 [W n]: N classes of m >= 2 rows each, in any order

    The j-th row of each class, in the order of the batch, fills slot j. For ordered slots (a, b), a row of slot a
    must identify its mate in slot b among the N rows of b and the N - 1 other rows of a. The result is the mean over
    rows and slots b; the published code sums over the m (m - 1) pairs of slots.
    Raises ShoplensError if the classes have different numbers of rows, or one row each.
    """
    n = len(logits)
    by_slot, place = _slots(label)
    own = torch.arange(len(label), device=label.device)[own_rows(len(label))]
    samples = by_slot.shape[1]
    group, slot = place[own] // samples, place[own] % samples
    slots = logits.scatter(1, own[:, None], -torch.inf)[:, by_slot]
    by_slot_sum = slots.logsumexp(1)
    pool = torch.logaddexp(by_slot_sum, by_slot_sum.gather(1, slot[:, None]))
    other = torch.arange(samples, device=label.device) != slot[:, None]
    return (pool - slots[torch.arange(n, device=label.device), group])[other].mean()


def triplet(rows: Tensor, label: Tensor, config: MetricConfig) -> Tensor:
    """Mean of d(a, p) - d(a, n) + margin over the mined triplets where it is positive; d is Euclidean, on unit vectors.

    rows    [N, d] of all workers
    label   int64 [N]

    The result is 0 if no row has both a mate and a row of another class.
    """
    miner = (
        BatchHardMiner()
        if config.mining == "hardest"
        else BatchEasyHardMiner(pos_strategy="hard", neg_strategy="semihard")
    )
    loss: Tensor = TripletMarginLoss(config.margin)(rows, label, miner(rows, label))
    return loss


def _slots(label: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of each class [N, m], in the order of the batch, and the flat position of each row in that matrix [N m]."""
    _, counts = torch.unique(label, return_counts=True)
    fewest, most = (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
    if fewest < 2 or fewest != most:
        raise ShoplensError(
            f"pairwise cross-entropy needs as many rows of every class of a batch, at least two, but got {fewest} to "
            f"{most}: draw batches by class (sampling.classes)"
        )
    order = torch.argsort(label, stable=True)
    return order.view(-1, most), torch.argsort(order)
