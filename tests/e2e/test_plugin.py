"""Models that live in tests only (tests/plugin) go the whole way: trained as jobs, registered, served, listed, shown.

Nothing under platform/, serve_apps/ or workloads/ knows them. They are a model of text alone, one that writes text for a
photo, one with a teacher and two views, and one with vectors of photo and text together.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from tests.conftest import ROOT
from tests.e2e.conftest import Platform, keep_picture

CAN = {
    "captions": ["write_text"],
    "composed": ["embed_image_text"],
    "teacher": ["embed_image"],
    "titles": ["embed_text"],
}
SHOWN = {
    "captions": "writes captions",
    "composed": "embeds a photo with a text",
    "teacher": "embeds photos",
    "titles": "embeds texts",
}
METRIC = {
    "captions": "captions/words",
    "composed": "listings/recall_at_1",
    "teacher": "photos/recall_at_1",
    "titles": "titles/recall_at_1",
}


@pytest.fixture(scope="module")
def plugin(platform: Platform, shop: Path, champion: int) -> str:
    """The endpoint, once it serves all four. `champion` is promoted first, so it stays the default."""
    platform.submit("python", str(ROOT / "tests/plugin/job.py"), str(shop))
    for name in CAN:
        platform.wait_until_served(f"{name}/1")
    return platform.cluster.endpoint


@pytest.fixture(scope="module")
def photo(plugin: str) -> bytes:
    product = httpx.get(f"{plugin}/v1/products?limit=1", timeout=30).json()["data"][0]
    return httpx.get(plugin + product["image"], timeout=30).content


@pytest.fixture(scope="module")
def tracked(platform: Platform, plugin: str) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(tracking_uri=platform.cluster.mlflow_uri)


def post(endpoint: str, path: str, body: dict) -> dict:
    answer = httpx.post(endpoint + path, json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def data_uri(photo: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(photo).decode()}"


@pytest.mark.parametrize("name", CAN)
def test_it_was_trained_evaluated_and_reported(name: str, tracked: mlflow.MlflowClient, tmp_path: Path) -> None:
    version = tracked.get_model_version(name, "1")
    run = tracked.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert f"test/{METRIC[name]}" in run.data.metrics
    curve = tracked.get_metric_history(version.run_id, "train/loss")
    third = len(curve) // 3
    assert np.mean([point.value for point in curve[-third:]]) < np.mean([point.value for point in curve[:third]])
    files = {file.path for file in tracked.list_artifacts(version.run_id)}
    assert ("sample_batch.png" in files) == (name != "titles"), "a model without photos has no sample picture"
    (folder,) = (file.path for file in tracked.list_artifacts(version.run_id, "evaluations") if file.is_dir)
    report = next(Path(tracked.download_artifacts(version.run_id, folder, str(tmp_path))).rglob("report.html"))
    assert METRIC[name].split("/")[0] in report.read_text()


def test_it_loads_as_a_pyfunc(platform: Platform, plugin: str, photo: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", platform.cluster.mlflow_uri)
    rows = {
        "titles": {"text": "빨간 원피스"},
        "captions": {"image": photo},
        "teacher": {"image": photo},
        "composed": {"image": photo, "text": "빨간 원피스"},
    }
    for name, row in rows.items():
        (answered,) = (
            mlflow.pyfunc.load_model(f"models:/{name}@champion").predict(pd.DataFrame([row])).to_dict("records")
        )
        if name == "captions":
            assert post(plugin, "/v1/captions", {"image": data_uri(photo)})["data"][0]["text"] == answered["text"]
        else:
            assert np.linalg.norm(answered["embedding"]) == pytest.approx(1, abs=1e-4)


def test_it_is_served_by_what_it_can_do(plugin: str, photo: bytes) -> None:
    """Each endpoint finds a model by its capability; the default of each stays the shop's first model."""
    words = post(plugin, "/v1/embeddings", {"model": "titles", "input": ["빨간 원피스", "black boots"]})
    assert words["model"] == "titles/1"
    assert {len(item["embedding"]) for item in words["data"]} == {16}
    image = {"type": "image_url", "image_url": {"url": data_uri(photo)}}
    assert len(post(plugin, "/v1/embeddings", {"model": "teacher", "input": [image]})["data"][0]["embedding"]) == 24
    pair = {"type": "image_text", "image_url": {"url": data_uri(photo)}, "text": "빨간 원피스"}
    assert len(post(plugin, "/v1/embeddings", {"model": "composed", "input": [pair]})["data"][0]["embedding"]) == 24
    assert post(plugin, "/v1/captions", {"image": data_uri(photo)})["model"] == "captions/1"
    assert post(plugin, "/v1/similar", {"text": "원피스", "k": 3})["model"].startswith("eclip/")


@pytest.mark.parametrize("name", ["titles", "teacher", "composed"])
def test_its_index_is_searched(plugin: str, name: str) -> None:
    """A text model, a photo model and a model of both: each has an index of the shop's products."""
    seed = httpx.get(f"{plugin}/v1/products?limit=1", timeout=30).json()["data"][0]["product_id"]
    found = post(plugin, "/v1/similar", {"model": name, "product_id": seed, "k": 5})
    assert found["model"] == f"{name}/1"
    assert len(found["data"]) == 5


def test_what_it_cannot_do_is_said(plugin: str, photo: bytes) -> None:
    refused = httpx.post(f"{plugin}/v1/embeddings", json={"model": "teacher", "input": ["words"]}, timeout=60)
    assert refused.status_code in (404, 422)
    assert "photo → vector" in refused.json()["error"]["message"]


def test_it_is_listed(platform: Platform, plugin: str) -> None:
    rows = {row["id"]: row for row in httpx.get(f"{plugin}/v1/models", timeout=30).json()["data"]}
    assert {name: rows[f"{name}/1"]["capabilities"] for name in CAN} == CAN
    assert all(rows[f"{name}/1"]["active"] for name in CAN)
    printed = platform.type_in("shoplens", "models")
    for name, (capability,) in CAN.items():
        assert re.search(rf"{name}/1 .*{capability}", printed), printed


def test_it_is_shown(plugin: str, page: Page, photo: bytes, tmp_path: Path) -> None:
    """The page lists the models with what each can do, and captions a photo, since a served model writes."""
    for name, words in SHOWN.items():
        expect(page.get_by_test_id("models")).to_contain_text(f"{name}/1: {words}")
    (tmp_path / "photo.jpg").write_bytes(photo)
    page.get_by_test_id("photo-input").set_input_files(tmp_path / "photo.jpg")
    expect(page.get_by_test_id("caption").filter(visible=True)).to_contain_text("captions/1, from the photo")
    keep_picture(page, "plugin")
