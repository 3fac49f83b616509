"""Figures of the answers that heads give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from shoplens.evaluation.embedded import MODALITY_TITLES, Modality
from shoplens.evaluation.results import Findings, MetricInfo
from shoplens.statistics.bootstrap import Statistic, divide, ratio, totals
from shoplens.statistics.calibration import calibration_error, reliability

MACRO_F1_TITLE = "macro-F1, mean over keys"


def judge_answers(
    found: Findings,
    task: str,
    task_title: str,
    modality: Modality,
    answered: Sequence[np.ndarray],
    right: Sequence[np.ndarray],
    confidence: Sequence[np.ndarray],
    unit_group: Sequence[np.ndarray],
    group: np.ndarray,
) -> None:
    """Adds `TASK/MODALITY/` coverage, precision and ece over the answers to all keys; one array [rows] for each key."""
    name, title = f"{task}/{modality}", f"{task_title}, {MODALITY_TITLES[modality]}"
    units, gave, hit = np.concatenate(unit_group), np.concatenate(answered), np.concatenate(right)
    sure = np.concatenate(confidence)
    info = MetricInfo(title="answered", task_title=task_title, modality=modality)
    found.add_statistic(f"{name}/coverage", ratio(gave, np.ones_like(gave), units, group), info=info)
    precise = replace(info, title="right where answered")
    found.add_statistic(f"{name}/precision", ratio(gave & hit, gave, units, group), info=precise)
    error = replace(info, title="calibration error", lower_is_better=True)
    found.add_statistic(f"{name}/ece", calibration_error(sure, hit, units, group), info=error)
    found.titles[name] = title
    found.about.setdefault("reliability", {})[name] = reliability(sure, hit)


def macro_f1(truth: np.ndarray, said: np.ndarray, unit_group: np.ndarray, group: np.ndarray) -> Statistic:
    """Mean F1 over the values that occur in `truth` [n].

    truth   codes of values; -1 for a value that the head does not know
    said    codes of the answers [n]

    A draw's mean leaves out values that the draw does not hold.
    """
    n_groups, present = int(group.max()) + 1, np.unique(truth[truth >= 0])
    true, answer = truth[:, None] == present, said[:, None] == present
    of_group = [totals(part, unit_group, n_groups) for part in (true & answer, true, answer)]

    def under(drawn: np.ndarray) -> np.ndarray:
        hits, held, given = (drawn @ part for part in of_group)
        f1 = np.where(held > 0, divide(2 * hits, held + given), 0)
        return divide(f1.sum(axis=1), (held > 0).sum(axis=1))

    return Statistic(float(under(np.ones((1, n_groups)))[0]), len(truth), group, under)
