"""A worker's share of every global step, read by the plan; also as a torch DataLoader."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from shoplens.recipes.base import Arrays, Batch, Recipe
from shoplens.training.mining import wait_for_neighbours


class MicroBatches:
    """Rank `rank`'s share of every global step: a consecutive slice of the batch, read and collated."""

    def __init__(self, recipe: Recipe, run_folder: Path, rank: int = 0, world_size: int = 1) -> None:
        self.recipe, self._rank, self._world_size, self._run_folder = recipe, rank, world_size, run_folder
        self._epoch, self._plan = -1, np.empty((0, 0), np.int64)
        self._timeline = recipe.timeline

    def __getitem__(self, step: int) -> Arrays:
        epoch, row = self._timeline.locate(step)
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, plan_of(self.recipe, epoch, self._run_folder)
        share = self._plan.shape[1] // self._world_size
        return self.recipe.collate(self._plan[row, self._rank * share : (self._rank + 1) * share], epoch)

    def one_by_one(self, start: int, total: int) -> Iterator[tuple[int, Batch]]:
        """(step, micro-batch) pairs in order, read when they are asked for."""
        for step in range(start, total):
            yield step, {name: torch.tensor(value) for name, value in self[step].items()}

    def beside(self, start: int, total: int, *, prefetch: int = 4) -> Iterator[tuple[int, Batch]]:
        """The same pairs, read by a thread of this process."""
        with ThreadPoolExecutor(1) as thread:
            coming = deque(thread.submit(self.__getitem__, step) for step in range(start, min(start + prefetch, total)))
            for step in range(start, total):
                arrays = coming.popleft().result()
                if step + prefetch < total:
                    coming.append(thread.submit(self.__getitem__, step + prefetch))
                yield step, {name: torch.tensor(value) for name, value in arrays.items()}

    def ahead(self, start: int, total: int, *, workers: int = 2, prefetch: int = 4) -> Iterator[tuple[int, Batch]]:
        """The same pairs, read by `workers` processes of a torch DataLoader.

        The loader seeds its processes from a generator of its own, so that it leaves the model's random state alone.
        """
        loader: torch.utils.data.DataLoader[Batch] = torch.utils.data.DataLoader(
            self,  # type: ignore[arg-type]
            batch_size=None,
            sampler=range(start, total),
            num_workers=workers,
            prefetch_factor=prefetch,
            multiprocessing_context="forkserver",
            generator=torch.Generator(),
        )
        return zip(range(start, total), loader, strict=True)


def plan_of(recipe: Recipe, epoch: int, run_folder: Path) -> np.ndarray:
    """The plan of an epoch; waits for the workers to mine the epoch where its plan needs that."""
    if recipe.mining is not None and recipe.mining.mines(epoch):
        return recipe.mining.mined_plan(epoch, wait_for_neighbours(run_folder, epoch))
    return recipe.plan(epoch)
