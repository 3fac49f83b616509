"""Targets of the pairs of a batch as a mixture of groups, without an N x N matrix.

A level of weight w gives each row w / n_i on each of the n_i rows of its group, or w on each (`Targets.share`).
Example: e-CLIP with label noise has two levels, the row itself and its catalog. Graded targets add the category,
its parent and so on. Each level contains the previous ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

FEATURES_AT_ONCE = 64
"""Features whose group sums are held at a time, which keeps the memory of the sums negligible."""


@dataclass(frozen=True)
class Level:
    """A grouping of the rows: `group` int64 [N] numbers the groups from 0 without gaps, `counts` [groups] are sizes."""

    weight: float
    group: Tensor
    counts: Tensor

    @classmethod
    def of(cls, weight: float, key: Tensor) -> Level:
        _, group, counts = torch.unique(key, return_inverse=True, return_counts=True)
        return cls(weight, group, counts)

    @property
    def size(self) -> Tensor:
        """Number of rows in each row's group, [N]."""
        return self.counts[self.group]


@dataclass(frozen=True)
class Targets:
    """The target matrix T [N, N] as `levels`, from fine to coarse: each group lies within one of the next level."""

    levels: tuple[Level, ...]
    share: bool = True
    """True: the members of a group share its weight (softmax). False: each member gets the weight (sigmoid)."""

    def rows(self, y: Tensor, own: slice) -> Tensor:
        """(T Y)[own] for Y [N, d], in the type of Y."""
        out = torch.empty((own.stop - own.start, y.shape[1]), dtype=y.dtype, device=y.device)
        for features, part in _by_features(y):
            out[:, features] = self._rows(part, own)
        return out

    def aligned(self, x: Tensor, y: Tensor, own: slice) -> Tensor:
        """sum_j T_ij x_i.y_j, [n], for this worker's rows X [n, d] and all Y [N, d]."""
        sums = [(self._rows(part, own) * x[:, features]).sum(1) for features, part in _by_features(y)]
        return torch.stack(sums).sum(0)

    def add_columns(self, x: Tensor, own: slice, factor: float, out: Tensor) -> None:
        """Adds factor T[own]^T X to `out` [N, d] in place, for X [n, d]."""
        for features, part in _by_features(x):
            for level in self.levels:
                out[:, features] += factor * self._weigh(level, part, level.group[own])[level.group]

    def mass(self, own: slice) -> Tensor:
        """Row sums of T, [n]."""
        sizes = [torch.ones_like(level.size) if self.share else level.size for level in self.levels]
        return torch.stack(
            [level.weight * size[own].double() for level, size in zip(self.levels, sizes, strict=True)]
        ).sum(0)

    def entropy(self, own: slice) -> Tensor:
        """Minimum of each row's loss, [n]: the entropy of its targets (sigmoid: summed over its pairs)."""
        sizes = [level.size[own].double() for level in self.levels]
        each = [level.weight / (size if self.share else 1) for level, size in zip(self.levels, sizes, strict=True)]
        total, inside = torch.zeros_like(sizes[0]), torch.zeros_like(sizes[0])
        for number, size in enumerate(sizes):
            target = sum(each[number:]) + torch.zeros_like(size)
            entropy = -torch.special.xlogy(target, target)
            if not self.share:
                entropy -= torch.special.xlogy(1 - target, 1 - target)
            total += (size - inside) * entropy
            inside = size
        return total

    def _rows(self, part: Tensor, own: slice) -> Tensor:
        return torch.stack([self._weigh(level, part, level.group)[level.group[own]] for level in self.levels]).sum(0)

    def _weigh(self, level: Level, part: Tensor, group: Tensor) -> Tensor:
        sums = part.new_zeros(len(level.counts), part.shape[1]).index_add_(0, group, part)
        return level.weight * (sums / level.counts[:, None] if self.share else sums)


def nested(catalog: Tensor, category: Tensor) -> list[Tensor]:
    """Keys [N] of nested groups around each catalog: its category, the category's parent and so on.

    category   int64 [N, levels], the leaf first; negative if unknown, which leaves the group as it is

    All rows of a catalog take the path of its first row, so every catalog lies within one category.
    """
    _, group, counts = torch.unique(catalog, return_inverse=True, return_counts=True)
    order = torch.argsort(group, stable=True)
    first = order[counts.cumsum(0) - counts][group]
    keys = []
    finer = group
    for level in range(category.shape[1]):
        code = category[first, level]
        finer = torch.where(code < 0, -1 - finer, code)
        keys.append(finer)
        finer = torch.unique(finer, return_inverse=True)[1]
    return keys


def _by_features(rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
    wide = torch.float64 if rows.dtype == torch.float64 else torch.float32
    for start in range(0, rows.shape[1], FEATURES_AT_ONCE):
        features = slice(start, start + FEATURES_AT_ONCE)
        yield features, rows[:, features].to(wide)
