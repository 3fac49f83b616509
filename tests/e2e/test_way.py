"""The way of a model: trained as a job, gated, promoted, served, rolled back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import mlflow
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from shoplens.config import override, read_yaml
from shoplens.recipes import eclip
from shoplens.registry import runs
from shoplens.registry import versions as packages
from tests.conftest import ROOT
from tests.e2e.conftest import TRAINING, Platform

Dump = Callable[[], dict[str, object]]


@pytest.fixture(scope="module")
def worse(platform: Platform, shop: Path, champion: int, tmp_path_factory: pytest.TempPathFactory) -> int:
    """A version that learned nothing, with the champion's small towers and an index of its own."""
    config = str(ROOT / "workloads/configs/eclip.yaml")
    recipe = eclip.EclipRecipe.load(
        override(read_yaml(config), [f"dataset={shop}", "attribute_heads=0", *TRAINING]), config
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", platform.cluster.mlflow_uri)
        run_id = runs.start_run("eclip", "eclip", recipe.config.model_dump(mode="json"), recipe.dataset)
        package = tmp_path_factory.mktemp("worse") / "package"
        recipe.save(recipe.build(), package)
        version = packages.register(run_id, "eclip", package)
        runs.finish(run_id)
    platform.submit("python", "-m", "workloads.build_index", "--model", f"eclip/{version}", f"dataset={shop}")
    return version


def test_the_run_says_how_to_repeat_it(platform: Platform, champion: int) -> None:
    client = mlflow.MlflowClient(tracking_uri=platform.cluster.mlflow_uri)
    version = client.get_model_version("eclip", str(champion))
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["training.epochs"] == "6"
    assert {"dataset_digest", "seed", "git_commit"} <= run.data.tags.keys()
    files = {file.path for file in client.list_artifacts(version.run_id)}
    assert {"config.yaml", "sample_batch.png", "evaluations"} <= files
    curve = client.get_metric_history(version.run_id, "train/loss")
    assert curve[-1].value < curve[0].value
    assert len({point.step for point in curve}) == len(curve)


def test_the_package_is_a_pyfunc(
    platform: Platform, champion: int, demo_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", platform.cluster.mlflow_uri)
    model = mlflow.pyfunc.load_model("models:/eclip@champion")
    vectors = np.array(model.predict(pd.DataFrame({"text": ["빨간 원피스", "black boots"]}))["embedding"].tolist())
    answer = httpx.post(f"{demo_url}/v1/embeddings", json={"model": "eclip", "input": ["빨간 원피스", "black boots"]})
    served = np.array([item["embedding"] for item in answer.json()["data"]])
    np.testing.assert_allclose(vectors, served, atol=1e-5)


def test_the_lists_that_a_job_judges_are_those_that_are_served(
    platform: Platform, champion: int, shop: Path, demo_url: str, tmp_path: Path
) -> None:
    printed = platform.submit(
        "python", "-m", "workloads.evaluate_lists", "--model", "eclip@champion", f"dataset={shop}", "k=20", "seeds=50"
    )
    assert "% of 50 seeds get 20, no rule is broken" in printed
    client = mlflow.MlflowClient(tracking_uri=platform.cluster.mlflow_uri)
    run = client.get_run(client.get_model_version("eclip", str(champion)).run_id)
    assert run.data.metrics["lists/full_at_20"] == 1
    folder = printed.partition("Report and lists: ")[2].partition("/report.html")[0]
    kept = client.download_artifacts(run.info.run_id, f"{folder}/lists.parquet", str(tmp_path))
    for row in pq.read_table(kept).slice(0, 5).to_pylist():
        asked = {"model": "eclip", "product_id": row["seed"], "k": 20}
        served = httpx.post(f"{demo_url}/v1/similar", json=asked, timeout=60).json()["data"]
        assert [found["product_id"] for found in served] == row["product_ids"]
        assert [found["ring"] for found in served] == row["rings"]


def test_a_worse_model_is_refused_by_name_of_the_gate(
    platform: Platform, champion: int, worse: int, tracking: Dump
) -> None:
    printed = platform.type_in("shoplens", "promote", "eclip", str(worse), "--alias", "champion", fails=True)
    assert "text_to_image/recall@10" in printed
    assert "Traceback" not in printed
    assert tracking()["eclip"][1]["champion"] == str(champion)  # type: ignore[index]


def test_a_dry_run_changes_nothing(platform: Platform, worse: int, tracking: Dump) -> None:
    before = tracking()
    printed = platform.type_in("shoplens", "promote", "eclip", str(worse), "--dry-run", fails=True)
    assert "text_to_image/recall@10" in printed
    assert tracking() == before


def test_force_leaves_a_trace_and_rollback_returns(
    platform: Platform, champion: int, worse: int, demo_url: str, tracking: Dump
) -> None:
    try:
        platform.type_in("shoplens", "promote", "eclip", str(worse), "--force", "--reason", "drill")
        assert tracking()[f"eclip/{worse}"]["gate"] == "forced"  # type: ignore[index]
        platform.wait_until_served(f"eclip/{worse}")
    finally:
        platform.type_in("shoplens", "rollback", "eclip")
    assert tracking()["eclip"][1]["champion"] == str(champion)  # type: ignore[index]
    platform.wait_until_served(f"eclip/{champion}")


@pytest.fixture(scope="module")
def printed(platform: Platform, shop: Path) -> str:
    """The output of a job that looks for `platform` in its driver, in a task and in a Serve replica, and then trains with
    a misspelt setting."""
    arguments = ["train", "workloads/configs/eclip.yaml", f"dataset={shop}", "training.epoch=3"]
    code = (
        "import platform, ray, runpy, sys, ray.serve as serve\n"
        "ray.init()\n"
        "where = lambda: (__import__('platform').__file__, __import__('platform').system())\n"
        "print('driver', *where()); print('task', *ray.get(ray.remote(where).remote()))\n"
        "@serve.deployment(ray_actor_options={'num_cpus': 0})\n"
        "class Where:\n"
        "    def __call__(self): return where()\n"
        "handle = serve.run(Where.bind(), name='where', route_prefix=None)\n"
        "print('replica', *handle.remote().result()); serve.delete('where')\n"
        f"sys.argv = {arguments}\n"
        "print('training:', flush=True); runpy.run_module('workloads.train', run_name='__main__')\n"
    )
    return platform.submit("python", "-c", code, fails=True)


def test_a_misspelt_setting_costs_one_line(printed: str) -> None:
    said = printed.partition("training:\n")[2]
    assert "training.epoch: unknown key; did you mean epochs?" in said
    assert "Traceback" not in said


def test_platform_stays_the_standard_librarys(printed: str) -> None:
    for place in ("driver", "task", "replica"):
        line = next(line for line in printed.splitlines() if line.startswith(place))
        assert line.endswith("/platform.py Linux"), line
        assert "shoplens" not in line
