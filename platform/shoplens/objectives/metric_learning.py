"""Metric learning: losses by which photos of one class come near each other, and those of different classes apart.

A batch holds several photos of each of its classes (`sampling.classes`). Rows of all workers meet, so the loss and
gradient of several workers are those of one with the whole batch.
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
    """Which loss, and what it takes; the defaults of temperature, margin and scale are those of the kind.

    hyperbolic  pairwise cross-entropy of distances in the Poincaré ball over `temperature` (Hyp-ViT)
    spherical   the same of cosines over `temperature`
    triplet     a photo's distance to its own class and `margin` less than that to another, on the unit sphere, for
                the triplets of the batch that `mining` chooses
    arcface     cross-entropy of `scale` times the cosine to each class's weights, `margin` radians taken off its own

    curvature    of the ball (hyperbolic)
    clip_radius  longest tangent vector that is mapped into the ball; null for no clipping (hyperbolic)
    mining       `hardest`: the farthest photo of the class, the nearest of another; `semihard`: that farthest one,
                 and the nearest of another class beyond it
    """

    kind: Kind = "hyperbolic"
    temperature: float = Field(0.2, gt=0)
    curvature: float = Field(0.1, gt=0)
    clip_radius: float | None = Field(2.3, gt=0)
    margin: float = Field(0.2, ge=0)
    scale: float = Field(32.0, gt=0)
    mining: Literal["hardest", "semihard"] = "hardest"

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_kind(cls, tree: Any) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        return {**DEFAULTS.get(tree.get("kind", "hyperbolic"), {}), **tree}

    @model_validator(mode="after")
    def _margin_is_an_angle(self) -> MetricConfig:
        if self.kind == "arcface" and self.margin >= math.pi:
            raise ValueError("the margin of arcface is an angle in radians, less than pi: 0.25 is usual")
        return self


class MetricTerms(NamedTuple):
    """Scalars of this worker's rows; their mean over workers is the value of the whole batch.

    clipped   the share of rows that the clip radius shortens; where it is near 1, hyperbolic ranking is cosine
              ranking. None of the kinds without a ball.
    """

    loss: Tensor
    clipped: Tensor | None


class MetricLoss(nn.Module):
    """The loss of `config`, to be held by the model that it trains: ArcFace learns weights of `classes` classes.

    The other kinds have neither parameters nor buffers, and nothing of them is saved.
    """

    def __init__(self, config: MetricConfig, dim: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.classes = classes
        self.of_classes: nn.Module | None = None
        if config.kind == "arcface":
            self.of_classes = ArcFaceLoss(classes, dim, margin=math.degrees(config.margin), scale=config.scale)

    def forward(self, rows: Tensor, label: Tensor) -> MetricTerms:
        """The loss of the batch that all workers hold together.

        rows    [n, d] of this worker, as the head gives them, n the same on each; taken in float32 inside autocast
        label   int64 [n] class of each row; 0 to `classes` - 1 for ArcFace

        The gradient of a row is that of the sum of all workers' losses: what DDP's mean of gradients expects.
        Raises ShoplensError if the classes of the batch are not what the loss needs.
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
            raise ShoplensError(f"arcface has weights of classes 0 to {self.classes - 1}, and the batch others")
        loss: Tensor = self.of_classes(rows, label)
        return loss


def pairwise_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Of own rows [n] with all rows [W n], similarities over the temperature: the loss of Hyp-ViT as a mean.

    logits  [n, W n], own rows as `own_rows` says
    label   int64 [W n]: N classes of m >= 2 rows each, in any order

    The j-th row of each class, in the order of the batch, fills slot j. For ordered slots (a, b) a row of slot a finds
    its mate in slot b among the N rows of b and the N - 1 others of a (Ermolov et al. 2022). The mean over rows and
    slots b, where the published code sums over the m (m - 1) pairs of slots.
    Raises ShoplensError if the classes have different numbers of rows, or one.
    """
    n = len(logits)
    by_slot, place = _slots(label)
    own = torch.arange(len(label), device=label.device)[own_rows(len(label))]
    samples = by_slot.shape[1]
    group, slot = place[own] // samples, place[own] % samples
    slots = logits.scatter(1, own[:, None], -torch.inf)[:, by_slot]
    reached = slots.logsumexp(1)
    pool = torch.logaddexp(reached, reached.gather(1, slot[:, None]))
    other = torch.arange(samples, device=label.device) != slot[:, None]
    return (pool - slots[torch.arange(n, device=label.device), group])[other].mean()


def triplet(rows: Tensor, label: Tensor, config: MetricConfig) -> Tensor:
    """Mean over the mined triplets within the margin of max(0, d(a, p) - d(a, n) + margin), d of unit vectors.

    rows [N, d] of all workers, label int64 [N]. 0 where no row has both a mate and another class to meet.
    """
    miner = (
        BatchHardMiner()
        if config.mining == "hardest"
        else BatchEasyHardMiner(pos_strategy="hard", neg_strategy="semihard")
    )
    loss: Tensor = TripletMarginLoss(config.margin)(rows, label, miner(rows, label))
    return loss


def _slots(label: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of each class [N, m], in the order of the batch, and the place of each row in that, flat [N m]."""
    _, counts = torch.unique(label, return_counts=True)
    fewest, most = (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
    if fewest < 2 or fewest != most:
        raise ShoplensError(
            f"pairwise cross-entropy needs as many rows of every class of a batch, two at least, and has {fewest} to "
            f"{most}: draw batches by class (sampling.classes)"
        )
    order = torch.argsort(label, stable=True)
    return order.view(-1, most), torch.argsort(order)
