"""The command on a log on disk, as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shoplens.experiments.event_log import EventLog
from shoplens.experiments.events import validated
from tests.experiments.traffic import HOSTILE, traffic


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment in the folders of two writers, and in `before` the time before."""
    root = tmp_path_factory.mktemp("log")
    for name, month in (("during", 3), ("before", 2)):
        events = traffic(month, (550, 560), month=month, lift=0.5).to_pylist()
        for replica in range(2):
            with EventLog(root / name, f"replica-{replica}") as writer:
                writer.append(validated(events[replica::2]))
    return root


def analyze(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)), "COLUMNS": "80"}
    environment.pop("SHOPLENS_STORAGE", None)
    command = [sys.executable, "-m", "workloads.analyze_ab", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_table_verdict_next_command_and_files(log: Path, tmp_path: Path) -> None:
    arms = ["--control", "old", "--treatment", "new", "--before", str(log / "before")]
    plan = ["surface=similar", "planned_lift=0.2", "margins.spend=0.6"]
    done = analyze(str(log / "during"), *arms, *plan, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (folder,) = (tmp_path / ".shoplens/experiments").iterdir()
    assert {path.name for path in folder.iterdir()} == {"analysis.json", "report.html"}
    told = json.loads((folder / "analysis.json").read_text())
    assert told["users"] == [550, 560]
    assert told["verdict"] == "better"
    assert told["plan"]["margins"] == {"spend": 0.6, "whole_page_ctr": 0.02}
    assert told["said"] in done.stdout
    assert told["next"]["command"].startswith("shoplens promote eclip 3")
    assert done.stdout.rstrip().endswith(told["next"]["command"])
    shown = [line for line in done.stdout.splitlines() if line.startswith("page_ctr")]
    assert len(shown) == 1
    assert max(map(len, shown)) <= 80
    assert f"{100 * told['rows'][0]['lift']:+.1f}" in shown[0]
    page = (folder / "report.html").read_text()
    assert HOSTILE not in page
    assert told["said"] in page

    again = analyze(str(log / "during"), *arms, "--out", "elsewhere", "planned_lift=0.001", cwd=tmp_path)
    told = json.loads((tmp_path / "elsewhere/analysis.json").read_text())
    assert told["verdict"] == "open"
    assert told["next"]["command"].endswith("--out elsewhere planned_lift=0.001")
    assert again.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "there is no event log nowhere"),
        (["LOG", "primry=ctr"], "primry: unknown key; did you mean primary?"),
        (["LOG", "--treatment", "newer"], "no user was logged in the arm 'newer'; the arms in the log: new, old"),
        (["LOG", "--out", "LOG/../file/x"], "name a folder with --out"),
    ],
)
def test_mistakes_are_one_sentence(log: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    (log / "file").touch()
    given = [argument.replace("LOG", str(log / "during")) for argument in arguments]
    done = analyze("--control", "old", "--treatment", "new", *given, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("**/*.json"))
