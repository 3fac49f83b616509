"""Figures of a detector: scores against a yes or no that is known."""

from __future__ import annotations

import numpy as np

from shoplens.evaluation.results import Findings, MetricInfo
from shoplens.statistics.bootstrap import Statistic, divide, ratio


def auc(score: np.ndarray, truth: np.ndarray, group: np.ndarray) -> Statistic:
    """Area under the ROC curve: how often a row that is true has the higher score than one that is not; ties count half.

    score   [n]
    truth   bool [n]
    group   int64 [n] bootstrap codes 0 to g-1

    The value is nan if all rows are true, or none is.
    """
    codes = np.unique(score, return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    true, of = np.asarray(truth, bool)[order], group[order]

    def under(drawn: np.ndarray) -> np.ndarray:
        weight = drawn[:, of]
        yes, no = (np.add.reduceat(weight * kind, starts, axis=1) for kind in (true, ~true))
        below = np.cumsum(no, axis=1) - no / 2
        return divide((yes * below).sum(axis=1), yes.sum(axis=1) * no.sum(axis=1))

    n_groups = int(group.max()) + 1
    return Statistic(float(under(np.ones((1, n_groups)))[0]), len(score), group, under, (0.0, 1.0))


def judge_scores(
    score: np.ndarray, truth: np.ndarray, group: np.ndarray, cut: float, task: str, title: str
) -> Findings:
    """`TASK/auc`, and at the cut `TASK/precision`, `recall` and `false_alarms` (of rows that are not true).

    score   [n]; a row is found if its score is at least `cut`
    truth   bool [n]
    group   int64 [n] codes of rows that succeed and fail together
    """
    group = np.unique(group, return_inverse=True)[1]
    found, truth, said = Findings(), np.asarray(truth, bool), score >= cut

    def info(name: str, headline: bool = False, lower: bool = False) -> MetricInfo:
        return MetricInfo(title=name, task_title=title, headline=headline, lower_is_better=lower)

    base = float(truth.mean())
    found.add_statistic(f"{task}/auc", auc(score, truth, group), 0.5, info("area under the ROC curve", True))
    hits = said & truth
    found.add_statistic(f"{task}/precision", ratio(hits, said, group, group), base, info("precision at the cut", True))
    found.add_statistic(f"{task}/recall", ratio(hits, truth, group, group), None, info("recall at the cut", True))
    alarms = ratio(said & ~truth, ~truth, group, group)
    found.add_statistic(f"{task}/false_alarms", alarms, None, info("false alarms at the cut", lower=True))
    found.about["counts"] = {"photos": len(score), "marked": int(truth.sum())}
    return found
