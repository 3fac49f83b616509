"""Collectives over workers, in rank order: gathered rows with or without gradients, sums and maxima.

`torch.distributed.nn.all_gather` has the same gradient, but is deprecated in favour of a private module.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, autograd, distributed
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """Number of workers; 1 without a process group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def gather_rows(rows: Tensor) -> Tensor:
    """[n, ...] on each of W workers (equal n) -> [W n, ...] on all workers, without gradients."""
    if world_size() == 1:
        return rows.detach()
    gathered = rows.new_empty((world_size() * len(rows), *rows.shape[1:]))
    distributed.all_gather_into_tensor(gathered, rows.detach().contiguous())
    return gathered


def gather_rows_with_gradient(rows: Tensor) -> Tensor:
    """`gather_rows` with gradients: the gradient of a row is the sum of its gradients on all workers."""
    return rows if world_size() == 1 else _GatherRows.apply(rows)


def sum_to_owner(rows: Tensor) -> Tensor:
    """[W n, ...] on each of W workers -> [n, ...]: this worker's rows of the sum over workers (reduce-scatter)."""
    if world_size() == 1:
        return rows
    share = rows.new_empty((len(rows) // world_size(), *rows.shape[1:]))
    distributed.reduce_scatter_tensor(share, rows.contiguous())
    return share


def largest_over_workers(values: Tensor) -> Tensor:
    """Elementwise maximum over workers, without gradients."""
    return _all_reduce(values, distributed.ReduceOp.MAX)


def sum_over_workers(values: Tensor) -> Tensor:
    """Elementwise sum over workers, without gradients."""
    return _all_reduce(values, distributed.ReduceOp.SUM)


def own_rows(total: int) -> slice:
    """The slice of this worker's rows among the `total` rows that `gather_rows` returned."""
    if world_size() == 1:
        return slice(0, total)
    share = total // world_size()
    return slice(distributed.get_rank() * share, (distributed.get_rank() + 1) * share)


class _GatherRows(autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return gather_rows(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return sum_to_owner(gradient)


def _all_reduce(values: Tensor, operation: distributed.ReduceOp.RedOpType) -> Tensor:
    values = values.clone()
    if world_size() > 1:
        distributed.all_reduce(values, operation)
    return values
