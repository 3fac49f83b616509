"""Evaluations of model versions, stored as artifacts of the runs that made the versions."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from mlflow.entities import Metric

from shoplens.evaluation.results import Evaluation
from shoplens.registry.runs import client, metric_key
from shoplens.registry.versions import ModelVersion

_LAST = "evaluation.json"
HEADLINE = "headline."
"""Prefix of the run tags that name the metrics which a list of models shows, by split."""


def artifact_folder(version: ModelVersion, dataset_digest: str, split: str) -> str:
    """Evaluations belong to weights, not to version numbers: a package that is registered twice shares them."""
    weights = version.tags.get("package_digest", str(version.version))
    return f"evaluations/{dataset_digest[:12]}-{split}/{weights[:12]}"


def store_evaluation(
    version: ModelVersion,
    evaluation: Evaluation,
    report_html: str | None = None,
    *,
    tracking_uri: str | None = None,
) -> str:
    """Uploads the evaluation and its report to the version's run; returns the artifact folder.

    If it was made on the dataset of the training, the figures also become metrics of the run, named
    `SPLIT/task/metric`. A name that already begins with the split stays as it is.
    Raises ValueError unless `about` names `dataset_digest` and `split`.
    """
    about = evaluation.about
    if not about.get("dataset_digest") or not about.get("split"):
        raise ValueError("an evaluation must say in `about` on which dataset_digest and split it was made")
    tracking = client(tracking_uri)
    run = tracking.get_run(version.run_id)
    folder = artifact_folder(version, about["dataset_digest"], about["split"])
    with tempfile.TemporaryDirectory() as scratch:
        evaluation.save(scratch)
        if report_html is not None:
            Path(scratch, "report.html").write_text(report_html, encoding="utf-8")
        for path in sorted(Path(scratch).iterdir(), key=lambda path: path.name == _LAST):
            tracking.log_artifact(version.run_id, str(path), folder)
    if run.data.tags.get("dataset_digest") == about["dataset_digest"]:
        now = int(time.time() * 1000)
        values = [
            Metric(
                metric_key(name if name.startswith(f"{about['split']}/") else f"{about['split']}/{name}"),
                metric.value,
                now,
                0,
            )
            for name, metric in evaluation.metrics.items()
        ]
        tracking.log_batch(version.run_id, metrics=values)
        tracking.set_tag(version.run_id, f"{HEADLINE}{about['split']}", json.dumps(evaluation.headline))
    return folder


def find_evaluation(
    version: ModelVersion, dataset_digest: str, split: str, *, tracking_uri: str | None = None
) -> Evaluation | None:
    """The stored evaluation of exactly these weights on exactly this data, or None."""
    if not version.run_id:
        return None
    tracking = client(tracking_uri)
    folder = artifact_folder(version, dataset_digest, split)
    if f"{folder}/{_LAST}" not in {file.path for file in tracking.list_artifacts(version.run_id, folder)}:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        for name in (_LAST, "outcomes.npz"):
            fetched = tracking.download_artifacts(version.run_id, f"{folder}/{name}", scratch)
        evaluation = Evaluation.load(Path(fetched).parent)
    if (evaluation.about.get("dataset_digest"), evaluation.about.get("split")) != (dataset_digest, split):
        return None
    return evaluation
