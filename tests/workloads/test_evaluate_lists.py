"""The command against a registry in a file, as a user types it."""

from __future__ import annotations

import hashlib
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from shoplens.datasets.format import Dataset
from shoplens.registry import runs
from shoplens.search.index import Index
from shoplens.search.items import items
from shoplens.synthetic.shop import SyntheticShop, synthesize

Call = Callable[..., tuple[object, str, str]]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    made = SyntheticShop(products=120, image_size=48, seed=3, impressions_per_product=4)
    return synthesize(tmp_path_factory.mktemp("shop") / "shop", made, workers=1, progress=False)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, shop: Dataset) -> str:
    """Two versions of `similar` with indexes of made-up vectors, the first the champion, and a third without one."""
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(tracking_uri=uri)
    client.create_experiment("lists", artifact_location=str(folder / "artifacts"))
    client.create_registered_model("similar")
    for version in range(1, 4):
        run_id = runs.start_run("lists", "similar", {"seed": version}, shop, tracking_uri=uri)
        tags = {"package_digest": hashlib.sha256(run_id.encode()).hexdigest()}
        if version < 3:
            samples = np.arange(shop.images.num_rows)
            vectors = np.random.default_rng(version).normal(size=(len(samples), 8)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            about = {"model": "similar", "version": version}
            Index.build(folder / f"index-{version}", vectors, items(shop, samples), shop.categories, about)
            tags["index"] = str(folder / f"index-{version}")
        client.create_model_version("similar", str(folder), run_id=run_id, tags=tags)
    client.set_registered_model_alias("similar", "champion", "1")
    return uri


@pytest.fixture
def evaluate(
    registry: str,
    shop: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Call:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("SHOPLENS_STORAGE", raising=False)

    def call(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["evaluate_lists", *arguments])
        code: object = 0
        try:
            runpy.run_module("workloads.evaluate_lists", run_name="__main__")
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return call


def test_figures_report_and_lists_go_to_the_run(registry: str, shop: Dataset, tmp_path: Path, evaluate: Call) -> None:
    where = f"dataset={shop.path}"
    code, said, _ = evaluate("--model", "similar/2", where, "k=3", "seeds=60", "clicks=session", "examples=2")
    assert code == 0
    assert "similar/2: " in said and "of 60 seeds get 3, no rule is broken" in said
    assert said.rstrip().endswith("--against similar/1"), "the champion is what to compare it with next"
    client = MlflowClient(tracking_uri=registry)
    run = client.get_run(client.get_model_version("similar", "2").run_id)
    assert run.data.metrics["lists/violations_at_3"] == 0
    assert 0 < run.data.metrics["lists/full_at_3"] <= 1
    (folder,) = (file.path for file in client.list_artifacts(run.info.run_id, "evaluations"))
    (weights,) = (file.path for file in client.list_artifacts(run.info.run_id, folder))
    files = {Path(file.path).name for file in client.list_artifacts(run.info.run_id, weights)}
    assert files == {"evaluation.json", "outcomes.npz", "report.html", "lists.parquet"}
    page = Path(client.download_artifacts(run.info.run_id, f"{weights}/report.html", str(tmp_path))).read_text()
    assert "A stand-in, not clicks on lists" in page and page.count('class="seedlist"') == 2
    lists = pq.read_table(client.download_artifacts(run.info.run_id, f"{weights}/lists.parquet", str(tmp_path)))
    assert lists.num_rows == 60

    code, said, _ = evaluate("--model", "similar/2", "--against", "similar@champion", where, "k=3", "widening.rings=0")
    assert code == 0
    assert said.rstrip().endswith("shoplens promote similar 2 --alias champion")
    page = Path(client.download_artifacts(run.info.run_id, f"{weights}/report.html", str(tmp_path))).read_text()
    assert "Against similar/1" in page and "lists/agreement/match@3" in said
    holder = client.get_run(client.get_model_version("similar", "1").run_id)
    assert holder.data.metrics["lists/full_at_3"] < 1, "both are stored, so that gates can compare them"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "similar/3"], "similar/3 has no index: build it with `python -m workloads.build_index"),
        (["--model", "similar/1", "--against", "similar@champion"], "are one version, similar/1"),
        (["--model", "similar/1", "rules.cheepest=false"], "rules.cheepest: unknown key; did you mean cheapest?"),
        (["--model", "similar/1", "k=0"], "k: "),
        (["--model", "similar/1", "clicks=impressions"], "clicks: "),
        (["--model", "similar/1", "--events", "nowhere"], "there is no event log nowhere"),
    ],
)
def test_mistakes_are_one_sentence(shop: Dataset, evaluate: Call, arguments: list[str], said: str) -> None:
    code, _, errors = evaluate(*arguments, f"dataset={shop.path}")
    assert code == 2
    assert errors.startswith("error: ")
    assert said in errors
