from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from shoplens.errors import ShoplensError
from shoplens.evaluation.evaluation import Evaluation


def _evaluation() -> Evaluation:
    rng = np.random.default_rng(0)
    return Evaluation.of(
        {"matching/image/recall@1": rng.random(40) < 0.7, "lonely/accuracy": np.ones(3), "empty/map": np.zeros(0)},
        {
            "matching/image/recall@1": rng.integers(9, size=40),
            "lonely/accuracy": np.zeros(3, int),
            "empty/map": np.zeros(0),
        },
        chance={"matching/image/recall@1": 0.1},
        about={"model": "eclip/3", "dataset": "콩두부"},
        seed=7,
    )


def test_means_intervals_and_chance() -> None:
    evaluation = _evaluation()
    metric = evaluation.metrics["matching/image/recall@1"]
    assert metric.value == evaluation.outcomes["matching/image/recall@1"].mean()
    assert metric.low < metric.value < metric.high
    assert (metric.n, metric.chance) == (40, 0.1)
    assert evaluation.about["seed"] == 7
    assert math.isnan(evaluation.metrics["lonely/accuracy"].low)
    assert "empty/map" not in evaluation.metrics


def test_saved_is_loaded(tmp_path: Path) -> None:
    ours = _evaluation()
    ours.save(tmp_path / "a" / "b")
    theirs = Evaluation.load(tmp_path / "a" / "b")
    assert theirs.about == ours.about
    assert repr(theirs.metrics) == repr(ours.metrics)
    for name in ours.metrics:
        np.testing.assert_array_equal(theirs.outcomes[name], ours.outcomes[name])
        np.testing.assert_array_equal(theirs.groups[name], ours.groups[name])
        assert theirs.outcomes[name].dtype == np.float64
        assert theirs.groups[name].dtype == np.int64
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["evaluation.json", "outcomes.npz"]


def test_a_torn_or_missing_evaluation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShoplensError, match="holds no evaluation"):
        Evaluation.load(tmp_path)
    _evaluation().save(tmp_path)
    packed = tmp_path / "outcomes.npz"
    packed.write_bytes(packed.read_bytes()[:-1])
    with pytest.raises(ShoplensError, match="does not belong"):
        Evaluation.load(tmp_path)
    (tmp_path / "evaluation.json").write_text("{")
    with pytest.raises(ShoplensError, match="damaged"):
        Evaluation.load(tmp_path)
