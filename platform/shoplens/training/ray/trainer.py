"""Runs the training loop on a Ray cluster and returns the trained model."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray.actor import ActorHandle
from ray.train import (
    CheckpointConfig,
    FailureConfig,
    LoggingConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
)
from ray.train.torch import TorchTrainer
from torch import nn

from shoplens.errors import ShoplensError
from shoplens.recipes.base import PhotoRecipe, Recipe
from shoplens.training import state, trunk_vectors
from shoplens.training.parts import Parts
from shoplens.training.ray import checkpoints, worker
from shoplens.training.ray.feed import FEED_CPUS, PlanConfig, segments, steps_of
from shoplens.training.ray.progress import shown
from shoplens.training.ray.worker import OpenCurves, Run, Trained


@dataclass(frozen=True)
class Workers:
    """Resources of the training. CPUs must stay free for Ray Data: a starved feed hangs the training."""

    count: int = 1
    use_gpu: bool = False
    cpus: float = 1.0
    feed_tasks: int = 2


class TrainingFailed(ShoplensError):
    """Training ended with an error after its retries."""


def check(recipe: Recipe, workers: Workers, there: Mapping[str, float] | None = None) -> None:
    """Raises ShoplensError if the workers cannot share a batch, or would wait for ever for CPUs or GPUs.

    there   the resources of a cluster that cannot grow, such as `ray.cluster_resources()`
    """
    for size in (recipe.training.batch_size, *recipe.training.batch_sizes.values()):
        if size % workers.count:
            raise ShoplensError(f"batch_size {size} is not a multiple of {workers.count} workers")
    if there is None:
        return
    reading = FEED_CPUS if recipe.training.feed == "ray" else 0.0
    needed = {"CPU": workers.count * workers.cpus + reading, "GPU": float(workers.count * workers.use_gpu)}
    for name, number in needed.items():
        if number > there.get(name, 0.0):
            raise ShoplensError(
                f"{workers.count} training workers and their feed need {number:g} {name}s, the cluster has "
                f"{there.get(name, 0.0):g}: ask for fewer with --workers, or for less a worker with "
                "train.resources_per_worker of the cluster file"
            )


def train(
    recipe: Recipe,
    *,
    name: str,
    storage: str | Path,
    workers: Workers | None = None,
    open_curves: OpenCurves | None = None,
    parts: Parts | None = None,
) -> tuple[nn.Module, dict[str, float]]:
    """Trains `recipe` and returns the model, on the CPU, with the summary of `loop.train`.

    name     identifies the run; a run with the same name continues from its last checkpoint
    storage  folder that every node sees; checkpoints go to `storage/name`
    parts    receives how long each part takes

    Raises TrainingFailed if workers failed more often than `training.max_failures`, ShoplensError as `check` does.
    """
    workers, parts = workers or Workers(), parts or Parts()
    check(recipe, workers)
    config = recipe.training
    run_folder = Path(storage).absolute() / name
    checkpoints.sweep(run_folder)
    if isinstance(recipe, PhotoRecipe) and recipe.config.photo_views is not None:
        recipe.trunk_file = _trunk_vectors(recipe, run_folder.parent / "trunk_vectors", workers)
        parts.end("trunk vectors")

    def steps_done() -> int:
        checkpoint = checkpoints.latest(run_folder)
        return state.steps_done(checkpoint) if checkpoint else 0

    total = recipe.timeline.total
    feeds: dict[str, Any] = {}
    if config.feed == "ray":
        feeds = {
            "datasets": {segment.name: steps_of(segment, steps_done) for segment in segments(recipe)},
            "dataset_config": PlanConfig(recipe, workers.feed_tasks, run_folder),
        }
    resources = {"CPU": workers.cpus, **({"GPU": 1} if workers.use_gpu else {})}
    scaling = ScalingConfig(num_workers=workers.count, use_gpu=workers.use_gpu, resources_per_worker=resources)
    run_config = RunConfig(
        name=name,
        storage_path=str(run_folder.parent),
        failure_config=FailureConfig(max_failures=config.max_failures),
        checkpoint_config=CheckpointConfig(num_to_keep=config.keep_checkpoints),
        logging_config=LoggingConfig(log_level="WARNING"),
    )
    try:
        with shown(total) as progress:
            result = TorchTrainer(
                # Not in `train_loop_config`: the controller would unpickle the recipe, and import what it imports.
                functools.partial(worker.train, Run(recipe, run_folder, progress, open_curves)),
                scaling_config=scaling,
                run_config=run_config,
                **feeds,
            ).fit()
    except TrainingFailedError as error:
        causes = getattr(error, "worker_failures", None) or {0: error}
        raise TrainingFailed(f"training failed: {'; '.join(str(cause) for cause in causes.values())}") from error
    checkpoints.sweep(run_folder)
    checkpoint = checkpoints.latest(run_folder)
    if checkpoint is None:
        raise TrainingFailed(f"training ended without a checkpoint in {run_folder}")
    model = recipe.build()
    model.load_state_dict(torch.load(checkpoint / "state.pt", map_location="cpu", weights_only=True)["model"])
    trained: Trained | None = result.return_value  # None where all steps were done before
    for part, ended in trained.times.items() if trained else ():
        parts.end(part, ended)
    parts.end("end of workers")
    return model, trained.summary if trained else {}


def _trunk_vectors(recipe: PhotoRecipe, folder: Path, workers: Workers) -> Path:
    """The file of the locked trunk's vectors, computed where a training worker could run."""
    views = recipe.config.photo_views or 1
    compute = ray.remote(_compute_trunk_vectors).options(num_cpus=workers.cpus, num_gpus=1 if workers.use_gpu else 0)
    with shown(len(recipe.dataset.images) * views, "trunk vectors", "views", "views/s") as progress:
        return ray.get(compute.remote(recipe, folder, progress))


def _compute_trunk_vectors(recipe: PhotoRecipe, folder: Path, progress: ActorHandle) -> Path:
    torch.set_num_threads(recipe.training.threads or os.cpu_count() or 1)
    began = time.monotonic()

    def done(views: int, of: int) -> None:
        progress.set.remote(views, views / (time.monotonic() - began))

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return trunk_vectors.compute(recipe, folder, device=device, progress=done)
