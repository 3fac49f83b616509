"""The command on a log on disk, as a user types it."""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shoplens.experiments.event_log import EventLog
from shoplens.experiments.events import Event
from shoplens.experiments.verdict import Plan
from tests.experiments.traffic import HOSTILE, traffic


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment in the folders of two writers, and in `before` the time before."""
    root = tmp_path_factory.mktemp("log")
    for name, month in (("during", 3), ("before", 2)):
        events = traffic(month, (550, 560), month=month, lift=0.5).to_pylist()
        for replica in range(2):
            with EventLog(root / name, f"replica-{replica}") as writer:
                writer.append([Event.model_validate(event) for event in events[replica::2]])
    return root


@pytest.fixture
def analyze(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[object, str, str]]:
    """Runs the command in an empty folder: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("SHOPLENS_STORAGE", raising=False)

    def call(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["analyze_ab", *arguments])
        code: object = 0
        try:
            runpy.run_module("workloads.analyze_ab", run_name="__main__")
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return call


def test_table_verdict_next_command_and_files(
    log: Path, tmp_path: Path, analyze: Callable[..., tuple[object, str, str]]
) -> None:
    arms = ["--control", "old", "--treatment", "new", "--before", str(log / "before")]
    plan = ["surface=similar", "planned_lift=0.2", "margins.spend=0.6"]
    code, said, errors = analyze(str(log / "during"), *arms, *plan)
    assert (code, errors) == (0, "")
    (folder,) = (tmp_path / ".shoplens/experiments").iterdir()
    assert {path.name for path in folder.iterdir()} == {"analysis.json", "report.html"}
    told = json.loads((folder / "analysis.json").read_text())
    assert told["users"] == [550, 560]
    assert told["verdict"] == "better"
    assert told["plan"]["margins"] == {"spend": 0.6, "whole_page_ctr": 0.02}
    assert told["said"] in said
    assert told["next"]["command"].startswith("shoplens promote eclip 3")
    assert said.rstrip().endswith(told["next"]["command"])
    shown = [line for line in said.splitlines() if line.startswith("page_ctr")]
    assert len(shown) == 1
    assert max(map(len, shown)) <= 80
    assert f"{100 * told['rows'][0]['lift']:+.1f}" in shown[0]
    page = (folder / "report.html").read_text()
    assert HOSTILE not in page
    assert told["said"] in page

    assert analyze(str(log / "during"), *arms, "--out", "elsewhere", "planned_lift=0.001")[0] == 0
    told = json.loads((tmp_path / "elsewhere/analysis.json").read_text())
    assert told["verdict"] == "open"
    assert told["next"]["command"].endswith("--out elsewhere planned_lift=0.001")


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_names_the_options_and_the_settings(analyze: Callable[..., tuple[object, str, str]], option: str) -> None:
    code, said, _ = analyze(option)
    assert code == 0
    for name in ("LOG", "--control", "--treatment", "--experiment", "--before", "--out", "key=value"):
        assert f" {name} " in said
    settings = set(re.findall(r"^  (\w+)(?:[.]\w+)?=", said, re.MULTILINE))
    assert len(settings) == 6 and settings <= set(Plan.model_fields)


def test_options_and_settings_that_are_missing_are_named(analyze: Callable[..., tuple[object, str, str]]) -> None:
    for arguments, said in [((), "LOG"), (("LOG",), "--control"), (("LOG", "--befor", "x"), "--before")]:
        code, _, errors = analyze(*arguments)
        assert code == 2
        assert said in errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "there is no event log nowhere"),
        (["LOG", "primry=ctr"], "primry: unknown key; did you mean primary?"),
        (["LOG", "--treatment", "newer"], "no user was logged in the arm 'newer'; the arms in the log: new, old"),
        (["LOG", "--out", "LOG/../file/x"], "name a folder with --out"),
    ],
)
def test_mistakes_are_one_sentence(
    log: Path, tmp_path: Path, analyze: Callable[..., tuple[object, str, str]], arguments: list[str], said: str
) -> None:
    (log / "file").touch()
    given = [argument.replace("LOG", str(log / "during")) for argument in arguments]
    code, _, errors = analyze("--control", "old", "--treatment", "new", *given)
    assert code == 2
    assert errors.startswith("error: ")
    assert said in errors
    assert not list(tmp_path.glob("**/*.json"))
