"""What `shoplens promote` judges a model version by: the gates of its run's configuration, and an evaluation
by its own recipe."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shoplens import recipes
from shoplens.cluster.quiet import quieten
from shoplens.config import ConfigError, read_yaml, validate
from shoplens.datasets.format import Dataset
from shoplens.evaluation.results import Evaluation
from shoplens.evaluation.table import table as table
from shoplens.registry.gates import Gates
from shoplens.registry.runs import client
from shoplens.registry.versions import ModelVersion, download


def gates_of(version: ModelVersion, file: str | None = None) -> Gates:
    """The section `promotion:` of `file`, else of the configuration that the version was trained with.

    Raises ConfigError if there is none: a model is not promoted unasked.
    """
    if file is not None:
        return _gates(read_yaml(file), file)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            path = client().download_artifacts(version.run_id, "config.yaml", scratch)
        except OSError:
            raise ConfigError(f"the run of {version} holds no config.yaml: name a file with --gates") from None
        return _gates(read_yaml(path), f"the configuration of {version}")


def _gates(tree: Mapping[str, Any], where: str) -> Gates:
    if not isinstance(tree.get("promotion"), Mapping):
        raise ConfigError(f"{where} has no section `promotion:` with gates: add one, or name a file with --gates")
    return validate(Gates, tree["promotion"], f"{where}, promotion")


def evaluate(version: ModelVersion, dataset: str, split: str) -> Evaluation:
    """Evaluates the version on a split of a dataset by its recipe, on a Ray of this process alone."""
    quieten()
    with _ray():
        return evaluate_package(download(version, cache_dir()), dataset, split, str(version))[0]


def evaluate_package(
    package: Path, dataset: str, split: str, model: str, overrides: Mapping[str, Any] | None = None
) -> tuple[Evaluation, str]:
    """Evaluates a package's folder by its recipe on the Ray that is running; also its report in HTML.

    overrides   settings that stand before the package's own `evaluation:`
    """
    recipe = recipes.find(json.loads((package / "config.json").read_text()).get("recipe"))
    evaluation, report = recipe.evaluate(package, Dataset(dataset), split, {"model": model}, overrides)
    return evaluation, report


def cache_dir() -> Path:
    """Where packages are kept after download: in SHOPLENS_STORAGE if that is a folder here."""
    storage = os.environ.get("SHOPLENS_STORAGE", "")
    return Path(storage if storage and "://" not in storage else ".shoplens", "cache", "packages")


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
