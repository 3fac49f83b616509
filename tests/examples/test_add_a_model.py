"""The plug-in of the examples: its own tests pass, and once installed its recipe is known by name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

PLUGIN = ROOT / "examples/add_a_model"


def run(*command: str, path: Path = PLUGIN) -> str:
    places = [str(path), str(ROOT), str(ROOT / "platform"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


def install(folder: Path) -> Path:
    """Installs the plug-in as pip does, into a folder of its own; the folder, to be put on PYTHONPATH."""
    sources, out = folder / "sources", folder / "installed"
    shutil.copytree(PLUGIN, sources)
    run("-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-t", str(out), str(sources))
    return out


def test_its_own_tests_pass() -> None:
    assert "4 passed" in run("-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider", str(PLUGIN / "tests"))


def test_an_installed_recipe_is_known_by_name(tmp_path: Path) -> None:
    installed = install(tmp_path)
    found = run("-c", "from shoplens import recipes; print(recipes.find('category').Config.__name__)", path=installed)
    assert found.split()[-1] == "CategoryConfig"
