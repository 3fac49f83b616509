"""A curation on Ray: its bytes are those of one process, whatever the number of workers and whoever is killed."""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from shoplens.curation.pipeline.curate import Part, Work, curate
from shoplens.curation.pipeline.learned import Models
from shoplens.errors import ShoplensError
from tests.curation.pipeline.raw import content, run, settings, write_raw
from workloads.parts import in_parts


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raw(tmp_path_factory.mktemp("raw") / "raw", documents=40)


@pytest.fixture(scope="module")
def undisturbed(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    run(settings(raw, out))
    return content(out)


def on_ray(raw: Path, out: Path, workers: int) -> dict[str, bytes]:
    def do(
        work: Work | None, parts: Sequence[Part], what: str, total: int, prepare: Callable[[], Work] | None = None
    ) -> None:
        assert in_parts(work, parts, lambda done: None, workers=workers, prepare=prepare) == total

    curate(settings(raw, out), {}, Models, do)
    return content(out)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_no_byte(
    ray_local: None, raw: Path, undisturbed: dict[str, bytes], tmp_path: Path, workers: int
) -> None:
    assert on_ray(raw, tmp_path / "out", workers) == undisturbed


def test_a_worker_that_is_killed_changes_no_byte(
    ray_local: None, raw: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill() -> None:
        while not any((tmp_path / "out.signals/photos").glob("*.parquet")):
            time.sleep(0.005)
        for process in psutil.Process().children(recursive=True):
            if "ray::" in " ".join(process.cmdline()) and "Map" in " ".join(process.cmdline()):
                process.send_signal(signal.SIGKILL)
                killed.append(process.pid)
                return

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    assert on_ray(raw, tmp_path / "out", workers=2) == undisturbed
    killer.join(timeout=5)
    assert killed, "a worker was to be killed while it measured"


def fail(error: BaseException, part: Part) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ShoplensError("the photo has changed"), "the photo has changed"),
        (OSError(28, "No space left on device", "/data/x"), "the disk is full at /data/x: make room, and run"),
    ],
)
def test_what_stops_a_part_is_told_in_a_sentence(ray_local: None, error: BaseException, said: str) -> None:
    with pytest.raises(ShoplensError, match=said):
        in_parts(partial(fail, error), [{"part": 0}, {"part": 1}], lambda done: None)


def test_an_error_of_the_program_keeps_its_trace(ray_local: None) -> None:
    with pytest.raises(Exception, match="division"):
        in_parts(partial(fail, ZeroDivisionError("division")), [{"part": 0}], lambda done: None)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["curate", *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("workloads.curate", run_name="__main__")
    return end.value.code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["raw=x"], "name the configuration first"),
        (["workloads/configs/curation.yaml"], "add raw=DIR and out=DIR"),
        (["workloads/configs/curation.yaml", "raw=nowhere", "out=x"], "raw.photos: Field required"),
        (["workloads/configs/curation.yaml", "raw=nowhere", "out=x", "photo.whit=0.5"], "did you mean white"),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert call(monkeypatch, *arguments) == 2
    assert said in capsys.readouterr().err


def test_a_disk_that_is_full_leaves_nothing_half_written(raw: Path, tmp_path: Path) -> None:
    """On a real file system of one megabyte, where this process may mount one."""
    small = tmp_path / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=400k none {small} 2>/dev/null"):
        pytest.skip("no file system may be mounted here")
    try:
        with pytest.raises(Exception, match="(?i)space|full"):
            run(settings(raw, tmp_path / "out", signals=str(small / "signals")))
        assert not list(small.rglob("*.part"))
        assert not (tmp_path / "out").exists()
        os.system(f"mount -o remount,size=200m {small}")
        config: Any = settings(raw, tmp_path / "out", signals=str(small / "signals"))
        run(config)
        assert (tmp_path / "out/manifest.json").exists()
    finally:
        os.system(f"umount {small}")
