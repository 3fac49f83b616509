"""Rows of every worker, in rank order, with gradients that find their way back."""

from __future__ import annotations

from torch import Tensor, distributed
from torch.distributed._functional_collectives import all_gather_tensor, all_gather_tensor_autograd


def world_size() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def gather_rows(rows: Tensor) -> Tensor:
    """[n, ...] on each of W workers (equal n) -> [W n, ...] on all.

    The gradient of a row is the sum of the gradients that all workers' losses have for it; with DDP's
    averaging of parameter gradients, a loss that is the mean of the workers' losses is differentiated exactly.
    """
    if world_size() == 1:
        return rows
    assert distributed.group.WORLD is not None
    gather = all_gather_tensor_autograd if rows.requires_grad else all_gather_tensor
    return gather(rows.contiguous(), gather_dim=0, group=distributed.group.WORLD)


def own_rows(total: int) -> slice:
    """Where this worker's rows lie in what `gather_rows` returned."""
    if world_size() == 1:
        return slice(0, total)
    share = total // world_size()
    return slice(distributed.get_rank() * share, (distributed.get_rank() + 1) * share)
