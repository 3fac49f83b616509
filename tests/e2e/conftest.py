"""One platform for all end-to-end tests: started, trained, promoted and asked as a user does it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from shoplens.cluster import Cluster
from tests.conftest import ROOT

BIN = Path(sys.executable).parent
TRAINING = ["training.batch_size=64", "training.warmup_steps=10", "training.checkpoint_every=40"]
READY_S = 120


@dataclass(frozen=True)
class Platform:
    """A running cluster of free ports, and how to type commands at it."""

    cluster: Cluster

    def type_in(self, *command: str, fails: bool = False) -> str:
        """Runs a command from the repository root with the virtual environment on the PATH; returns its output."""
        environment = {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "SHOPLENS_CLUSTER": str(self.cluster.file),
            "RAY_API_SERVER_ADDRESS": self.cluster.dashboard,
            "COLUMNS": "200",
        }
        ran = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900
        )
        assert (ran.returncode != 0) == fails, f"{' '.join(command)}\n{ran.stdout}"
        return ran.stdout

    def submit(self, *command: str, fails: bool = False) -> str:
        return self.type_in("ray", "job", "submit", "--working-dir", ".", "--", *command, fails=fails)

    def train(self, shop: Path, *settings: str) -> int:
        """Submits a training job; the version that it registered."""
        config = "workloads/configs/eclip.yaml"
        printed = self.submit("python", "-m", "workloads.train", config, f"dataset={shop}", *TRAINING, *settings)
        return int(printed.partition("Next: shoplens promote eclip ")[2].split()[0])

    def wait_until_served(self, model: str) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            answer = httpx.get(f"{self.cluster.endpoint}/v1/products?limit=1", timeout=30)
            if answer.status_code == 200 and answer.json()["model"] == model:
                return
            assert time.monotonic() < deadline, f"{model} is not served: {answer.status_code} {answer.text}"
            time.sleep(0.5)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="package")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("platform")
    tree = yaml.safe_load((ROOT / "clusters/local.yaml").read_text())
    tree["name"] = "tests"
    tree["storage"] = str(folder / "storage")
    tree["ray"] |= {"dashboard_port": free_port(), "gcs_port": free_port(), "object_store_memory": "300MiB"}
    tree["mlflow"]["port"] = free_port()
    tree["serve"]["http_options"]["port"] = free_port()
    file = folder / "tests.yaml"
    file.write_text(yaml.safe_dump(tree))
    platform = Platform(Cluster.load(file))
    try:
        platform.type_in("shoplens", "up", str(file))
        yield platform
    finally:
        platform.type_in("shoplens", "down", str(file))


@pytest.fixture(scope="package")
def shop(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shop") / "demo"
    platform.type_in("shoplens", "dataset", "synthesize", str(out), "--products", "500", "--seed", "7")
    return out


@pytest.fixture(scope="package")
def champion(platform: Platform, shop: Path) -> int:
    """The version that is trained, indexed, promoted and served."""
    version = platform.train(shop, "training.epochs=6")
    platform.submit("python", "-m", "workloads.build_index", "--model", f"eclip/{version}", f"dataset={shop}")
    platform.type_in("shoplens", "promote", "eclip", str(version), "--alias", "champion", "--dataset", str(shop))
    platform.wait_until_served(f"eclip/{version}")
    return version


@pytest.fixture
def demo_url(platform: Platform, champion: int) -> str:
    return platform.cluster.endpoint


@pytest.fixture
def tracking(platform: Platform) -> Callable[[], dict[str, object]]:
    """A dump of the registry: every model, version, alias and tag."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=platform.cluster.mlflow_uri)

    def dump() -> dict[str, object]:
        return {
            model.name: (dict(model.tags), {alias: str(version) for alias, version in model.aliases.items()})
            for model in client.search_registered_models()
        } | {f"{v.name}/{v.version}": dict(v.tags) for v in client.search_model_versions()}

    return dump
