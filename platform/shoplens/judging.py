"""What `shoplens promote` judges a model version by: the gates of its run's configuration, and an evaluation
by its own recipe."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from shoplens import recipes
from shoplens.cluster.quiet import quieten
from shoplens.datasets.format import Dataset
from shoplens.evaluation.results import Evaluation
from shoplens.registry.versions import ModelVersion, cache_dir, download


def evaluate(version: ModelVersion, dataset: str, split: str) -> Evaluation:
    """Evaluates the version on a split of a dataset by its recipe, on a Ray of this process alone."""
    quieten()
    with _ray():
        return recipes.evaluate(download(version, cache_dir()), Dataset(dataset), split, str(version))[0]


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
