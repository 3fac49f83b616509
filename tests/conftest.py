"""Shared fixtures. Everything runs offline, on loopback, with nothing but what the tests make."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.update(
    HF_HUB_OFFLINE="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    RAY_AUTH_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_DEDUP_LOGS="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    OMP_WAIT_POLICY="PASSIVE",  # small tensors on shared cores: threads that wait by spinning cost six times the work
)

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

if TYPE_CHECKING:
    from mlflow import MlflowClient

settings.register_profile("shared machines", deadline=None)
settings.load_profile("shared machines")

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is first imported, by whichever test

ROOT = Path(__file__).resolve().parent.parent

NEEDED = {"ray": {"ray_local", "mlflow_server", "platform"}, "browser": {"browser"}}
"""Mark -> the fixtures that start what it stands for; a test that uses one of them, however indirectly, has the mark."""


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark, fixtures in NEEDED.items():
            if fixtures.intersection(getattr(item, "fixturenames", ())):
                item.add_marker(mark)


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """A Ray cluster of this process alone, for tests that need Ray but neither jobs nor Serve."""
    import ray

    ray.init(
        address="local", num_cpus=4, include_dashboard=False, object_store_memory=300 * 2**20, logging_level="ERROR"
    )
    yield
    ray.shutdown()


@dataclass(frozen=True)
class Server:
    uri: str
    root: Path

    @property
    def client(self) -> MlflowClient:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One MLflow server on loopback for all tests that need a registry but no cluster."""
    import httpx

    root, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{root}/mlflow.db", "--artifacts-destination", f"{root}/artifacts"]
    quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (root / "server.log").open("w") as output:
        process = subprocess.Popen(command, cwd=root, env=quiet, stdout=output, stderr=output, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                if httpx.get(f"{uri}/health", timeout=5).is_success:
                    break
            except httpx.HTTPError:
                pass
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((root / "server.log").read_text())
            time.sleep(0.2)
        yield Server(uri, root)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


@pytest.fixture(scope="session")
def shop_data() -> Path:
    """The folder of real catalogues; skipped where it is not at hand."""
    folder = Path(os.environ.get("SHOPLENS_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("real catalogues are not at hand; set SHOPLENS_DATA")
    return folder
