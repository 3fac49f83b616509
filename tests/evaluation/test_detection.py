from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from shoplens.evaluation.detection import auc, judge_scores
from shoplens.statistics.bootstrap import draw

rows = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=40)


@given(rows=rows, seed=st.integers(0, 99))
def test_auc_is_sklearns_and_that_of_repeated_rows_under_a_draw(rows: list[tuple[int, bool]], seed: int) -> None:
    score, truth = np.array([s for s, _ in rows]) / 8, np.array([t for _, t in rows])
    group = np.random.default_rng(seed).integers(0, 5, len(rows))
    found = auc(score, truth, group)
    if truth.all() or not truth.any():
        assert np.isnan(found.value)
        return
    assert found.value == pytest.approx(roc_auc_score(truth, score))
    times = np.random.default_rng(seed + 1).integers(0, 3, int(group.max()) + 1)
    again = np.repeat(np.arange(len(rows)), times[group])
    if len(set(truth[again])) == 2:
        expected = roc_auc_score(truth[again], score[again])
        assert found.under(times[None].astype(float))[0] == pytest.approx(expected)


def test_figures_at_a_cut_are_sklearns() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(300) < 0.4
    score = np.clip(0.3 * truth + rng.random(300) * 0.7, 0, 1)
    evaluation = judge_scores(score, truth, np.arange(300) // 2 * 7, 0.5, "marks", "Marks").evaluation()
    value = {name: metric.value for name, metric in evaluation.metrics.items()}
    assert value["marks/auc"] == pytest.approx(roc_auc_score(truth, score))
    assert value["marks/precision"] == pytest.approx(precision_score(truth, score >= 0.5))
    assert value["marks/recall"] == pytest.approx(recall_score(truth, score >= 0.5))
    assert value["marks/false_alarms"] == pytest.approx((score[~truth] >= 0.5).mean())
    assert evaluation.metrics["marks/false_alarms"].lower_is_better
    assert all(metric.low < metric.value < metric.high for metric in evaluation.metrics.values())
    drawn = draw(auc(score, truth, np.arange(300)))
    assert drawn.std() == pytest.approx(0.026, abs=0.012)
