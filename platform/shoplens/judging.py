"""What `shoplens promote` judges a model version by: the gates of its run's configuration, and an evaluation
by its own recipe."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from shoplens import recipes
from shoplens.cluster.quiet import quieten
from shoplens.datasets.format import Dataset
from shoplens.evaluation.leaks import warning as leak_warning
from shoplens.evaluation.results import Evaluation
from shoplens.registry.versions import ModelVersion, cache_dir, download


def evaluate(version: ModelVersion, dataset: str, split: str) -> Evaluation:
    """Evaluates the version on a split of a dataset by its recipe, on a Ray of this process alone."""
    quieten()
    with _ray():
        return recipes.evaluate(download(version, cache_dir()), Dataset(dataset), split, str(version))[0]


def table(evaluation: Evaluation) -> str:
    """The metrics as lines of text: value, 95 % interval, level of chance."""
    width = max([34, *(len(name) + 2 for name in evaluation.metrics)])
    lines = [f"{'metric':<{width}}{'value':>8}   {'95 % interval':<18}{'chance':>8}{'queries':>9}"]
    for name, metric in evaluation.metrics.items():
        interval = f"{metric.low:.3f} to {metric.high:.3f}"
        chance = "" if metric.chance is None else f"{metric.chance:.3f}"
        lines.append(f"{name:<{width}}{metric.value:>8.3f}   {interval:<18}{chance:>8}{metric.n:>9}")
    if leaked := leak_warning(evaluation.about.get("leaks")):
        lines.append(leaked)
    return "\n".join(lines)


@contextmanager
def _ray() -> Iterator[None]:
    import ray

    ours = not ray.is_initialized()
    if ours:
        ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    try:
        yield
    finally:
        if ours:
            ray.shutdown()
