"""The application under Ray Serve: a promotion, and the loss of a replica, while requests are coming."""

from __future__ import annotations

import gzip
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from mlflow import MlflowClient
from ray import serve

from serve_apps.settings import Settings
from serve_apps.shop import app
from shoplens.datasets.format import Dataset
from shoplens.experiments.event_log import read
from shoplens.registry import versions as packages
from shoplens.search import deltas
from shoplens.search.deltas import Changes
from tests.conftest import Server, free_port
from tests.serve_apps.conftest import make_index, make_package

ALIAS = "served"
"""Names with this alias are followed. Other tests keep their champions on the same MLflow server."""


@pytest.fixture(scope="module")
def registry(mlflow_server: Server, shop: Dataset, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An MLflow registry with two versions of eclip that answer differently; none is champion."""
    root, uri = tmp_path_factory.mktemp("packages"), mlflow_server.uri
    experiment = mlflow_server.client.create_experiment("serving")
    for seed in (1, 2):
        run = mlflow_server.client.create_run(experiment)
        package = make_package(root / f"package{seed}", shop, seed)
        index = make_index(root / f"index{seed}", package, shop, seed)
        assert (
            packages.register(run.info.run_id, "eclip", package, tags={"index": str(index)}, tracking_uri=uri) == seed
        )
    return uri


@pytest.fixture(scope="module")
def event_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("events")


@pytest.fixture(scope="module")
def url(ray_local: None, registry: str, event_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    settings = Settings(
        alias=ALIAS,
        page=False,
        poll_s=0.5,
        tracking_uri=registry,
        cache=str(tmp_path_factory.mktemp("cache")),
        events=str(event_log),
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(app(settings), name="shoplens", route_prefix="/")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


class Traffic(threading.Thread):
    """Asks the same again and again, and keeps (status, version) and what each version answered."""

    def __init__(self, url: str, path: str, body: dict[str, object]) -> None:
        super().__init__(daemon=True)
        self.answers: list[tuple[int, str]] = []
        self.numbers: dict[str, list[list[float]]] = {}
        self._url, self._path, self._body, self._over = url, path, body, threading.Event()

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=120) as http:
            while not self._over.is_set():
                answer = http.post(self._path, json=self._body)
                version = answer.headers.get("X-Model-Version", answer.text)
                self.answers.append((answer.status_code, version))
                if answer.status_code == 200:
                    assert answer.json()["model"] == version
                    data = answer.json()["data"]
                    numbers = data[0].get("embedding") or [product["score"] for product in data]
                    self.numbers.setdefault(version, []).append(numbers)

    def stop(self) -> None:
        self._over.set()
        self.join(150)


def wait_for(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def health(url: str) -> dict[str, object]:
    return httpx.get(f"{url}/healthz", timeout=60).json()


def test_from_no_champion_to_a_promotion_to_a_lost_replica(url: str, registry: str) -> None:
    client = MlflowClient(registry)
    assert health(url)["status"] == "waiting"
    body = {"model": "eclip", "input": "x"}
    answer = httpx.post(f"{url}/v1/embeddings", json=body, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_champion")

    client.set_registered_model_alias("eclip", ALIAS, "1")
    wait_for(lambda: health(url)["model"] == "eclip/1")

    traffic = [
        Traffic(url, "/v1/embeddings", {"model": "eclip", "input": "a red mug"}),
        Traffic(url, "/v1/embeddings", {"model": "eclip", "input": [{"type": "product", "product_id": "p3"}]}),
        Traffic(url, "/v1/similar", {"text": "a red mug", "k": 5}),
        Traffic(url, "/v1/similar", {"product_id": "p3", "k": 5}),
    ]
    for thread in traffic:
        thread.start()
    wait_for(lambda: all(len(thread.answers) > 10 for thread in traffic))
    client.set_registered_model_alias("eclip", ALIAS, "2")
    wait_for(lambda: all(thread.answers[-1][1] == "eclip/2" for thread in traffic))

    before = [len(thread.answers) for thread in traffic]
    _process("ServeReplica:shoplens:Encoder").kill()
    wait_for(lambda: all(len(t.answers) > n + 10 for t, n in zip(traffic, before, strict=True)), 120)
    for thread in traffic:
        thread.stop()

    answers = Counter(answer for thread in traffic for answer in thread.answers)
    assert set(answers) == {(200, "eclip/1"), (200, "eclip/2")}
    for thread in traffic:
        versions = [version for _, version in thread.answers]
        assert versions == sorted(versions)
    for thread in traffic:
        one, two = np.array(thread.numbers["eclip/1"]), np.array(thread.numbers["eclip/2"])
        assert np.allclose(one, one[0], atol=1e-4)
        assert np.allclose(two, two[0], atol=1e-4)
        assert not np.allclose(one[0], two[0], atol=1e-3)
    rows = [row["id"] for row in httpx.get(f"{url}/v1/models", timeout=60).json()["data"]]
    assert [row for row in rows if row.startswith("eclip/")] == ["eclip/2", "eclip/1"], "the newest first"


def test_a_delta_is_served_without_a_promotion(url: str, registry: str) -> None:
    client = MlflowClient(registry)
    client.set_registered_model_alias("eclip", ALIAS, "2")
    product = f"{url}/v1/products/p4"
    wait_for(lambda: health(url)["model"] == "eclip/2")
    assert httpx.get(product, timeout=60).json()["price"] == 14
    deltas.append(client.get_model_version("eclip", "2").tags["index"], Changes(removed=["p6"], prices={"p4": 7.5}))
    wait_for(lambda: httpx.get(product, timeout=60).json()["price"] == 7.5)
    answer = httpx.post(f"{url}/v1/similar", json={"text": "x", "k": 50, "cheapest": False}, timeout=60).json()
    found = {row["product_id"]: row["price"] for row in answer["data"]}
    assert "p6" not in found and found["p4"] == 7.5


def test_the_forms_of_http_pass_the_proxy(url: str, registry: str) -> None:
    MlflowClient(registry).set_registered_model_alias("eclip", ALIAS, "2")
    wait_for(lambda: health(url)["model"] == "eclip/2")
    product = f"{url}/v1/products/p4"
    full, head = httpx.get(product), httpx.head(product)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(full.content)))
    photo = url + full.json()["image"]
    tag = httpx.get(photo).headers["etag"]
    unchanged = httpx.get(photo, headers={"if-none-match": f'W/"x", W/{tag}'})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    body = gzip.compress(b'{"model": "eclip", "input": "a red mug"}')
    assert httpx.post(f"{url}/v1/embeddings", content=body, headers=headers, timeout=60).json()["model"] == "eclip/2"


def test_a_name_is_served_once_it_is_promoted(url: str, registry: str, shop: Dataset, tmp_path: Path) -> None:
    client = MlflowClient(registry)
    client.set_registered_model_alias("eclip", ALIAS, "2")
    run = client.create_run(client.create_experiment("mugs"))
    package = make_package(tmp_path / "mugs", shop, 3)
    index = make_index(tmp_path / "index", package, shop, 1, name="mugs")
    packages.register(run.info.run_id, "mugs", package, tags={"index": str(index)}, tracking_uri=registry)

    def answer(name: str) -> tuple[int, str]:
        found = httpx.post(f"{url}/v1/embeddings", json={"model": name, "input": "x"}, timeout=60)
        return found.status_code, found.json().get("model") or found.json()["error"]["code"]

    wait_for(lambda: answer("mugs") == (503, "no_champion"))
    assert answer("jugs") == (404, "model_not_found")
    assert answer("mugs/1") == (200, "mugs/1")
    client.set_registered_model_alias("mugs", ALIAS, "1")
    wait_for(lambda: health(url)["models"] == {"eclip": "eclip/2", "mugs": "mugs/1"})
    assert answer("mugs") == (200, "mugs/1")
    found = httpx.post(f"{url}/v1/similar", json={"text": "x", "k": 1}, timeout=60).json()
    assert found["model"] == "eclip/2", "the first registered name answers"
    client.delete_registered_model_alias("mugs", ALIAS)
    time.sleep(2)
    assert answer("mugs") == (200, "mugs/1"), "without the alias it stays as it is"


def test_a_gateway_that_is_killed_and_one_that_is_stopped_leave_their_events(url: str, event_log: Path) -> None:
    def log(name: str) -> bool:
        event = {"event_id": name, "time": "2026-03-01T00:00:00Z", "user_id": "u", "product_id": "p", "kind": "click"}
        body = {"events": [{**event, "request_id": "r", "experiment": "e", "arm": "a"}]}
        try:
            return httpx.post(f"{url}/v1/events", json=body, timeout=60).status_code == 200
        except httpx.HTTPError:
            return False

    wait_for(lambda: log("before"))
    _process("ServeReplica:shoplens:Gateway").kill()
    wait_for(lambda: log("after"), 120)
    serve.delete("shoplens")
    assert sorted(read(event_log)["event_id"].to_pylist()) == ["after", "before"]
    (folder,) = event_log.iterdir()
    assert list(folder.glob("*.parquet"))
    assert not list(folder.glob("*.events")), "what is stopped in order seals what it wrote"


def _process(title: str) -> psutil.Process:
    """The one process of this test's own cluster that goes by `title`."""
    [found] = [p for p in psutil.Process().children(recursive=True) if title in " ".join(p.cmdline())]
    return found
