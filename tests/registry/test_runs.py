from __future__ import annotations

import json
import logging
import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import yaml

from shoplens.errors import ShoplensError
from shoplens.registry import runs

if TYPE_CHECKING:
    from conftest import Server, Shop

CONFIG = {
    "seed": 7,
    "model": {"text": {"config": {"model_type": "bert"}}, "dim": 64, "empty": {}},
    "steps": [1, 2, 3],
    "note": "가" * 9000,
    "prompts": {"a photo of {}!": 1},
    "resume": None,
}


def test_a_run_says_all_that_is_needed_to_repeat_it(
    server: Server, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOPLENS_GIT_COMMIT", "0123abc-dirty")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"metadata": {"job_submission_id": "raysubmit_7"}}))
    run_id = runs.start_run("whole", "first", CONFIG, shop, {"arm": "eclip"})
    run = server.client.get_run(run_id)
    assert run.info.status == "RUNNING"
    assert run.info.run_name == "first"
    params = run.data.params
    assert params["model.text.config.model_type"] == "bert"
    assert params["steps"] == "[1, 2, 3]"
    assert params["resume"] == "null"
    assert params["model.empty"] == "{}"
    assert params["note"].startswith("가가")
    assert len(params["note"]) < 9000
    text = server.client.download_artifacts(run_id, "config.yaml")
    assert yaml.safe_load(Path(text).read_text(encoding="utf-8")) == CONFIG
    tags = run.data.tags
    assert (tags["dataset_name"], tags["dataset_digest"], tags["dataset_path"]) == (
        shop.name,
        shop.digest,
        shop.path,
    )
    assert (tags["git_commit"], tags["git_dirty"], tags["seed"], tags["arm"]) == (
        "0123abc",
        "true",
        "7",
        "eclip",
    )
    assert tags["ray_job_submission_id"] == "raysubmit_7"
    assert {f"version.{library}" for library in ("python", "ray", "torch", "timm", "mlflow", "shoplens")} <= tags.keys()
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == shop.name
    assert shop.digest.startswith(dataset.dataset.digest)
    runs.finish(run_id, "FAILED")
    assert server.client.get_run(run_id).info.status == "FAILED"


def test_a_run_that_was_cut_off_is_taken_up_with_the_same_settings_only(server: Server, shop: Shop) -> None:
    run_id = runs.start_run("cut", "off", CONFIG, shop)
    runs.finish(run_id, "FAILED")
    with pytest.raises(ShoplensError, match=r"model\.dim=64, not 65"):
        runs.take_up(run_id, {**CONFIG, "model": {**CONFIG["model"], "dim": 65}})  # type: ignore[dict-item]
    assert server.client.get_run(run_id).info.status == "FAILED"
    runs.take_up(run_id, CONFIG)
    assert server.client.get_run(run_id).info.status == "RUNNING"
    with pytest.raises(ShoplensError, match="there is no run"):
        runs.take_up("0" * 32, CONFIG)


def test_hundreds_of_parameters(server: Server, shop: Shop) -> None:
    run_id = runs.start_run("whole", "many", {f"key{n}": n for n in range(250)}, shop)
    assert len(server.client.get_run(run_id).data.params) == 250


def test_a_deleted_experiment_is_named(server: Server, shop: Shop) -> None:
    runs.start_run("deleted", "a", {}, shop)
    server.client.delete_experiment(server.client.get_experiment_by_name("deleted").experiment_id)
    with pytest.raises(ShoplensError, match="'deleted' was deleted: restore it"):
        runs.start_run("deleted", "b", {}, shop)


def test_without_a_tracking_uri_nothing_is_made(monkeypatch: pytest.MonkeyPatch, shop: Shop, tmp_path: object) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(str(tmp_path))
    for make in (lambda: runs.start_run("e", "r", {}, shop), lambda: runs.MetricLog("0" * 32)):
        with pytest.raises(ShoplensError, match="MLFLOW_TRACKING_URI is not set"):
            make()


def test_a_server_that_is_away_is_reported_within_seconds(monkeypatch: pytest.MonkeyPatch, shop: Shop) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    started = time.monotonic()
    with pytest.raises(ShoplensError, match=f"{port} does not answer .*shoplens up"):
        runs.start_run("e", "r", {}, shop)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("test/text_to_image/recall@10", "test/text_to_image/recall_at_10"),
        ("train/loss", "train/loss"),
        ("a:b", "a_b"),
        ("정확도 %", "정확도 _"),
    ],
)
def test_metric_names_become_what_mlflow_takes(name: str, key: str) -> None:
    assert runs.metric_key(name) == key


class Forwarder:
    """A port that leads to the server while it is open, and refuses while it is shut."""

    def __init__(self, uri: str) -> None:
        self._target = (urlsplit(uri).hostname, urlsplit(uri).port)
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            self.port = listener.getsockname()[1]
        self._listener: socket.socket | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        if self._listener:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                here, _ = listener.accept()
            except OSError:
                return
            there = socket.create_connection(self._target)
            for source, sink in ((here, there), (there, here)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@pytest.fixture
def forwarder(server: Server) -> Iterator[Forwarder]:
    port = Forwarder(server.uri)
    yield port
    port.shut()


def _curve(server: Server, run_id: str, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in server.client.get_metric_history(run_id, key)]


def test_curves_arrive_whole(server: Server, shop: Shop) -> None:
    run_id = runs.start_run("curves", "a", {}, shop)
    with runs.MetricLog(run_id, every=0.05) as curves:
        for step in range(1500):
            curves.log({"train/loss": 1 / (step + 1), "validation/recall@1": step / 1500}, step)
        curves.log({"train/loss": math.inf}, 1500)
    assert _curve(server, run_id, "train/loss")[:1500] == [(step, 1 / (step + 1)) for step in range(1500)]
    assert len(_curve(server, run_id, "validation/recall_at_1")) == 1500


def test_a_restarted_worker_leaves_one_point_a_step(server: Server, shop: Shop) -> None:
    run_id = runs.start_run("curves", "restart", {}, shop)
    for steps in (range(5), range(3, 9)):
        with runs.MetricLog(run_id, every=0.05) as curves:
            for step in steps:
                curves.log({"train/loss": float(step)}, step)
    assert [step for step, _ in _curve(server, run_id, "train/loss")] == list(range(9))


def test_an_absent_server_costs_no_point_and_one_line(
    server: Server, shop: Shop, forwarder: Forwarder, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = runs.start_run("curves", "absence", {}, shop)
    caplog.set_level(logging.WARNING, runs.__name__)
    curves = runs.MetricLog(run_id, tracking_uri=forwarder.uri, every=0.05)
    for step in range(10):
        curves.log({"train/loss": float(step)}, step)
        time.sleep(0.05)
    assert caplog.text.count("kept, and tried again") == 1
    forwarder.open()
    assert curves.close() == 0
    assert [step for step, _ in _curve(server, run_id, "train/loss")] == list(range(10))


def test_a_server_that_never_returns_does_not_kill_training(
    server: Server, shop: Shop, forwarder: Forwarder, caplog: pytest.LogCaptureFixture
) -> None:
    curves = runs.MetricLog("0" * 32, tracking_uri=forwarder.uri, every=0.05)
    curves.log({"train/loss": 1.0}, 0)
    assert curves.close(timeout=1) == 1
    assert "1 metric points" in caplog.text
