"""Recognition of restricted products (such as adult goods): one linear head, one threshold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from shoplens.evaluation.categories import mistakes
from shoplens.evaluation.embedded import MODALITIES, MODALITY_TITLES, EmbeddedSplit
from shoplens.evaluation.heads.probes import PRECISION, LinearHead
from shoplens.evaluation.metrics import TIE, average_precision, chance_average_precision, wrong_before
from shoplens.evaluation.results import Findings, MetricInfo
from shoplens.statistics.bootstrap import Statistic, divide, ratio
from shoplens.statistics.calibration import calibration_error, reliability, threshold_at_precision

RESTRICTED, FREE = "restricted", "free"
TITLE = "Restricted products"


def recognise(
    train: EmbeddedSplit,
    development: EmbeddedSplit,
    split: EmbeddedSplit,
    restricted: tuple[str, ...],
    *,
    precision: float = PRECISION,
) -> Findings:
    """`restricted/{image,text,fused}/` ap, recall@precision, precision@precision and ece.

    restricted  category path from the root; products at or below it are restricted
    precision   precision that the threshold reaches on `development`; the metrics are those of `split` at that
                threshold

    The result is empty unless `train` and `split` both hold restricted and free products. Without a restricted
    product in `development` there is no threshold, and only ap and ece are measured.
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
        info = MetricInfo(title="AP", task_title=TITLE, modality=modality)
        by_chance = chance_average_precision(np.array([truth.sum()]), np.array([len(truth)]))[0]
        ap = weighted_average_precision(margin, truth, unit, group)
        found.add_statistic(f"{name}/ap", ap, float(by_chance), info)
        probability = head.predict_proba(split.vectors(modality))[:, positive]
        error = replace(info, title="calibration error", lower_is_better=True)
        found.add_statistic(f"{name}/ece", calibration_error(probability, truth, unit, group), info=error)
        found.titles[name] = f"{TITLE}, {MODALITY_TITLES[modality]}"
        found.about.setdefault("reliability", {})[name] = reliability(probability, truth)
        theirs = truths["development"][development.rows(modality)]
        if not theirs.any():
            continue
        scores = head.predict_proba(development.vectors(modality))[:, positive]
        threshold = threshold_at_precision(scores, theirs, precision)
        said = probability >= threshold
        recall = replace(info, title="recall at the threshold")
        found.add_statistic(f"{name}/recall@precision", ratio(said & truth, truth, unit, group), info=recall)
        share, precise = float(truth.mean()), replace(info, title="precision at the threshold")
        found.add_statistic(f"{name}/precision@precision", ratio(said & truth, said, unit, group), share, precise)
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
    """AP of ranking the positive rows [n] before the others. A tie counts against the model."""
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
