"""The parts of `up` and `down` that need no cluster: real processes and ports. The whole is in tests/e2e."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from shoplens.cli.cluster import down
from shoplens.cluster import ClusterError, lifecycle, processes
from shoplens.cluster.deploy import deployment
from shoplens.cluster.file import Cluster
from shoplens.cluster.ports import free_block, free_port
from shoplens.cluster.processes import FILE, MARK
from shoplens.cluster.state import Started, State, locked
from shoplens.config import ConfigError

FAMILY = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
print("ready", flush=True)
time.sleep(100)
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + FAMILY


def project(folder: Path, **keys: Any) -> Cluster:
    for part in ("workloads", "serve_apps", "platform/shoplens"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "serve_apps" / "shop.py").write_text("app = None\n")
    (folder / "cluster.yaml").write_text(yaml.safe_dump({"name": "test", **keys}))
    cluster = Cluster.load(folder / "cluster.yaml")
    cluster.state_dir.mkdir(parents=True, exist_ok=True)
    return cluster


def run(code: str, mark: str) -> tuple[Started, list[psutil.Process]]:
    """A process with a child, started as `up` starts them."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, MARK: mark},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    parent = psutil.Process(process.pid)
    return Started(parent.pid, parent.create_time()), [parent, *parent.children()]


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("code", [FAMILY, STUBBORN], ids=["willing", "stubborn"])
def test_down_stops_the_whole_family_and_nobody_else(
    tmp_path: Path, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STOP_SECONDS", 1)
    monkeypatch.setattr(processes, "LEFTOVER_SECONDS", 1)
    cluster = project(tmp_path)
    state = State(str(cluster.file))
    state.processes["mlflow"], ours = run(code, f"{state.mark}/mlflow")
    _, others = run(FAMILY, "another/mlflow")
    state.write(cluster)
    try:
        assert len(alive(ours)) == 2
        assert lifecycle.down(cluster)
        assert alive(ours) == []
        assert len(alive(others)) == 2
        assert not lifecycle.down(cluster)
    finally:
        for process in alive([*ours, *others]):
            process.kill()


def test_platforms_of_other_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = project(tmp_path / "ours"), project(tmp_path / "theirs")
    state = State(str(theirs.file))
    before = os.environ.pop(FILE, None)
    os.environ[FILE] = str(theirs.file)
    try:
        state.processes["mlflow"], family = run(FAMILY, f"{state.mark}/mlflow")
    finally:
        os.environ.pop(FILE)
        if before is not None:
            os.environ[FILE] = before
    state.write(theirs)
    try:
        assert str(theirs.file) in lifecycle.others(ours) and str(theirs.file) not in lifecycle.others(theirs)
        down(ours.file)
        said = " ".join(capsys.readouterr().out.split())
        assert f"nothing of {ours.file} is running" in said
        assert (
            f"a platform of another cluster file runs here: {theirs.file}. Stop it: shoplens down {theirs.file}" in said
        )
        assert alive(family) == family
    finally:
        lifecycle.down(theirs)
    assert str(theirs.file) not in lifecycle.others(ours)


def test_down_finds_children_whose_parent_has_died(tmp_path: Path) -> None:
    cluster = project(tmp_path)
    state = State(str(cluster.file))
    state.processes["mlflow"], (parent, child) = run(FAMILY, f"{state.mark}/mlflow")
    state.write(cluster)
    parent.kill()
    psutil.wait_procs([parent], timeout=5)
    assert [part.health for part in lifecycle.status(cluster) if part.name == "MLflow"] == ["failed"]
    assert alive([child]) == [child]
    lifecycle.down(cluster)
    assert alive([child]) == []


def test_a_process_id_that_was_given_again_is_not_ours() -> None:
    me = psutil.Process()
    assert Started(me.pid, me.create_time()).process() == me
    assert Started(me.pid, me.create_time() - 3600).process() is None


def test_a_taken_port_is_named_with_its_owner_and_nothing_is_started(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        cluster = project(tmp_path, mlflow={"port": port})
        with pytest.raises(ClusterError) as caught:
            lifecycle.up(cluster)
    message = str(caught.value)
    assert f"port {port} is taken by" in message and f"(process {os.getpid()})" in message
    assert "set mlflow.port in" in message
    assert State.read(cluster) is None


def test_one_port_for_two_servers_is_refused(tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(ClusterError, match=f"port {port} is given twice"):
        lifecycle.up(project(tmp_path, mlflow={"port": port}, ray={"dashboard_port": port}))


def test_changed_settings_ask_for_a_restart(tmp_path: Path) -> None:
    cluster = project(tmp_path)
    state = State(str(cluster.file), settings={"ray": {"num_cpus": 1}})
    state.processes["mlflow"], ours = run(FAMILY, f"{state.mark}/mlflow")
    state.write(cluster)
    try:
        with pytest.raises(ClusterError, match="run `shoplens down` first"):
            lifecycle.up(cluster)
    finally:
        lifecycle.down(cluster)
    assert alive(ours) == []


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    cluster = project(tmp_path)
    with locked(cluster), pytest.raises(ClusterError, match="is at work"):
        lifecycle.down(cluster)


def test_status_of_nothing(tmp_path: Path) -> None:
    ports = {"ray": {"dashboard_port": free_port()}, "mlflow": {"port": free_port()}}
    cluster = project(
        tmp_path, serve={"applications": [{"name": "shop", "import_path": "serve_apps.shop:app"}]}, **ports
    )
    assert [(part.name, part.health) for part in lifecycle.status(cluster)] == [
        ("Ray", "down"),
        ("MLflow", "down"),
        ("shop", "down"),
    ]


SHOP = {
    "applications": [{"name": "shop", "import_path": "serve_apps.shop:app", "runtime_env": {"env_vars": {"A": "1"}}}]
}


def test_edited_code_is_a_changed_deployment(tmp_path: Path) -> None:
    cluster = project(tmp_path, serve=SHOP)

    def code() -> str:
        variables = deployment(cluster)["applications"][0]["runtime_env"]["env_vars"]
        assert variables["A"] == "1"
        return str(variables["SHOPLENS_CODE"])

    before = code()
    assert code() == before
    (tmp_path / "serve_apps" / "__pycache__").mkdir()
    (tmp_path / "serve_apps" / "__pycache__" / "shop.pyc").write_bytes(b"compiled")
    assert code() == before
    (tmp_path / "serve_apps" / "shop.py").write_text("app = 1\n")
    assert code() != before


def test_an_application_module_that_is_not_there_is_named(tmp_path: Path) -> None:
    cluster = project(tmp_path, serve={"applications": [{"name": "a", "import_path": "serve_apps.shpo:app"}]})
    with pytest.raises(ClusterError, match=r"there is no module serve_apps[.]shpo"):
        deployment(cluster)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"modles": ["eclip"]}, "  modles: unknown key; did you mean models?"),
        ({"limits": {"requests": 0}}, "  limits.requests: Input should be greater than or equal to 1"),
        (
            {"experiment": {"name": "e", "salt": "s", "arms": [{"name": "a", "share": 0.9, "model": "eclip"}]}},
            "  experiment: the shares must sum to 1, not to 0.9",
        ),
        (
            {
                "models": ["eclip"],
                "experiment": {"name": "e", "salt": "s", "arms": [{"name": "a", "share": 1, "model": "clip@champion"}]},
            },
            "but 'clip' is not among `models:` (eclip)",
        ),
    ],
)
def test_arguments_that_an_application_does_not_take_are_told_before_anything_starts(
    tmp_path: Path, arguments: dict[str, Any], said: str
) -> None:
    application = {"name": "shop", "import_path": "serve_apps.shop:app", "args": arguments}
    file = tmp_path / "cluster.yaml"
    file.write_text(
        yaml.safe_dump({"name": "test", "storage": str(tmp_path), "serve": {"applications": [application]}})
    )
    cluster = Cluster.load(file)
    with pytest.raises(ConfigError) as refused:
        lifecycle.up(cluster)
    assert str(refused.value).startswith(f"{file}: `args:` of the application shop cannot be used:\n")
    assert said in str(refused.value)
    assert [part.health for part in lifecycle.status(cluster)][:2] == ["down", "down"]


def test_applications_elsewhere_are_told_where_things_are(tmp_path: Path) -> None:
    cluster = project(
        tmp_path,
        storage="/mnt/shop",
        ray={"address": "http://head:8265", "working_dir": "local:///opt/shop"},
        mlflow={"uri": "http://mlflow:5000"},
        serve=SHOP,
    )
    assert deployment(cluster)["applications"][0]["runtime_env"] == {
        "working_dir": "local:///opt/shop",
        "env_vars": {"PYTHONPATH": "platform", **cluster.environment, "A": "1"},
    }


def test_a_free_block_of_ports_avoids_listeners() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        block = free_block(port - 5, 10)
        assert block >= port + 5
