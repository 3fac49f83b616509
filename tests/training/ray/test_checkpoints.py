"""The checkpoints that Ray Train has recorded."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from shoplens.errors import ShoplensError
from shoplens.training.ray import checkpoints


def test_a_record_of_checkpoints_in_mid_writing_is_waited_for(tmp_path: Path) -> None:
    record = tmp_path / checkpoints.SNAPSHOT
    record.write_text("")
    with pytest.raises(ShoplensError, match="cut off in mid-writing"):
        checkpoints.latest(tmp_path, patience_s=0.1)
    whole = json.dumps({"latest_checkpoint_result": {"checkpoint_dir_name": "c7"}})
    writer = threading.Timer(0.2, record.write_text, (whole,))
    writer.start()
    assert checkpoints.latest(tmp_path, patience_s=30) == tmp_path / "c7"


def test_checkpoints_that_no_record_names_are_swept(tmp_path: Path) -> None:
    for name in ("checkpoint_1", "checkpoint_2", "checkpoint_3", "checkpoint_4", "mined"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.pt").write_bytes(b"x")
    record = {
        "checkpoint_results": [{"checkpoint_dir_name": "checkpoint_2", "metrics": {"step": 2}}],
        "latest_checkpoint_result": {"checkpoint_dir_name": "checkpoint_3", "metrics": {}},
    }
    (tmp_path / checkpoints.SNAPSHOT).write_text(json.dumps(record))
    assert {folder.name for folder in checkpoints.sweep(tmp_path)} == {"checkpoint_1", "checkpoint_4"}
    kept = {"checkpoint_2", "checkpoint_3", "mined"}
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == kept
    assert checkpoints.sweep(tmp_path) == [] == checkpoints.sweep(tmp_path / "new")
    (tmp_path / checkpoints.SNAPSHOT).unlink()
    checkpoints.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"mined"}
