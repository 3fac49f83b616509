from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from shoplens.errors import ShoplensError
from shoplens.evaluation.results import HEADLINES, Evaluation, Findings, Metric, MetricInfo
from shoplens.statistics.bootstrap import ratio


def _evaluation() -> Evaluation:
    rng = np.random.default_rng(0)
    return Evaluation.of(
        {"matching/image/recall@1": rng.random(40) < 0.7, "lonely/accuracy": np.ones(3), "empty/map": np.zeros(0)},
        {
            "matching/image/recall@1": rng.integers(9, size=40),
            "lonely/accuracy": np.zeros(3, int),
            "empty/map": np.zeros(0),
        },
        statistics={
            "matching/image/pair_f1": ratio(rng.random(40) < 0.3, np.ones(40), np.arange(40) % 9, np.arange(9)),
            "never/precision": ratio(np.zeros(9), np.zeros(9), np.arange(9), np.arange(9)),
        },
        chance={"matching/image/recall@1": 0.1, "matching/image/pair_f1": 0.2},
        lower_is_better={"lonely/accuracy"},
        described={
            "matching/image/recall@1": MetricInfo(title="recall@1", modality="image", headline=True),
            "matching/image/pair_f1": MetricInfo(task_title="Product matching", lower_is_better=True),
            "empty/map": MetricInfo(headline=True),
        },
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
    assert evaluation.metrics["lonely/accuracy"].lower_is_better


def test_a_statistic_has_an_interval_too_and_one_that_is_not_defined_is_left_out() -> None:
    evaluation = _evaluation()
    metric = evaluation.metrics["matching/image/pair_f1"]
    assert 0 < metric.low < metric.value < metric.high < 1
    assert (metric.n, metric.chance) == (40, 0.2)
    assert evaluation.draws["matching/image/pair_f1"].mean() == pytest.approx(metric.value)
    assert "never/precision" not in evaluation.metrics
    assert list(evaluation.metrics)[:2] == ["matching/image/recall@1", "matching/image/pair_f1"], "tasks stay together"


def test_an_interval_of_a_share_is_of_shares() -> None:
    """Also where two groups alone say next to nothing."""
    statistic = ratio(np.array([0.1, 0.9]), np.ones(2), np.arange(2), np.arange(2))
    metric = Evaluation.of({}, {}, statistics={"a/f1": statistic}).metrics["a/f1"]
    assert (metric.low, metric.high) == (0, 1)


def test_findings_of_several_tasks_make_one_evaluation() -> None:
    found, other = Findings(), Findings()
    found.add("a/recall@1", np.array([1.0, 0.0]), np.array([0, 1]), 0.3)
    found.about["thresholds"] = {"a": 0.5}
    other.add_statistic("b/f1", ratio(np.ones(4), np.ones(4) * 2, np.arange(4), np.arange(4)))
    other.about["thresholds"] = {"b": 0.7}
    found.include(other)
    evaluation = found.evaluation({"model": "eclip/3"})
    assert {name: metric.value for name, metric in evaluation.metrics.items()} == {"a/recall@1": 0.5, "b/f1": 0.5}
    assert evaluation.about == {"seed": 0, "model": "eclip/3", "thresholds": {"a": 0.5, "b": 0.7}}


def test_saved_is_loaded(tmp_path: Path) -> None:
    ours = _evaluation()
    ours.save(tmp_path / "a" / "b")
    theirs = Evaluation.load(tmp_path / "a" / "b")
    assert theirs.about == ours.about
    assert repr(theirs.metrics) == repr(ours.metrics)
    assert theirs.outcomes.keys() == ours.outcomes.keys() and theirs.draws.keys() == ours.draws.keys()
    for name in ours.metrics:
        np.testing.assert_array_equal(theirs.groups[name], ours.groups[name])
        kept, loaded = ((one.outcomes | one.draws)[name] for one in (ours, theirs))
        np.testing.assert_array_equal(loaded, kept)
        assert loaded.dtype == np.float64
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


def test_metrics_carry_their_descriptions() -> None:
    metrics = _evaluation().metrics
    assert (metrics["matching/image/recall@1"].title, metrics["matching/image/recall@1"].modality) == (
        "recall@1",
        "image",
    )
    assert metrics["matching/image/pair_f1"].task_title == "Product matching"
    assert metrics["matching/image/pair_f1"].lower_is_better and metrics["lonely/accuracy"].lower_is_better
    assert (metrics["lonely/accuracy"].title, metrics["lonely/accuracy"].unit) == ("", "share")


def test_headlines_are_metrics_that_exist_and_a_few_at_most() -> None:
    assert _evaluation().headline == ["matching/image/recall@1"]
    found = Findings()
    for k in range(5):
        found.add(f"a/recall@{k}", np.ones(3), np.arange(3), info=MetricInfo(headline=True))
    assert found.evaluation().headline == [f"a/recall@{k}" for k in range(HEADLINES)]


def test_an_evaluation_of_before_without_descriptions_is_loaded(tmp_path: Path) -> None:
    _evaluation().save(tmp_path)
    file = tmp_path / "evaluation.json"
    summary = json.loads(file.read_text())
    kept = ("value", "low", "high", "n", "chance", "lower_is_better")
    summary["metrics"] = {name: {key: one[key] for key in kept} for name, one in summary["metrics"].items()}
    file.write_text(json.dumps(summary))
    evaluation = Evaluation.load(tmp_path)
    metric = evaluation.metrics["matching/image/recall@1"]
    assert metric == Metric(metric.value, metric.low, metric.high, 40, 0.1) and not evaluation.headline
