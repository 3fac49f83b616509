"""The application under Ray Serve: a promotion, and the loss of a replica, while requests are coming."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import psutil
import pytest
from mlflow import MlflowClient
from ray import serve

from serve_apps.settings import Settings
from serve_apps.shop import app
from shoplens.datasets.format import Dataset
from shoplens.registry import packages
from tests.registry.conftest import Server, mlflow_server  # noqa: F401
from tests.serve_apps.conftest import make_package


@pytest.fixture(scope="module")
def registry(mlflow_server: Server, shop: Dataset, tmp_path_factory: pytest.TempPathFactory) -> str:  # noqa: F811
    """An MLflow registry with two versions of eclip that answer differently; none is champion."""
    root, uri = tmp_path_factory.mktemp("packages"), mlflow_server.uri
    experiment = mlflow_server.client.create_experiment("serving")
    for seed in (1, 2):
        run = mlflow_server.client.create_run(experiment)
        package = make_package(root / f"package{seed}", shop, seed)
        assert packages.register(run.info.run_id, "eclip", package, tracking_uri=uri) == seed
    return uri


@pytest.fixture(scope="module")
def url(ray_local: None, registry: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = Settings(
        search=False,
        page=False,
        poll_s=0.5,
        tracking_uri=registry,
        cache=str(tmp_path_factory.mktemp("cache")),
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(app(settings), name="shoplens", route_prefix="/")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


class Traffic(threading.Thread):
    """Asks the same again and again, and keeps (status, version) and the vectors of each version."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.answers: list[tuple[int, str]] = []
        self.vectors: dict[str, list[np.ndarray]] = {}
        self._url, self._over = url, threading.Event()

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=120) as http:
            while not self._over.is_set():
                answer = http.post("/v1/embeddings", json={"model": "eclip", "input": "a red mug"})
                version = answer.headers.get("X-Model-Version", answer.text)
                self.answers.append((answer.status_code, version))
                if answer.status_code == 200:
                    assert answer.json()["model"] == version
                    vector = np.array(answer.json()["data"][0]["embedding"], np.float32)
                    self.vectors.setdefault(version, []).append(vector)

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

    client.set_registered_model_alias("eclip", "champion", "1")
    wait_for(lambda: health(url)["model"] == "eclip/1")

    traffic = [Traffic(url) for _ in range(4)]
    for thread in traffic:
        thread.start()
    wait_for(lambda: all(len(thread.answers) > 10 for thread in traffic))
    client.set_registered_model_alias("eclip", "champion", "2")
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
    one, two = (np.concatenate([t.vectors[v] for t in traffic]) for v in ("eclip/1", "eclip/2"))
    assert np.allclose(one, one[0], atol=1e-5)
    assert np.allclose(two, two[0], atol=1e-5)
    assert not np.allclose(one[0], two[0], atol=1e-2)
    assert [row["id"] for row in httpx.get(f"{url}/v1/models", timeout=60).json()["data"]] == [
        "eclip/2",
        "eclip/1",
    ]


def _process(title: str) -> psutil.Process:
    """The one process of this test's own cluster that goes by `title`."""
    [found] = [p for p in psutil.Process().children(recursive=True) if title in " ".join(p.cmdline())]
    return found
