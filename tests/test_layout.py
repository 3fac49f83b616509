"""`platform/` is a folder of sources, never a package: the standard library owns that name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ASK = "import platform; print(platform.system(), platform.__file__)"


def test_platform_is_not_a_package() -> None:
    assert (ROOT / "platform" / "shoplens" / "__init__.py").is_file()
    assert not (ROOT / "platform" / "__init__.py").exists()


@pytest.mark.parametrize("python_path", ["", ".", f"{ROOT}", f"{ROOT}{os.pathsep}{ROOT / 'platform'}"])
def test_import_platform_is_the_standard_library(python_path: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert answer[0] == os.uname().sysname
    assert not Path(answer[1]).is_relative_to(ROOT / "platform")


def test_import_platform_in_a_ray_worker(ray_local: None) -> None:
    import ray

    @ray.remote(num_cpus=0.1, runtime_env={"env_vars": {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'platform'}"}})
    def where() -> tuple[str, str]:
        import platform

        import shoplens

        return str(platform.__file__), str(shoplens.__file__)

    standard, ours = ray.get(where.remote())
    assert not Path(standard).is_relative_to(ROOT / "platform")
    assert Path(ours).is_relative_to(ROOT / "platform")
