"""Checkpoints of a run on Ray Train."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

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
