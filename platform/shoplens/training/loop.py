"""The training loop, the same for every recipe. It knows neither Ray nor MLflow: `training.ray` runs it on a cluster."""

from __future__ import annotations

import functools
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import distributed, nn

from shoplens.errors import ShoplensError
from shoplens.recipes.base import Batch, Recipe
from shoplens.recipes.schedule import Timeline, TrainingConfig
from shoplens.training import gradient_cache, mining
from shoplens.training.batches import plan_of

Batches = Callable[[int, int], Iterator[tuple[int, Batch]]]
"""(first step, total steps) -> (step, this worker's micro-batch) in order."""


class Curves(Protocol):
    """A sink for the metrics of steps."""

    def log(self, metrics: dict[str, float], step: int) -> None: ...


class Checkpoints(Protocol):
    """The checkpoints of a run."""

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Restores weights, optimizer and random states; returns the steps that are done, 0 for a new run."""
        ...

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """`step` is the number of steps done."""
        ...


@dataclass(frozen=True)
class Worker:
    """One of `world_size` processes that train together.

    wrap   what makes the model average its gradients over workers (DDP); not used with `stream_size`
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = torch.device("cpu")
    wrap: Callable[[nn.Module], nn.Module] = lambda model: model


def train(
    recipe: Recipe,
    batches: Batches,
    run_folder: Path,
    *,
    worker: Worker | None = None,
    checkpoints: Checkpoints | None = None,
    curves: Curves | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[nn.Module, dict[str, float]]:
    """Trains a recipe's model on this worker; returns it with a summary.

    run_folder   a folder that all workers see, for what is mined
    progress     called after each step with the steps done and samples per second

    The summary: steps, samples per second, share of time spent waiting for data. Raises ShoplensError if the loss is
    no longer finite.
    """
    worker = worker or Worker()
    config, device = recipe.training, worker.device
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.manual_seed(recipe.seed)
    built = recipe.build().to(device)
    optimizer = torch.optim.AdamW(parameter_groups(built, config), betas=config.betas)
    rates = [group["lr"] for group in optimizer.param_groups]
    torch.manual_seed(recipe.seed + 1 + worker.rank)
    timeline = recipe.timeline
    total = timeline.total
    start = checkpoints.restore(built, optimizer) if checkpoints else 0
    streamed = gradient_cache.checked(recipe, built) if config.stream_size else None
    model = built if streamed else worker.wrap(built)
    autocast = functools.partial(torch.autocast, device.type, torch.bfloat16, enabled=device.type == "cuda")

    meter = _Meter(timeline, start)
    arriving = iter(batches(start, total))
    for step in range(start, total):
        epoch, batch_of_epoch = timeline.locate(step)
        if step == start or not batch_of_epoch:
            mined = {}
            if recipe.mining is not None and recipe.mining.mines(epoch):
                mined = mining.mine_epoch(recipe, recipe.mining, built, run_folder, epoch, device, autocast)
            if curves is not None:
                statistics = recipe.plan_statistics(plan_of(recipe, epoch, run_folder))
                curves.log({**{f"sampling/{name}": value for name, value in statistics.items()}, **mined}, step)
        with meter.waiting():
            arrived, batch = next(arriving)
        if arrived != step:
            raise ShoplensError(f"the data feed delivered step {arrived} where step {step} was due")
        factor = learning_rate_factor(timeline, step, config.warmup_steps)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        optimizer.zero_grad(set_to_none=True)
        if streamed:
            terms = gradient_cache.accumulate(streamed, built, batch, config.stream_size, device, autocast)
        else:
            with autocast():
                terms = recipe.loss(model, {name: value.to(device, non_blocking=True) for name, value in batch.items()})
            terms["loss"].backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        recipe.after_step(built, (step + 1) / total)

        if (step + 1) % config.log_every == 0 or step + 1 == total:
            metrics = {f"train/{name}": value for name, value in _mean_over_workers(terms).items()}
            if not math.isfinite(metrics["train/loss"]):
                raise ShoplensError(f"the loss is {metrics['train/loss']} at step {step}: lower training.learning_rate")
            if curves is not None:
                rate = {"train/learning_rate": config.learning_rate * factor, "train/grad_norm": float(norm)}
                seen = {"train/epoch": timeline.epochs(step), "train/samples_seen": float(timeline.seen(step))}
                curves.log({**metrics, **rate, **meter.rates(), **seen}, step)
        meter.count()
        if progress is not None:
            progress(step + 1, meter.rates()["train/samples_per_second"])
        if checkpoints is not None and ((step + 1) % config.checkpoint_every == 0 or step + 1 == total):
            checkpoints.save(built, optimizer, step + 1)
    return built, {"steps": float(total), **meter.rates()}


_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
_SPARED = re.compile(
    r"pos(ition(al)?)?_emb|relative_pos|relative_attention_bias|(^|[._])bias$|(cls|class|dist|reg|mask|storage)_tokens?"
    r"|class_embedding|register_tokens|logit_scale"
)
"""Names of weights that do not decay, in timm, transformers and open_clip."""


def learning_rate_factor(timeline: Timeline, step: int, warmup: int) -> float:
    """Linear from 0 (excluded) to 1 over `warmup` steps, then half a cosine over the remaining samples, down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    warmed = timeline.seen(min(warmup, timeline.total))
    done = (timeline.seen(step) - warmed) / max(1, timeline.total_samples - warmed)
    return 0.5 * (1 + math.cos(math.pi * done))


def parameter_groups(model: nn.Module, config: TrainingConfig) -> list[dict[str, Any]]:
    """The trained parameters by learning rate and weight decay.

    Matrices decay (CLIP). Biases, norms, scales, class tokens and position embeddings do not, whatever their shape, nor
    what a tower's library leaves out (`no_weight_decay` of timm).

    Raises ShoplensError if `learning_rates` names a part that the model does not have.
    """
    names = [name for name, _ in model.named_parameters()]
    for part in config.learning_rates:
        if not any(f"{name}.".startswith(f"{part}.") for name in names):
            known = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
            raise ShoplensError(f"training.learning_rates: the model has no part {part!r} (it has {known})")
    spared = {
        f"{place}.{name}".lstrip(".")
        for place, part in model.named_modules()
        for name in getattr(part, "no_weight_decay", set)()
    }
    spared |= {
        f"{place}.{name}".lstrip(".")
        for place, norm in model.named_modules()
        if isinstance(norm, _NORMS)
        for name, _ in norm.named_parameters(recurse=False)
    }
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parts = [part for part in config.learning_rates if f"{name}.".startswith(f"{part}.")]
            factor = config.learning_rates[max(parts, key=len)] if parts else 1.0
            decays = parameter.ndim >= 2 and name not in spared and not _SPARED.search(name)
            groups.setdefault((factor, decays), []).append(parameter)
    return [
        {
            "params": groups[factor, decays],
            "lr": config.learning_rate * factor,
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for factor, decays in sorted(groups, reverse=True)
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
