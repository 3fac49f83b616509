"""Reductions over all pairs of a batch, and their gradients, from tiles of scores that are not stored.

The scores are S = s X Y^T + b for images X [n, d] and texts Y [m, d]. The forward pass reduces each tile. The
backward pass recomputes it and multiplies it with the rows. Memory is O((n + m) d) plus one tile. Sums are float32,
or float64 for float64 inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

ROWS, COLUMNS = 1024, 2048
"""Size of a tile of scores. Two buffers of this size are held at a time."""


class Excluded(NamedTuple):
    """Pairs that are no negatives: those with equal keys, except the own pair of a row (row i is column `first` + i).

    rows      int64 [n], the keys of the rows
    columns   int64 [m], the keys of the columns
    """

    rows: Tensor
    columns: Tensor
    first: int


class Reduced(NamedTuple):
    """A running logsumexp of each row or column: the largest score, and the mass sum exp(score - largest)."""

    largest: Tensor
    mass: Tensor

    @classmethod
    def empty(cls, size: int, like: Tensor) -> Reduced:
        largest = torch.full((size,), -torch.inf, dtype=accumulator(like), device=like.device)
        return cls(largest, torch.zeros_like(largest))

    @property
    def logsumexp(self) -> Tensor:
        return self.largest + self.mass.log()

    def relative_to(self, largest: Tensor) -> Tensor:
        """The mass relative to another `largest`: sum exp(score - largest)."""
        return self.mass * (self.largest - _finite(largest)).exp()

    def merge(self, other: Reduced) -> Reduced:
        largest = torch.maximum(self.largest, other.largest)
        return Reduced(largest, self.relative_to(largest) + other.relative_to(largest))


def accumulator(inputs: Tensor) -> torch.dtype:
    return torch.float64 if inputs.dtype == torch.float64 else torch.float32


def reduce_scores(x: Tensor, y: Tensor, scale: Tensor, excluded: Excluded | None) -> tuple[Reduced, Reduced]:
    """Logsumexps of the rows [n] and columns [m] of S = scale X Y^T, both from one pass over the tiles."""
    by_row, by_column = Reduced.empty(len(x), x), Reduced.empty(len(y), x)
    for rows, _, tiles in _stripes(x, y, scale, excluded):
        for columns, scores, spare in tiles:
            _merge_into(by_row, rows, _reduce(scores, 1, spare))
            _merge_into(by_column, columns, _reduce(scores, 0, spare))
    return by_row, by_column


def softmax_gradient(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    by_row: Tensor,
    by_column: Tensor,
    excluded: Excluded | None,
    along_y: Tensor,
) -> Iterator[tuple[slice, Tensor]]:
    """Yields G Y, a stripe of rows at a time, for G = softmax over each row + softmax over each column of S.

    by_row, by_column   logsumexps of the rows [n] and columns [m]
    along_y             [m, d]; G^T X is added to it in place
    """
    for rows, along_x, tiles in _stripes(x, y, scale, excluded):
        for columns, scores, spare in tiles:
            torch.sub(scores, by_row[rows, None], out=spare).exp_()
            spare += scores.sub_(by_column[None, columns]).exp_()
            _multiply_away(spare, x[rows], y[columns], along_x, along_y[columns])
        yield rows, along_x


def softplus_sum(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """sum_j log(1 + exp(S_ij)), [n], for S = scale X Y^T + bias."""
    sums = torch.zeros(len(x), dtype=accumulator(x), device=x.device)
    for rows, _, tiles in _stripes(x, y, scale, None):
        for _, scores, _ in tiles:
            sums[rows] += functional.softplus(scores.add_(bias)).sum(1)
    return sums


def sigmoid_gradient(
    x: Tensor, y: Tensor, scale: Tensor, bias: Tensor, along_y: Tensor, mass: Tensor
) -> Iterator[tuple[slice, Tensor]]:
    """Yields G Y, a stripe of rows at a time, for G = sigmoid(scale X Y^T + bias).

    along_y   [m, d]; G^T X is added to it in place
    mass      [n]; the row sums of G are added to it in place
    """
    for rows, along_x, tiles in _stripes(x, y, scale, None):
        for columns, scores, _ in tiles:
            scores.add_(bias).sigmoid_()
            mass[rows] += scores.sum(1)
            _multiply_away(scores, x[rows], y[columns], along_x, along_y[columns])
        yield rows, along_x


Tile = tuple[slice, Tensor, Tensor]
"""Columns, their scores, and a buffer of the same shape. The next tile overwrites both."""


def _stripes(
    x: Tensor, y: Tensor, scale: Tensor, excluded: Excluded | None
) -> Iterator[tuple[slice, Tensor, Iterator[Tile]]]:
    """Yields (rows, zeros for their products, tiles of their scores)."""
    buffers = [x.new_empty(min(ROWS, len(x)) * min(COLUMNS, len(y)), dtype=accumulator(x)) for _ in range(2)]
    for start in range(0, len(x), ROWS):
        rows = slice(start, min(start + ROWS, len(x)))
        along_x = torch.zeros(x[rows].shape, dtype=accumulator(x), device=x.device)
        yield rows, along_x, _tiles(rows, x, y, scale, excluded, buffers)


def _tiles(
    rows: slice, x: Tensor, y: Tensor, scale: Tensor, excluded: Excluded | None, buffers: list[Tensor]
) -> Iterator[Tile]:
    scaled = scale.to(accumulator(x)) * x[rows].to(accumulator(x))
    for start in range(0, len(y), COLUMNS):
        columns = slice(start, min(start + COLUMNS, len(y)))
        shape = len(scaled), columns.stop - columns.start
        scores, spare = (part[: shape[0] * shape[1]].view(shape) for part in buffers)
        torch.mm(scaled, y[columns].to(accumulator(x)).T, out=scores)
        if excluded is not None:
            scores.masked_fill_(_excluded_in(excluded, rows, columns), -torch.inf)
        yield columns, scores, spare


def _excluded_in(excluded: Excluded, rows: slice, columns: slice) -> Tensor:
    same = excluded.rows[rows, None] == excluded.columns[None, columns]
    own = torch.arange(rows.start, rows.stop, device=same.device) + excluded.first
    return same & (own[:, None] != torch.arange(columns.start, columns.stop, device=same.device))


def _reduce(scores: Tensor, dim: int, spare: Tensor) -> Reduced:
    largest = scores.amax(dim)
    return Reduced(largest, torch.sub(scores, _finite(largest).unsqueeze(dim), out=spare).exp_().sum(dim))


def _merge_into(whole: Reduced, part: slice, reduced: Reduced) -> None:
    merged = Reduced(*(values[part] for values in whole)).merge(reduced)
    for values, new in zip(whole, merged, strict=True):
        values[part] = new


def _finite(largest: Tensor) -> Tensor:
    """Replaces -inf, the largest of no scores, by 0. Otherwise -inf minus -inf would be NaN."""
    return largest.masked_fill(largest == -torch.inf, 0)


def _multiply_away(weights: Tensor, x: Tensor, y: Tensor, along_x: Tensor, along_y: Tensor) -> None:
    along_x.addmm_(weights, y.to(weights.dtype))
    along_y.addmm_(weights.T, x.to(weights.dtype))
