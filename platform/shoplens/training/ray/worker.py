"""The training loop inside a Ray Train worker."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import ray.train
import ray.train.torch
import torch
from ray.actor import ActorHandle

from shoplens.recipes.base import Recipe
from shoplens.training import loop
from shoplens.training.batches import MicroBatches
from shoplens.training.ray import feed
from shoplens.training.ray.checkpoints import ReportedCheckpoints

OpenCurves = Callable[[], AbstractContextManager[loop.Curves]]


@dataclass(frozen=True)
class Run:
    """What a worker is given. `open_curves` is entered by rank 0 alone; without it no curves are kept."""

    recipe: Recipe
    run_folder: Path
    progress: ActorHandle
    open_curves: OpenCurves | None = None


@dataclass(frozen=True)
class Trained:
    """What rank 0 returns.

    summary   that of `loop.train`
    times     part -> when it ended, in seconds since the epoch
    """

    summary: dict[str, float]
    times: dict[str, float]


def train(run: Run) -> Trained:
    """What TorchTrainer runs on each worker."""
    times = {"start of workers": time.time()}
    for chatty in ("ray.data", "ray.train", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    context, config = ray.train.get_context(), run.recipe.training
    rank, world_size = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
    worker = loop.Worker(
        rank,
        world_size,
        ray.train.torch.get_device(),
        functools.partial(ray.train.torch.prepare_model, move_to_device=False),
    )
    if config.feed == "ray":
        batches: loop.Batches = functools.partial(feed.arriving, run.recipe, config.prefetch)
    else:
        own = MicroBatches(run.recipe, run.run_folder, rank, world_size)
        batches = functools.partial(own.ahead if config.feed == "loader" else own.beside, prefetch=config.prefetch)

    def progress(step: int, samples_per_second: float) -> None:
        times.setdefault("first step", time.time())
        times["further steps"] = time.time()
        run.progress.set.remote(step, samples_per_second)

    opened = run.open_curves() if rank == 0 and run.open_curves is not None else nullcontext()
    with opened as curves:
        _, summary = loop.train(
            run.recipe,
            batches,
            run.run_folder,
            worker=worker,
            checkpoints=ReportedCheckpoints(rank),
            curves=curves,
            progress=progress if rank == 0 else None,
        )
    return Trained(summary, times)
