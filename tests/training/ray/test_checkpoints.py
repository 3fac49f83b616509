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
