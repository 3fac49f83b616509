"""What the command says before it has embedded anything, as a user types it."""

from __future__ import annotations

import re
import runpy
import sys

import pytest

from workloads.job import _minutes, lines


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """The exit code."""
    monkeypatch.setattr(sys, "argv", ["build_index", *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("workloads.build_index", run_name="__main__")
    return end.value.code


def test_help_names_the_settings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--help") == 0
    said = capsys.readouterr().out
    for setting in (
        "dataset=",
        "splits=",
        "storage=",
        "components.duplicate_bits=",
        "rings=",
        "rings.nearest=",
        "approximate.recall=",
    ):
        assert f"  {setting}" in said
    assert max(map(len, said.splitlines())) <= 120


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "dataset: Field required"),
        (["dataset=nowhere"], "nowhere is not a dataset"),
        (["dataset=x", "storag=int8"], "storag: unknown key; did you mean storage?"),
        (["dataset=x", "rings.neares=3"], "rings.neares: unknown key; did you mean nearest?"),
        (["dataset=x", "rings=3"], "rings: "),
        (["dataset=x", "approximate.recall=1"], "approximate.recall: "),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert call(monkeypatch, "--model", "eclip/1", *arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert said in errors


def test_lines_come_now_and_then_and_in_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    seldom, always = lines("embedding", "photos", 200, every_s=1000), lines("embedding", "photos", 200, every_s=-1)
    for done in (8, 100, 200):
        seldom(done)
    assert re.fullmatch(r"embedding  200/200 photos  100 %  [\d,]+/s\n", capsys.readouterr().out)
    always(8)
    assert re.fullmatch(r"embedding    8/200 photos    4 %  [\d,]+/s, \d+ s left\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3540, "59 min"), (7500, "2 h 5 min")]
)
def test_times_are_told_as_people_do(seconds: float, told: str) -> None:
    assert _minutes(seconds) == told
