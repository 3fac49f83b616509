"""The progress of a run without a terminal: lines, now and then."""

from __future__ import annotations

import threading
import time

import pytest
import ray

from shoplens.training.ray import progress


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "POLL_S", 0.02)


def told(ahead: ray.actor.ActorHandle, step: int, samples_per_second: float) -> None:
    ray.get(ahead.set.remote(step, samples_per_second))


def test_a_line_at_the_start_and_one_at_the_end(
    ray_local: None, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.shown(40) as ahead:
        told(ahead, 3, 12.6)
        time.sleep(0.5)
        told(ahead, 4, 20)  # within LINE_EVERY_S of the line before
        time.sleep(0.5)
        told(ahead, 40, 250)
    printed = capsys.readouterr()
    lines = [line.split() for line in printed.out.splitlines()]
    assert lines == [
        ["training", "3/40", "steps", "8", "%", "13", "samples/s"],
        ["training", "40/40", "steps", "100", "%", "250", "samples/s"],
    ]
    assert "training:" not in printed.err, "a bar is for terminals"


def test_a_line_comes_again_after_a_while(
    ray_local: None, quick: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.1)
    with progress.shown(10) as ahead:
        told(ahead, 1, 5)
        time.sleep(1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 2 and len(set(lines)) == 1


def test_a_run_that_fails_before_its_first_step_says_nothing(
    ray_local: None, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="no data"), progress.shown(40):
        raise RuntimeError("no data")
    assert threading.active_count() == before
    assert capsys.readouterr().out == ""
