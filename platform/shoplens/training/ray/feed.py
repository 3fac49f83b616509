"""Batches for a training worker: Ray Data, or a DataLoader in the worker, following the same plan.

Step k is one row of a Ray Dataset, in a block of its own, in order; rank r reads, decodes and collates its
share of the step's samples. The dataset is asked for anew whenever workers (re)start and then begins at the
first step that the latest checkpoint has not seen, so a restart repeats and skips nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import ray.train
import torch
from ray import cloudpickle
from ray.train import DataConfig

from shoplens.recipes.base import Batch, Recipe, Timeline
from shoplens.training.mining import Mining, wait_for_neighbours

if TYPE_CHECKING:
    from ray.data import DataIterator, Dataset


class MicroBatches:
    """Rank `rank`'s share of every global step: a consecutive slice of the batch, read and collated."""

    def __init__(self, recipe: Recipe, rank: int, world_size: int, run_folder: Path) -> None:
        self.recipe, self._rank, self._world_size, self._run_folder = recipe, rank, world_size, run_folder
        self._epoch, self._plan = -1, np.empty((0, 0), np.int64)
        self._timeline = Timeline(recipe)

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        epoch, row = self._timeline.locate(step)
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, plan_of(self.recipe, epoch, self._run_folder)
        share = self._plan.shape[1] // self._world_size
        return self.recipe.collate(self._plan[row, self._rank * share : (self._rank + 1) * share], epoch)


def plan_of(recipe: Recipe, epoch: int, run_folder: Path) -> np.ndarray:
    """Waits for the workers to mine the epoch where its plan needs that."""
    if isinstance(recipe, Mining) and recipe.mines(epoch):
        return recipe.mined_plan(epoch, wait_for_neighbours(run_folder, epoch))
    return recipe.plan(epoch)


class PlanConfig(DataConfig):
    """Gives every rank its own share of each step. Ray Train calls `configure` at each start of its workers."""

    def __init__(self, recipe: Recipe, concurrency: int, run_folder: Path) -> None:
        super().__init__()
        self._recipe, self._concurrency, self._run_folder = recipe, concurrency, run_folder

    def configure(
        self, datasets: dict[str, Dataset], world_size: int, *_args: Any, **_kwargs: Any
    ) -> list[dict[str, DataIterator]]:
        from ray.data import ExecutionOptions, TaskPoolStrategy

        def shard(dataset: Dataset, read: Callable[[dict[str, Any]], dict[str, Any]]) -> DataIterator:
            mapped = dataset.map(read, num_cpus=0.5, compute=TaskPoolStrategy(self._concurrency))
            mapped.context.execution_options = ExecutionOptions(preserve_order=True)
            mapped.context.enable_progress_bars = False
            return mapped.iterator()

        shards = []
        for rank in range(world_size):
            pickled = cloudpickle.dumps(MicroBatches(self._recipe, rank, world_size, self._run_folder))
            read = functools.partial(_read_row, pickled)
            shards.append({name: shard(dataset, read) for name, dataset in datasets.items()})
        return shards


class Segment(NamedTuple):
    """Steps [first, stop) that one execution of Ray Data delivers, under the name of its dataset."""

    name: str
    first: int
    stop: int


def segments(recipe: Recipe) -> list[Segment]:
    """The whole training; every mined epoch by itself, since Ray Data runs ahead of the workers that mine it."""
    timeline, epochs = Timeline(recipe), range(1, recipe.training.epochs)
    mined = [timeline.first_step(epoch) for epoch in epochs if isinstance(recipe, Mining) and recipe.mines(epoch)]
    return [Segment(f"steps-{first}", first, stop) for first, stop in pairwise([0, *mined, timeline.total])]


def steps_of(segment: Segment, done: Callable[[], int]) -> Callable[[], Dataset]:
    """The dataset of the steps that remain, asked for at each start of the workers; `done` says how many are."""

    def steps() -> Dataset:
        import ray

        start = max(segment.first, done())
        count = max(1, segment.stop - start)
        return ray.data.range(count, override_num_blocks=count).map(functools.partial(_number, start))

    return steps


def _number(start: int, row: dict[str, Any]) -> dict[str, Any]:
    return {"step": start + int(row["id"])}


@functools.lru_cache(maxsize=2)
def _load(pickled: bytes) -> MicroBatches:
    """Tasks of one process share the opened dataset and the epoch's plan."""
    return cloudpickle.loads(pickled)


def _read_row(pickled: bytes, row: dict[str, Any]) -> dict[str, Any]:
    return {"step": row["step"], **_load(pickled)[int(row["step"])]}


def from_ray(recipe: Recipe, start: int, prefetch: int) -> Iterator[tuple[int, Batch]]:
    """(step, micro-batch) pairs of this rank, in order."""
    for segment in segments(recipe):
        if segment.stop <= start:
            continue
        shard = ray.train.get_dataset_shard(segment.name)
        for row in shard.iter_batches(batch_size=1, prefetch_batches=prefetch, batch_format="numpy"):
            step = int(row.pop("step")[0])
            yield step, {name: torch.tensor(values[0]) for name, values in row.items()}


def from_loader(
    batches: MicroBatches, start: int, total: int, workers: int, prefetch: int
) -> Iterator[tuple[int, Batch]]:
    """The same pairs, read by `workers` processes of a torch DataLoader inside the training worker.

    The loader seeds its processes from a generator of its own, so that it leaves the model's random state alone.
    """
    loader: torch.utils.data.DataLoader[Batch] = torch.utils.data.DataLoader(
        batches,  # type: ignore[arg-type]
        batch_size=None,
        sampler=range(start, total),
        num_workers=workers,
        prefetch_factor=prefetch,
        multiprocessing_context="forkserver",
        generator=torch.Generator(),
    )
    return zip(range(start, total), loader, strict=True)
