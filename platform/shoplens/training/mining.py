"""Mined negatives: at the start of an epoch the workers encode the training samples and find the confusable ones.

The result is a file beside the checkpoints. The feed's processes read it there, a restarted run follows the same plan,
and the file shows afterwards what the run trained on.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, distributed, nn

from shoplens.recipes.base import Batch, Mining, Recipe

ROWS = 256
"""Samples encoded at a time."""


def mined_file(run_folder: Path, epoch: int) -> Path:
    return run_folder / "mined" / f"epoch-{epoch:05d}.npy"


def wait_for_neighbours(run_folder: Path, epoch: int) -> np.ndarray:
    """The mined neighbours int32 [n, k]. Blocks until the workers have reached that epoch: the feed runs ahead of them."""
    file = mined_file(run_folder, epoch)
    while not file.exists():
        time.sleep(0.2)
    return np.load(file)


def mine_epoch(
    recipe: Recipe,
    mining: Mining,
    model: nn.Module,
    run_folder: Path,
    epoch: int,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
) -> dict[str, float]:
    """Makes the file of an epoch if it is missing. Every worker encodes its share. Returns figures to log."""
    file = mined_file(run_folder, epoch)
    rank, world_size = (
        (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    )
    missing = torch.tensor(0 if file.exists() else 1, device=device)
    if world_size > 1:
        distributed.broadcast(missing, 0)
    if not missing:
        return {}
    started = time.perf_counter()
    samples = mining.mined_samples
    share = -(-len(samples) // world_size)
    own = np.resize(samples, share * world_size)[rank * share : (rank + 1) * share]
    rows: dict[str, list[Tensor]] = {tower: [] for tower in mining.towers}
    with _evaluating(model), torch.no_grad():
        for batch in _batches(recipe, own, epoch):
            for tower, names in mining.towers.items():
                with autocast():
                    rows[tower].append(mining.encode(model, tower, {name: batch[name].to(device) for name in names}))
    whole = {tower: _gathered(torch.cat(parts), world_size)[: len(samples)] for tower, parts in rows.items()}
    guarded = 0.0
    if rank == 0:
        mined = mining.mine(whole)
        guarded = mined.guarded
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.with_suffix(".partial").open("wb") as partial:
            np.save(partial, mined.neighbours)
        file.with_suffix(".partial").rename(file)
    if world_size > 1:
        distributed.barrier()
    return {"sampling/guarded": guarded, "sampling/mining_seconds": time.perf_counter() - started}


def _batches(recipe: Recipe, samples: np.ndarray, epoch: int) -> Iterator[Batch]:
    for start in range(0, len(samples), ROWS):
        batch = recipe.collate(samples[start : start + ROWS], epoch)
        yield {name: torch.tensor(value) for name, value in batch.items()}


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    model.eval()
    try:
        yield
    finally:
        model.train()


def _gathered(rows: Tensor, world_size: int) -> Tensor:
    if world_size == 1:
        return rows
    whole = rows.new_empty((world_size * len(rows), rows.shape[1]))
    distributed.all_gather_into_tensor(whole, rows.contiguous())
    return whole
