"""Contrastive losses of photos and texts with targets by catalog, exact and in O(N d) memory.

With scores S = s X Y^T and targets T, every loss is `partition(S) - <T, S>`. `tiles` reduces the first term from
tiles of scores. The second term needs only group means (`targets`), because sum_j T_ij s x_i.y_j = s x_i.(T Y)_i.
T is symmetric, so the second term is equal in both directions, and workers exchange texts but no image rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, autograd
from torch.autograd.function import once_differentiable

from shoplens.config import Config
from shoplens.errors import ShoplensError
from shoplens.objectives import tiles
from shoplens.objectives.gather import gather_rows, largest_over_workers, own_rows, sum_over_workers, sum_to_owner
from shoplens.objectives.targets import Level, Targets, nested

Kind = Literal["clip", "mask", "soft", "graded", "sigmoid"]


class ObjectiveConfig(Config):
    """Settings of the contrastive loss: the targets of photo-text pairs. The loss is symmetric over the batch."""

    kind: Kind = Field(
        "soft",
        description="The targets. `clip`: each photo to its own text (InfoNCE). `mask`: like `clip`, but other offers "
        "of the catalog are no negatives. `soft`: each photo to the texts of its catalog in equal shares (e-CLIP). "
        "`graded`: like `soft`, with the shares of `grades` for the texts of its category and the category's parents. "
        "`sigmoid`: a binary loss for each pair, positive within a catalog (SigLIP with several positives).",
    )
    own_pair: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the target that the pair itself keeps; its catalog shares the rest (soft, graded, "
        "sigmoid). Raise it if many catalog ids are wrong. 1 is CLIP.",
    )
    grades: tuple[float, ...] = Field(
        (0.05, 0.02), description="Shares of the category, the category's parent and so on (graded)."
    )

    @model_validator(mode="after")
    def _shares(self) -> ObjectiveConfig:
        if any(grade < 0 for grade in self.grades) or self.own_pair + sum(self.grades) > 1:
            raise ValueError("own_pair and grades are shares: none may be negative, and their sum may not exceed 1")
        return self


class ContrastiveTerms(NamedTuple):
    """Scalars of this worker's rows. Their mean over workers is the value of the global batch.

    excess     the loss minus its minimum (the entropy of the targets); comparable between batches with different
               shares of duplicates
    hardness   mean cosine of a photo with the texts of other catalogs
    """

    loss: Tensor
    excess: Tensor
    hardness: Tensor


def contrastive(
    image: Tensor,
    text: Tensor,
    catalog: Tensor,
    logit_scale: Tensor,
    objective: ObjectiveConfig,
    *,
    logit_bias: Tensor | None = None,
    category: Tensor | None = None,
) -> ContrastiveTerms:
    """The loss of the global batch, which all workers hold together.

    image, text   unit rows [n, d] of this worker, with equal n on all workers; cast to the type of autocast inside it
    catalog       int64 [n]; equal numbers mean the same product
    logit_scale   scalar 1/temperature
    logit_bias    scalar (sigmoid); default 0
    category      int64 [n, levels], the leaf first; negative if unknown (graded)

    A row's gradient is that of the sum of all workers' losses. DDP averages gradients, so it expects this.
    Raises ShoplensError if `graded` gets no categories.
    """
    device = image.device.type
    if torch.is_autocast_enabled(device):
        image, text = (rows.to(torch.get_autocast_dtype(device)) for rows in (image, text))
    with torch.autocast(device, enabled=False):
        catalogs = gather_rows(catalog)
        own = own_rows(len(catalogs))
        targets = targets_of(objective, catalogs, None if category is None else gather_rows(category))
        mates = Targets((Level.of(1.0, catalogs),), share=False)
        if objective.kind == "sigmoid":
            bias = torch.zeros_like(logit_scale) if logit_bias is None else logit_bias
            loss, hardness = _Sigmoid.apply(image, text, logit_scale, bias, targets, mates, own)
        else:
            excluded = tiles.Excluded(catalogs[own], catalogs, own.start) if objective.kind == "mask" else None
            loss, hardness = _Softmax.apply(image, text, logit_scale, targets, mates, own, excluded)
    return ContrastiveTerms(loss, loss.detach() - targets.entropy(own).mean().to(loss.dtype), hardness)


def targets_of(objective: ObjectiveConfig, catalog: Tensor, category: Tensor | None = None) -> Targets:
    """The targets of the global batch from catalog int64 [N] and category int64 [N, levels].

    Raises ShoplensError if `graded` gets no categories.
    """
    own = torch.arange(len(catalog), device=catalog.device)
    if objective.kind in ("clip", "mask"):
        return Targets((Level.of(1.0, own),))
    grades: list[tuple[float, Tensor]] = []
    if objective.kind == "graded":
        if category is None:
            raise ShoplensError(
                "graded targets need the category of every product, but the dataset has none: choose another "
                "objective.kind"
            )
        grades = list(zip(objective.grades, nested(catalog, category), strict=False))
    of_catalog = 1 - objective.own_pair - sum(weight for weight, _ in grades)
    levels = [(objective.own_pair, own), (of_catalog, catalog), *grades]
    return Targets(tuple(Level.of(*level) for level in levels if level[0]), share=objective.kind != "sigmoid")


class _Softmax(autograd.Function):
    """Mean over own rows of (logsumexp_j S_ij + logsumexp_i S_ij) / 2 - sum_j T_ij S_ij."""

    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        text: Tensor,
        scale: Tensor,
        targets: Targets,
        mates: Targets,
        own: slice,
        excluded: tiles.Excluded | None,
    ) -> tuple[Tensor, Tensor]:
        image, texts = image.detach().contiguous(), gather_rows(text)
        by_row, by_column = _engine(image).reduce_scores(image, texts, scale, excluded)
        largest = largest_over_workers(by_column.largest)
        of_rows = by_row.logsumexp
        of_columns = largest + sum_over_workers(by_column.relative_to(largest)).log()
        ctx.save_for_backward(image, texts, scale, of_rows, of_columns)
        ctx.targets, ctx.own, ctx.excluded = targets, own, excluded
        partition = (of_rows + of_columns[own]).mean() / 2
        loss = partition - scale * targets.aligned(image, texts, own).mean()
        return loss.to(scale.dtype), _hardness(ctx, image, texts, mates, own)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        image, texts, scale, of_rows, of_columns = ctx.saved_tensors
        stripes = functools.partial(
            _engine(image).softmax_gradient, image, texts, scale, of_rows, of_columns, ctx.excluded
        )
        rows = _rows_gradient(stripes, image, texts, ctx.targets, ctx.own, 0.5, gradient * scale)
        return rows.image, rows.text, (rows.along / scale).to(scale.dtype), None, None, None, None


class _Sigmoid(autograd.Function):
    """Mean over own rows of sum_j log(1 + exp(S_ij + b)) - T_ij (S_ij + b)."""

    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        text: Tensor,
        scale: Tensor,
        bias: Tensor,
        targets: Targets,
        mates: Targets,
        own: slice,
    ) -> tuple[Tensor, Tensor]:
        image, texts = image.detach().contiguous(), gather_rows(text)
        ctx.save_for_backward(image, texts, scale, bias)
        ctx.targets, ctx.own = targets, own
        partition = _engine(image).softplus_sum(image, texts, scale, bias).mean()
        aligned = scale * targets.aligned(image, texts, own).mean() + bias * targets.mass(own).mean()
        return (partition - aligned).to(scale.dtype), _hardness(ctx, image, texts, mates, own)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        image, texts, scale, bias = ctx.saved_tensors
        mass = torch.zeros(len(image), dtype=tiles.accumulator(image), device=image.device)

        def stripes(along_y: Tensor) -> Iterator[tuple[slice, Tensor]]:
            return _engine(image).sigmoid_gradient(image, texts, scale, bias, along_y, mass)

        rows = _rows_gradient(stripes, image, texts, ctx.targets, ctx.own, 1.0, gradient * scale)
        of_bias = gradient * (mass - ctx.targets.mass(ctx.own)).mean()
        return rows.image, rows.text, (rows.along / scale).to(scale.dtype), of_bias.to(bias.dtype), None, None, None


class _RowsGradient(NamedTuple):
    """Gradients [n, d] of this worker's image and text rows, and the scalar `along` = sum_i x_i . gradient_i."""

    image: Tensor
    text: Tensor
    along: Tensor


def _rows_gradient(
    stripes: Callable[[Tensor], Iterator[tuple[slice, Tensor]]],
    image: Tensor,
    texts: Tensor,
    targets: Targets,
    own: slice,
    weight: float,
    gradient: Tensor,
) -> _RowsGradient:
    """The gradients M Y and M^T X for images X, texts Y and M = gradient / n (weight G - T).

    stripes   yields G Y, a stripe of rows at a time, and adds G^T X to its argument

    `of_image` first stores T Y. Each stripe overwrites its rows, so no second buffer of image rows is needed.
    """
    factor = gradient.double() / len(image)
    of_image = targets.rows(texts, own)
    along_y = torch.zeros(texts.shape, dtype=tiles.accumulator(texts), device=texts.device)
    targets.add_columns(image, own, -1 / weight, along_y)
    along = torch.zeros((), dtype=torch.float64, device=image.device)
    for rows, along_x in stripes(along_y):
        along_x.mul_(weight).sub_(of_image[rows]).mul_(factor)
        along += (along_x * image[rows]).sum()
        of_image[rows] = along_x.to(image.dtype)
    return _RowsGradient(of_image, sum_to_owner(along_y.mul_(weight * factor)).to(texts.dtype), along)


def _hardness(ctx: Any, image: Tensor, texts: Tensor, mates: Targets, own: slice) -> Tensor:
    """Mean over own rows of the mean of x_i.y_j over the j of other catalogs. Sums alone suffice, in O(N d)."""
    total = image.to(tiles.accumulator(image)) @ texts.sum(0, dtype=tiles.accumulator(texts))
    others = len(texts) - mates.mass(own)
    hardness = ((total - mates.aligned(image, texts, own)) / others.clamp(min=1)).mean().to(total.dtype)
    ctx.mark_non_differentiable(hardness)
    return hardness


def _engine(rows: Tensor) -> ModuleType:
    if rows.is_cuda and rows.dtype != torch.float64 and find_spec("triton"):
        return import_module("shoplens.objectives.tiles_triton")
    return tiles
