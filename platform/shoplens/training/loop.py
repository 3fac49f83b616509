"""The training loop that every worker runs, the same for every recipe."""

from __future__ import annotations

import functools
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import ray.train
import ray.train.torch
import torch
from ray.actor import ActorHandle
from torch import distributed, nn

from shoplens.errors import ShoplensError
from shoplens.recipes.base import Batch, Recipe, Timeline, TrainingConfig
from shoplens.training import gradient_cache as streams
from shoplens.training import mining
from shoplens.training.ray import checkpoints, feed


class Curves(Protocol):
    """Where rank 0 sends the metrics of a step."""

    def log(self, metrics: dict[str, float], step: int) -> None: ...


OpenCurves = Callable[[], AbstractContextManager[Curves]]


def train_loop(settings: dict[str, Any]) -> dict[str, float]:
    """Runs on each worker.

    `settings` holds `recipe`, `open_curves` (an `OpenCurves`, or None), `progress` and `run_folder`.

    Returns rank 0's summary: steps, samples per second, share of time spent waiting for data.
    """
    for chatty in ("ray.data", "ray.train", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    open_curves: OpenCurves | None = settings["open_curves"]
    writes = ray.train.get_context().get_world_rank() == 0 and open_curves is not None
    with open_curves() if writes and open_curves else nullcontext() as curves:
        return _train(settings["recipe"], curves, settings["progress"], settings["run_folder"])


def _train(recipe: Recipe, curves: Curves | None, progress: ActorHandle, run_folder: Path) -> dict[str, float]:
    config = recipe.training
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
    torch.use_deterministic_algorithms(True, warn_only=True)

    torch.manual_seed(recipe.seed)
    device = ray.train.torch.get_device()
    built = recipe.build().to(device)
    optimizer = torch.optim.AdamW(parameter_groups(built, config), betas=config.betas)
    rates = [group["lr"] for group in optimizer.param_groups]
    torch.manual_seed(recipe.seed + 1 + rank)
    timeline = Timeline(recipe)
    start, total = 0, timeline.total
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            start = checkpoints.load(Path(folder), built, optimizer, rank)
    if config.stream_size:
        streams.check(recipe, built, config.stream_size)
    model = built if config.stream_size else ray.train.torch.prepare_model(built, move_to_device=False)
    autocast = functools.partial(torch.autocast, device.type, torch.bfloat16, enabled=device.type == "cuda")

    meter = _Meter(timeline, start)
    shares = feed.MicroBatches(recipe, rank, world_size, run_folder)
    batches = iter(_batches(shares, config, start, total))
    for step in range(start, total):
        epoch, batch_of_epoch = timeline.locate(step)
        if step == start or not batch_of_epoch:
            mined = {}
            if isinstance(recipe, mining.Mining) and recipe.mines(epoch):
                mined = mining.mine_epoch(recipe, built, run_folder, epoch, device, autocast)
            if curves is not None:
                told = recipe.plan_statistics(feed.plan_of(recipe, epoch, run_folder))
                curves.log({**{f"sampling/{name}": value for name, value in told.items()}, **mined}, step)
        with meter.waiting():
            arrived, batch = next(batches)
        if arrived != step:
            raise ShoplensError(f"the data feed delivered step {arrived} where step {step} was due")
        factor = learning_rate_factor(timeline, step, config.warmup_steps)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        optimizer.zero_grad(set_to_none=True)
        if config.stream_size:
            assert isinstance(recipe, streams.Streamed)
            terms = streams.accumulate(recipe, built, batch, config.stream_size, device, autocast)
        else:
            with autocast():
                terms = recipe.loss(model, {name: value.to(device, non_blocking=True) for name, value in batch.items()})
            terms["loss"].backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()

        if (step + 1) % config.log_every == 0 or step + 1 == total:
            metrics = {f"train/{name}": value for name, value in _mean_over_workers(terms).items()}
            if not math.isfinite(metrics["train/loss"]):
                raise ShoplensError(f"the loss is {metrics['train/loss']} at step {step}: lower training.learning_rate")
            if curves is not None:
                rate = {"train/learning_rate": config.learning_rate * factor, "train/grad_norm": float(norm)}
                seen = {"train/epoch": timeline.epochs(step), "train/samples_seen": float(timeline.seen(step))}
                curves.log({**metrics, **rate, **meter.rates(), **seen}, step)
        meter.count()
        if rank == 0:
            progress.set.remote(step + 1, meter.rates()["train/samples_per_second"])
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == total:
            with tempfile.TemporaryDirectory() as folder:
                checkpoints.save(Path(folder), built, optimizer, step + 1, rank)
                ray.train.report({"step": step + 1}, checkpoint=ray.train.Checkpoint.from_directory(folder))
    return {"steps": float(total), **meter.rates()}


def learning_rate_factor(timeline: Timeline, step: int, warmup: int) -> float:
    """Linear from 0 (excluded) to 1 over `warmup` steps, then half a cosine over the remaining samples, down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    warmed = timeline.seen(min(warmup, timeline.total))
    done = (timeline.seen(step) - warmed) / max(1, timeline.total_samples - warmed)
    return 0.5 * (1 + math.cos(math.pi * done))


def _batches(shares: feed.MicroBatches, config: TrainingConfig, start: int, total: int) -> Iterator[tuple[int, Batch]]:
    if config.feed == "loader":
        return feed.from_loader(shares, start, total, workers=2, prefetch=config.prefetch)
    return feed.from_ray(shares.recipe, start, config.prefetch)


def parameter_groups(model: nn.Module, config: TrainingConfig) -> list[dict[str, Any]]:
    """What is trained, by learning rate; weight decay for matrices only (CLIP): not for gains, biases, logit scale.

    Raises ShoplensError if `learning_rates` names a part that the model does not have.
    """
    names = [name for name, _ in model.named_parameters()]
    for part in config.learning_rates:
        if not any(f"{name}.".startswith(f"{part}.") for name in names):
            known = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
            raise ShoplensError(f"training.learning_rates: the model has no part {part!r} (it has {known})")
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parts = [part for part in config.learning_rates if f"{name}.".startswith(f"{part}.")]
            factor = config.learning_rates[max(parts, key=len)] if parts else 1.0
            groups.setdefault((factor, parameter.ndim >= 2), []).append(parameter)
    return [
        {
            "params": groups[factor, matrices],
            "lr": config.learning_rate * factor,
            "weight_decay": config.weight_decay if matrices else 0.0,
        }
        for factor, matrices in sorted(groups, reverse=True)
    ]


def _mean_over_workers(terms: dict[str, torch.Tensor]) -> dict[str, float]:
    values = torch.stack([value.detach().float() for value in terms.values()])
    if distributed.is_initialized():
        distributed.all_reduce(values)
        values /= distributed.get_world_size()
    return dict(zip(terms, values.tolist(), strict=True))


class _Meter:
    """Samples per second since the second step, and the share of that time spent waiting for data."""

    def __init__(self, timeline: Timeline, start: int) -> None:
        self._timeline, self._start, self._step = timeline, start, start
        self._waited, self._began = 0.0, time.perf_counter()

    def waiting(self) -> _Meter:
        return self

    def __enter__(self) -> None:
        self._asked = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._waited += time.perf_counter() - self._asked

    def count(self) -> None:
        self._step += 1
        if self._step == self._start + 1:
            self._waited, self._began = 0.0, time.perf_counter()

    def rates(self) -> dict[str, float]:
        elapsed = max(time.perf_counter() - self._began, 1e-9)
        measured = self._timeline.seen(self._step) - self._timeline.seen(min(self._start + 1, self._step))
        return {
            "train/samples_per_second": measured / elapsed,
            "train/data_wait_share": self._waited / elapsed,
        }
