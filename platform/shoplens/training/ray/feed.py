"""Batches for a training worker by Ray Data, following the plan.

Step k is one row of a Ray Dataset, in a block of its own; the order of rows is kept. Rank r reads, decodes and collates
its share of the step's samples. Ray Train asks for the dataset at each start of the workers. It then begins at the first
step after the latest checkpoint, so a restart repeats and skips no step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import ray.train
import torch
from ray import cloudpickle
from ray.train import DataConfig

from shoplens.recipes.base import Batch, Recipe
from shoplens.training.batches import MicroBatches

if TYPE_CHECKING:
    from ray.data import DataIterator, Dataset


FEED_CPUS = 0.5
"""CPUs of a task that reads and collates."""


class PlanConfig(DataConfig):
    """The data configuration of Ray Train: every rank gets its own share of each step.

    The recipe is kept pickled: Ray Train's controller holds this object, and need not import what the recipe imports.
    """

    def __init__(self, recipe: Recipe, concurrency: int, run_folder: Path) -> None:
        super().__init__()
        self._recipe, self._concurrency, self._run_folder = cloudpickle.dumps(recipe), concurrency, run_folder

    def configure(
        self, datasets: dict[str, Dataset], world_size: int, *_args: Any, **_kwargs: Any
    ) -> list[dict[str, DataIterator]]:
        from ray.data import ExecutionOptions, TaskPoolStrategy

        def shard(dataset: Dataset, read: Callable[[dict[str, Any]], dict[str, Any]]) -> DataIterator:
            mapped = dataset.map(read, num_cpus=FEED_CPUS, compute=TaskPoolStrategy(self._concurrency))
            mapped.context.execution_options = ExecutionOptions(preserve_order=True)
            mapped.context.enable_progress_bars = False
            return mapped.iterator()

        shards = []
        for rank in range(world_size):
            read = functools.partial(_read_row, self._recipe, self._run_folder, rank, world_size)
            shards.append({name: shard(dataset, read) for name, dataset in datasets.items()})
        return shards


class Segment(NamedTuple):
    """Steps [first, stop) that one execution of Ray Data delivers; `name` is that of its dataset."""

    name: str
    first: int
    stop: int


def segments(recipe: Recipe) -> list[Segment]:
    """The whole training in order. Each mined epoch is a segment, because Ray Data runs ahead of the workers."""
    timeline, epochs = recipe.timeline, range(1, recipe.training.epochs)
    mined = [timeline.first_step(epoch) for epoch in epochs if recipe.mining and recipe.mining.mines(epoch)]
    return [Segment(f"steps-{first}", first, stop) for first, stop in pairwise([0, *mined, timeline.total])]


def steps_of(segment: Segment, done: Callable[[], int]) -> Callable[[], Dataset]:
    """A function that makes the dataset of the remaining steps; `done` gives the number of steps done."""

    def steps() -> Dataset:
        import ray

        start = max(segment.first, done())
        count = max(1, segment.stop - start)
        # One task at a time: a process for each of the cluster's CPUs would have to start before the first batch.
        numbers = ray.data.range(count, override_num_blocks=count, concurrency=1)
        return numbers.map(functools.partial(_number, start), concurrency=1)

    return steps


def _number(start: int, row: dict[str, Any]) -> dict[str, Any]:
    return {"step": start + int(row["id"])}


@functools.lru_cache(maxsize=2)
def _load(recipe: bytes, run_folder: Path, rank: int, world_size: int) -> MicroBatches:
    """Cached, so that the tasks of one process share the opened dataset and the epoch's plan."""
    return MicroBatches(cloudpickle.loads(recipe), run_folder, rank, world_size)


def _read_row(recipe: bytes, run_folder: Path, rank: int, world_size: int, row: dict[str, Any]) -> dict[str, Any]:
    return {"step": row["step"], **_load(recipe, run_folder, rank, world_size)[int(row["step"])]}


def arriving(recipe: Recipe, prefetch: int, start: int, total: int) -> Iterator[tuple[int, Batch]]:
    """(step, micro-batch) pairs of this rank, in order."""
    for segment in segments(recipe):
        if segment.stop <= start:
            continue
        shard = ray.train.get_dataset_shard(segment.name)
        for row in shard.iter_batches(batch_size=1, prefetch_batches=prefetch, batch_format="numpy"):
            step = int(row.pop("step")[0])
            yield step, {name: torch.tensor(values[0]) for name, values in row.items()}
