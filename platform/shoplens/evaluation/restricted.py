"""Recognising restricted products (adult goods and the like): one linear head, one threshold."""

from __future__ import annotations

import numpy as np

from shoplens.evaluation.categories import mistakes
from shoplens.evaluation.embedded import MODALITIES, EmbeddedSplit
from shoplens.evaluation.heads.probes import PRECISION, LinearHead
from shoplens.evaluation.metrics import TIE, average_precision, chance_average_precision, wrong_before
from shoplens.evaluation.results import Findings
from shoplens.statistics.bootstrap import Statistic, divide, ratio
from shoplens.statistics.calibration import calibration_error, reliability, threshold_at_precision

RESTRICTED, FREE = "restricted", "free"


def recognise(
    train: EmbeddedSplit,
    development: EmbeddedSplit,
    split: EmbeddedSplit,
    restricted: tuple[str, ...],
    *,
    precision: float = PRECISION,
) -> Findings:
    """`restricted/{image,text,fused}/` ap, recall@precision, precision@precision and ece.

    restricted  path from the root; products at it or below it are restricted
    precision   what the threshold reaches on `development`; recall and precision are those of `split` there

    Nothing is found without products of both kinds in `train` and in `split`; without a restricted product in
    `development` there is no threshold and only ap and ece are.
    """
    found = Findings()
    truths = {
        name: np.array([path[: len(restricted)] == restricted for path in one.path_of_product])
        for name, one in (("train", train), ("development", development), ("split", split))
    }
    if any(len(np.unique(truths[name])) < 2 for name in ("train", "split")):
        return found
    group = split.catalog_of_product

    def labels(name: str, rows: np.ndarray) -> list[str | None]:
        return [RESTRICTED if truth else FREE for truth in truths[name][rows]]

    for modality in MODALITIES:
        name, rows = f"restricted/{modality}", split.rows(modality)
        head = LinearHead.fit(
            train.vectors(modality),
            labels("train", train.rows(modality)),
            development.vectors(modality),
            labels("development", development.rows(modality)),
        )
        positive = head.values.index(RESTRICTED)
        truth, unit = truths["split"][rows], group[rows]
        logits = head.logits(split.vectors(modality)).astype(np.float64)
        margin = logits[:, positive] - logits[:, 1 - positive]
        by_chance = chance_average_precision(np.array([truth.sum()]), np.array([len(truth)]))[0]
        found.add_statistic(f"{name}/ap", weighted_average_precision(margin, truth, unit, group), float(by_chance))
        probability = head.predict_proba(split.vectors(modality))[:, positive]
        found.add_statistic(f"{name}/ece", calibration_error(probability, truth, unit, group))
        found.lower_is_better.add(f"{name}/ece")
        found.about.setdefault("reliability", {})[name] = reliability(probability, truth)
        theirs = truths["development"][development.rows(modality)]
        if not theirs.any():
            continue
        scores = head.predict_proba(development.vectors(modality))[:, positive]
        threshold = threshold_at_precision(scores, theirs, precision)
        said = probability >= threshold
        found.add_statistic(f"{name}/recall@precision", ratio(said & truth, truth, unit, group))
        share = float(truth.mean())
        found.add_statistic(f"{name}/precision@precision", ratio(said & truth, said, unit, group), share)
        found.about.setdefault("thresholds", {})[name] = threshold
        found.about.setdefault("mistakes", {})[name] = mistakes(
            np.arange(len(rows)),
            np.where(said, probability, 1 - probability),
            said == truth,
            [RESTRICTED if one else FREE for one in said],
            [RESTRICTED if one else FREE for one in truth],
        )
    found.about["restricted"] = {
        "below": " › ".join(restricted),
        "precision_asked": precision,
        **{f"in_{name}": int(truth.sum()) for name, truth in truths.items()},
    }
    return found


def weighted_average_precision(
    score: np.ndarray, positive: np.ndarray, unit_group: np.ndarray, group: np.ndarray
) -> Statistic:
    """AP of ranking the positive rows [n] first, ties against the model."""
    right = np.sort(score[positive])[::-1]
    value = average_precision(wrong_before(right, np.sort(score[~positive])))
    order = np.lexsort((positive, -np.where(positive, score - TIE, score)))
    hit, of_row = positive[order], unit_group[order]

    def under(drawn: np.ndarray) -> np.ndarray:
        weight = drawn[:, of_row]
        hits, rank = np.cumsum(weight * hit, axis=1), np.cumsum(weight, axis=1)
        middle = (weight - 1) * hit / 2
        precision = divide(hits - middle, rank - middle)
        return divide(np.nansum(precision * weight * hit, axis=1), hits[:, -1])

    return Statistic(value, len(score), group, under)
