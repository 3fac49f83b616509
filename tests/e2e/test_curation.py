"""Raw records become shards as a job, and a model is trained on what comes out."""

from __future__ import annotations

from pathlib import Path

import mlflow

from shoplens.datasets.format import Dataset
from tests.curation.pipeline.raw import write_raw
from tests.e2e.conftest import TRAINING, Platform


def test_a_model_is_trained_on_what_curation_keeps(platform: Platform, tmp_path: Path) -> None:
    raw, out = write_raw(tmp_path / "raw", documents=60), tmp_path / "clean"
    sizes = ["parts.photos=40", "shards.records=30", "shards.val=0.2", "shards.test=0.2"]
    config = "workloads/configs/curation.yaml"
    printed = platform.submit("python", "-m", "workloads.curate", config, f"raw={raw}", f"out={out}", *sizes)
    dataset = Dataset(out)
    assert f"curated: {len(dataset.images):,} records, digest {dataset.digest[:12]}, in {out}" in printed
    assert "measuring  " in printed and "judging  " in printed

    client = mlflow.MlflowClient(tracking_uri=platform.cluster.mlflow_uri)
    experiment = client.get_experiment_by_name("curation")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["made_digest"] == dataset.digest
    assert run.data.metrics["left/records"] == len(dataset.images)
    assert {"git_commit", "dataset_digest"} <= run.data.tags.keys()
    assert "report.html" in {file.path for file in client.list_artifacts(run.info.run_id)}

    command = printed.partition("next: ray job submit --working-dir . -- ")[2].splitlines()[0].split()
    assert f"dataset={out}" in command
    small = ["name=curated", "training.epochs=2", "attribute_heads=0", "evaluation.tasks=[retrieval]", "queries=null"]
    printed = platform.submit(*command, *TRAINING, *small)
    assert "registered curated/1" in printed

    again = platform.submit("python", "-m", "workloads.curate", config, f"raw={raw}", f"out={out}", *sizes, fails=True)
    assert f"{out} exists already: choose another folder, or pass --overwrite" in again
