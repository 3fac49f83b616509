"""Checkpoints of a run on Ray Train."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import ray.train
import torch
from torch import nn

from shoplens.errors import ShoplensError
from shoplens.training import state

SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray Train's record of the checkpoints that were reported, in the run's folder."""


class ReportedCheckpoints:
    """`training.loop.Checkpoints` of a Ray Train worker."""

    def __init__(self, rank: int) -> None:
        self._rank = rank

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return 0
        with checkpoint.as_directory() as folder:
            return state.load(Path(folder), model, optimizer, self._rank)

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            state.save(Path(folder), model, optimizer, step, self._rank)
            ray.train.report({"step": step}, checkpoint=ray.train.Checkpoint.from_directory(folder))


def latest(run_folder: Path, *, patience_s: float = 1.0) -> Path | None:
    """The last checkpoint that Ray Train has recorded for a run, or None.

    Ray writes its record in place, so an unreadable record is read again for `patience_s` seconds.
    Raises ShoplensError if it stays unreadable: Ray was killed while it wrote.
    """
    until = time.monotonic() + patience_s
    while True:
        try:
            snapshot = json.loads((run_folder / SNAPSHOT).read_text())
        except FileNotFoundError:
            return None
        except json.JSONDecodeError as error:
            if time.monotonic() > until:
                raise ShoplensError(
                    f"{run_folder / SNAPSHOT} was cut off in mid-writing: delete {run_folder} and give the command "
                    "again; the run begins anew and ends with the same numbers"
                ) from error
            time.sleep(0.02)
        else:
            result = snapshot.get("latest_checkpoint_result")
            return run_folder / result["checkpoint_dir_name"] if result else None


def sweep(run_folder: Path) -> list[Path]:
    """Deletes the checkpoints of a run that Ray Train's record does not name, and returns their folders.

    A process that was killed leaves them: before the record named them, or after it named newer ones. No process may
    train the run meanwhile. Raises ShoplensError as `latest` does.
    """
    latest(run_folder)
    try:
        named = _named(json.loads((run_folder / SNAPSHOT).read_text()))
    except FileNotFoundError:
        named = set()
    stale = [folder for folder in run_folder.glob("checkpoint_*") if folder.is_dir() and folder.name not in named]
    for folder in stale:
        shutil.rmtree(folder)
    return stale


def _named(record: Any) -> set[str]:
    """The folder names of all checkpoints in a record."""
    if isinstance(record, list):
        return set().union(*map(_named, record))
    if not isinstance(record, dict):
        return set()
    own = {record["checkpoint_dir_name"]} if "checkpoint_dir_name" in record else set()
    return own.union(*map(_named, record.values()))
