"""The example that trains on a table: its table is imported whole, and its settings make a recipe."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from shoplens import recipes
from shoplens.config import override, read_yaml
from shoplens.datasets.format import Dataset
from tests.conftest import ROOT

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("own")
    path = os.pathsep.join([str(ROOT), str(ROOT / "platform"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": path,
    }
    command = [sys.executable, "examples/train_on_your_own_table.py", str(out)]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def job(printed: str) -> list[str]:
    """The arguments of `workloads.train` that the example prints."""
    command = shlex.split(printed.rpartition("next: ")[2])
    return command[command.index("workloads.train") + 1 :]


def test_every_row_is_imported(job: list[str]) -> None:
    dataset = Dataset(job[1].removeprefix("dataset="))
    assert dataset.manifest.counts["products"] == 48
    assert dataset.manifest.photos_by_split == {"train": 24, "val": 12, "test": 12}
    assert not dataset.manifest.rejects_by_reason


def test_the_command_that_it_prints_trains(job: list[str]) -> None:
    config, *settings = job
    tree = override(read_yaml(ROOT / config), settings)
    recipe = recipes.find(tree["recipe"]).load(tree, config)
    assert recipe.plan(0).shape == (recipe.steps(0), 8)
    assert {"pixels"} <= recipe.collate(recipe.plan(0)[0], 0).keys()
