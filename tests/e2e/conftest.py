"""One platform for all end-to-end tests: started, trained, promoted and asked as a user does it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from playwright.sync_api import Browser, Page, expect, sync_playwright

from shoplens.cluster.file import Cluster
from tests.conftest import ROOT, free_port

BIN = Path(sys.executable).parent
TRAINING = [
    "model.dim=64",
    "model.image={name: test_resnet, options: {}}",
    "model.text.config={model_type: bert, hidden_size: 64, num_hidden_layers: 1, num_attention_heads: 2, "
    "intermediate_size: 128, hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0}",
    "training.batch_size=32",
    "training.warmup_steps=10",
    "training.checkpoint_every=40",
    "evaluation.split=test",
]
"""Towers of some hundred thousand weights: six epochs of them pass the gates and know the shop's colours. Judged on the
split that promotion asks for, so that it need not judge again."""
RANKING = [
    "training.epochs=5",
    "training.warmup_steps=2",
    "batches.matching=4",
    "batches.groups=2",
    "batches.candidates=6",
    "topics.least=6",
    "topics.least_liked=3",
    "evaluation.split=test",
]
"""The shop has twelve topics; judged on the split that promotion asks for, so that it need not judge again."""
EXPERIMENT = {
    "name": "a-a",
    "salt": "tests",
    "arms": [
        {"name": "one", "share": 0.5, "model": "eclip@champion"},
        {"name": "other", "share": 0.5, "model": "eclip@champion"},
    ],
}
READY_S = 120
PLUGIN = ROOT / "tests/plugin"
"""Recipes that live in tests only, as an installed distribution would bring them."""
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE_MS = 20_000


@dataclass(frozen=True)
class Platform:
    """A running cluster of free ports, and how to type commands at it."""

    cluster: Cluster

    def type_in(self, *command: str, fails: bool = False) -> str:
        """Runs a command from the repository root with the virtual environment on the PATH; returns its output."""
        environment = {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(PLUGIN), os.environ.get("PYTHONPATH")])),
            "SHOPLENS_CLUSTER": str(self.cluster.file),
            "RAY_API_SERVER_ADDRESS": self.cluster.dashboard,
            "COLUMNS": "200",
            "RAY_DEDUP_LOGS": "1",  # as a user has it
        }
        ran = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900
        )
        assert (ran.returncode != 0) == fails, f"{' '.join(command)}\n{ran.stdout}"
        return ran.stdout

    def submit(self, *command: str, fails: bool = False) -> str:
        return self.type_in("ray", "job", "submit", "--working-dir", ".", "--", *command, fails=fails)

    def train(self, recipe: str, shop: Path, *settings: str) -> int:
        """Submits a training job; the version that it registered."""
        config = f"workloads/configs/{recipe}.yaml"
        printed = self.submit("python", "-m", "workloads.train", config, f"dataset={shop}", *settings)
        for noise in ("core_worker.cc", "logging.cc", "(raylet)", "(TrainController", "Progress bars disabled"):
            assert noise not in printed, "the output of a job is its own"
        assert "\nparts: imports " in printed
        return int(printed.partition(f"Next: shoplens promote {recipe} ")[2].split()[0])

    def serve(self, recipe: str, version: int, shop: Path) -> None:
        """Indexes the version, promotes it and waits until it answers."""
        model = f"{recipe}/{version}"
        self.submit("python", "-m", "workloads.build_index", "--model", model, f"dataset={shop}")
        self.type_in("shoplens", "promote", recipe, str(version), "--alias", "champion", "--dataset", str(shop))
        self.wait_until_served(model)

    def wait_until_served(self, model: str) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            answer = httpx.get(f"{self.cluster.endpoint}/healthz", timeout=30)
            if answer.status_code == 200 and model in answer.json()["models"].values():
                return
            assert time.monotonic() < deadline, f"{model} is not served: {answer.status_code} {answer.text}"
            time.sleep(0.5)


@pytest.fixture(scope="package")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("platform")
    tree = yaml.safe_load((ROOT / "clusters/local.yaml").read_text())
    tree["name"] = "tests"
    tree["storage"] = str(folder / "storage")
    tree["ray"] |= {"dashboard_port": free_port(), "gcs_port": free_port(), "object_store_memory": "300MiB"}
    tree["mlflow"]["port"] = free_port()
    tree["serve"]["http_options"]["port"] = free_port()
    tree["serve"]["applications"][0]["args"]["experiment"] = EXPERIMENT
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
    version = platform.train("eclip", shop, "training.epochs=6", *TRAINING)
    platform.serve("eclip", version, shop)
    return version


@pytest.fixture(scope="package")
def ranker(platform: Platform, shop: Path, champion: int) -> int:
    """A CLIK that starts from the champion, served beside it."""
    version = platform.train("clik", shop, "model.start_from=models:/eclip@champion", *RANKING)
    platform.serve("clik", version, shop)
    return version


@pytest.fixture
def demo_url(platform: Platform, champion: int) -> str:
    return platform.cluster.endpoint


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here; `make browser` installs Debian's")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, demo_url: str) -> Iterator[Page]:
    """The page, opened and loaded; at the end there must be no error in its console."""
    page = browser.new_page(viewport={"width": 1360, "height": 1000})
    page.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(demo_url)
    expect(page.get_by_test_id("card").first).to_be_visible()
    yield page
    page.close()
    refused = "the server responded with a status of 4"  # a request the test meant to be refused
    assert [error for error in errors if refused not in error] == []


def keep_picture(page: Page, name: str) -> None:
    """Saves what the browser shows into SHOPLENS_SCREENSHOTS, if that is set."""
    if folder := os.environ.get("SHOPLENS_SCREENSHOTS"):
        page.wait_for_load_state("networkidle")
        page.screenshot(path=Path(folder) / f"{name}.png")


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
