"""The training loop that every worker runs, the same for every recipe."""

from __future__ import annotations

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
from shoplens.training import checkpoints, feed
from shoplens.training.recipe import Batch, Recipe, TrainingConfig


class Curves(Protocol):
    """Where rank 0 sends the metrics of a step."""

    def log(self, metrics: dict[str, float], step: int) -> None: ...


OpenCurves = Callable[[], AbstractContextManager[Curves]]


def train_loop(settings: dict[str, Any]) -> dict[str, float]:
    """Runs on each worker: `settings` holds `recipe`, `open_curves` (an `OpenCurves`, or None) and `progress`.

    Returns rank 0's summary: steps, samples per second, share of time spent waiting for data.
    """
    for chatty in ("ray.data", "ray.train", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    open_curves: OpenCurves | None = settings["open_curves"]
    writes = ray.train.get_context().get_world_rank() == 0 and open_curves is not None
    with open_curves() if writes and open_curves else nullcontext() as curves:
        return _train(settings["recipe"], curves, settings["progress"])


def _train(recipe: Recipe, curves: Curves | None, progress: ActorHandle) -> dict[str, float]:
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
    total = config.epochs * recipe.steps_per_epoch
    start = 0
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            start = checkpoints.load(Path(folder), built, optimizer, rank)
    model = ray.train.torch.prepare_model(built, move_to_device=False)

    meter = _Meter(config, world_size)
    batches = iter(_batches(recipe, config, start, total, rank, world_size))
    for step in range(start, total):
        with meter.waiting():
            arrived, batch = next(batches)
        if arrived != step:
            raise ShoplensError(f"the data feed delivered step {arrived} where step {step} was due")
        factor = learning_rate_factor(step, total, config.warmup_steps)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            terms = recipe.loss(model, {name: value.to(device, non_blocking=True) for name, value in batch.items()})
        optimizer.zero_grad(set_to_none=True)
        terms["loss"].backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()

        if (step + 1) % config.log_every == 0 or step + 1 == total:
            metrics = {f"train/{name}": value for name, value in _mean_over_workers(terms).items()}
            if not math.isfinite(metrics["train/loss"]):
                raise ShoplensError(f"the loss is {metrics['train/loss']} at step {step}: lower training.learning_rate")
            if curves is not None:
                rate = {"train/learning_rate": config.learning_rate * factor, "train/grad_norm": float(norm)}
                curves.log({**metrics, **rate, **meter.rates(), "train/epoch": step / recipe.steps_per_epoch}, step)
        meter.count()
        if rank == 0:
            progress.set.remote(step + 1, meter.rates()["train/samples_per_second"])
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == total:
            with tempfile.TemporaryDirectory() as folder:
                checkpoints.save(Path(folder), built, optimizer, step + 1, rank)
                ray.train.report({"step": step + 1}, checkpoint=ray.train.Checkpoint.from_directory(folder))
    return {"steps": float(total), **meter.rates()}


def learning_rate_factor(step: int, total: int, warmup: int) -> float:
    """Linear from 0 (excluded) to 1 over `warmup` steps, then half a cosine down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def _batches(
    recipe: Recipe, config: TrainingConfig, start: int, total: int, rank: int, world_size: int
) -> Iterator[tuple[int, Batch]]:
    if config.feed == "loader":
        shares = feed.MicroBatches(recipe, rank, world_size)
        return feed.from_loader(shares, start, total, workers=2, prefetch=config.prefetch)
    return feed.from_ray(ray.train.get_dataset_shard("steps"), config.prefetch)


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

    def __init__(self, config: TrainingConfig, world_size: int) -> None:
        self._batch, self._steps, self._waited, self._began = config.batch_size, 0, 0.0, time.perf_counter()

    def waiting(self) -> _Meter:
        return self

    def __enter__(self) -> None:
        self._asked = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._waited += time.perf_counter() - self._asked

    def count(self) -> None:
        self._steps += 1
        if self._steps == 1:
            self._waited, self._began = 0.0, time.perf_counter()

    def rates(self) -> dict[str, float]:
        elapsed = max(time.perf_counter() - self._began, 1e-9)
        return {
            "train/samples_per_second": max(0, self._steps - 1) * self._batch / elapsed,
            "train/data_wait_share": self._waited / elapsed,
        }
