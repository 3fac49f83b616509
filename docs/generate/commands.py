"""The `shoplens` command and the jobs, as their own `--help` describes them."""

from __future__ import annotations

import os
import pkgutil
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import typer
from typer.cli import get_docs_for_click
from typer.main import get_command

import workloads
from shoplens.cli import app


def pages(root: Path) -> list[tuple[str, str, str]]:
    return [("shoplens", "shoplens", command()), ("Jobs", "jobs", jobs(root))]


def command() -> str:
    top = get_command(app)
    return get_docs_for_click(obj=top, ctx=typer.Context(top, info_name="shoplens"), name="shoplens")


def jobs(root: Path) -> str:
    """A section a job: what `python -m workloads.NAME --help` prints."""
    names = [
        module.name
        for module in pkgutil.iter_modules(workloads.__path__)
        if re.search(r"^def main\(", Path(workloads.__path__[0], f"{module.name}.py").read_text("utf-8"), re.MULTILINE)
    ]
    with ThreadPoolExecutor(2) as threads:
        helps = threads.map(lambda name: _help(name, root), names)
        sections = [f"## workloads.{name}\n\n```text\n{said}\n```\n" for name, said in zip(names, helps, strict=True)]
    start = "# Jobs\n\nA job runs on the cluster: `ray job submit --working-dir . -- python -m workloads.NAME ...`.\n"
    return "\n".join([start, *sections])


def _help(name: str, root: Path) -> str:
    path = os.pathsep.join([str(root), str(root / "platform"), *filter(None, [os.environ.get("PYTHONPATH")])])
    plain = {"PYTHONPATH": path, "COLUMNS": "110", "NO_COLOR": "1", "TERM": "dumb"}
    ran = subprocess.run(
        [sys.executable, "-m", f"workloads.{name}", "--help"],
        cwd=root,
        env={**os.environ, **plain},
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout.strip()
