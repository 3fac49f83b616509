"""How long each part of a job takes."""

from __future__ import annotations

import time

import psutil
import pytest

from shoplens.training.parts import Parts


def test_the_first_part_begins_with_the_process_and_each_other_where_the_last_ended() -> None:
    began = psutil.Process().create_time()
    parts = Parts()
    parts.end("imports", at=began + 2)
    parts.end("steps", at=began + 5)
    parts.end("evaluation", at=began + 6)
    parts.end("steps", at=began + 8)
    assert parts.seconds == pytest.approx({"imports": 2, "steps": 5, "evaluation": 1})
    assert str(parts) == "imports 2 s, steps 5 s, evaluation 1 s"
    parts.end("now")
    assert sum(parts.seconds.values()) == pytest.approx(time.time() - began, abs=1)
