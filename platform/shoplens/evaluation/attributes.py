"""Attribute extraction: the colour, material, gender, ... of a product, by one linear head for each key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from shoplens.evaluation.embedded import MODALITIES, MODALITY_TITLES, EmbeddedSplit, Modality
from shoplens.evaluation.heads.answers import MACRO_F1_TITLE, judge_answers, macro_f1
from shoplens.evaluation.heads.probes import PRECISION, AttributeHeads, LinearHead
from shoplens.evaluation.heads.vocabulary import Vocabulary, fit_heads, single_values, vocabularies, vocabularies_of
from shoplens.evaluation.results import Findings, MetricInfo
from shoplens.statistics.bootstrap import mean_of

TITLES = {"attributes": "Attributes, by linear heads", "attributes_zero_shot": "Attributes, by the nearest prompt"}

Encode = Callable[[Sequence[str]], np.ndarray]
"""Texts -> float32 unit vectors [n, d]."""


def extract(
    train: EmbeddedSplit,
    development: EmbeddedSplit,
    split: EmbeddedSplit,
    encode: Encode,
    *,
    prompt: str = "{value}",
    precision: float = PRECISION,
    heads: Mapping[Modality, AttributeHeads] | None = None,
    beside: Findings | None = None,
) -> Findings:
    """`attributes/{image,text,fused}/` macro_f1, coverage, precision, ece over all keys, and `macro_f1:KEY` of each.

    macro_f1 averages over the values that occur. coverage is the share of rows with the key that the head answers.
    precision is the share of those answers that are right. `attributes_zero_shot/...` is the baseline: it takes the
    value whose prompt is nearest, and has macro_f1 only.

    heads    heads to judge, which must not have learnt from `split`; without them, heads are fitted
    beside   other results of the same heads, included before those of the prompts
    """
    found, prompted = Findings(), Findings()
    known = vocabularies(train.attributes) if heads is None else vocabularies_of(heads["fused"], train)
    asked = {key: given for key in known if set(given := single_values(split, key)) & set(known[key].values)}
    if not asked:
        return found
    if heads is None:
        heads = fit_heads(train, development, {key: known[key] for key in asked}, precision=precision)
    prompts = {
        key: encode([prompt.format(key=key, value=value) for value in known[key].values]).astype(np.float32)
        for key in asked
    }
    group = split.catalog_of_product
    for modality in MODALITIES:
        name, rows, vectors = f"attributes/{modality}", split.rows(modality), split.vectors(modality)
        answered, right, confidence, unit_group = [], [], [], []
        for key, given in asked.items():
            bears = np.array([given[row] is not None for row in rows])
            truth = [given[row] for row in rows[bears]]
            head, unit = heads[modality].heads[key], group[rows[bears]]
            answers = head.answer(vectors[bears])
            codes = head.codes(truth)
            by_chance = _majority_f1(train, key, head, codes)
            info = MetricInfo(
                title=MODALITY_TITLES[modality], task_title=TITLES["attributes"], modality=modality, attribute=key
            )
            found.add_statistic(f"{name}/macro_f1:{key}", macro_f1(codes, answers.code, unit, group), by_chance, info)
            zero_shot = LinearHead(known[key].values, prompts[key], np.zeros(len(prompts[key]), np.float32))
            guess = zero_shot.logits(vectors[bears]).argmax(axis=1)
            score = macro_f1(zero_shot.codes(truth), guess, unit, group)
            info = replace(info, title=f"prompt, {info.title}", task_title=TITLES["attributes_zero_shot"])
            prompted.add_statistic(f"attributes_zero_shot/{modality}/macro_f1:{key}", score, by_chance, info)
            answered.append(answers.answered)
            right.append(answers.code == codes)
            confidence.append(answers.probability)
            unit_group.append(unit)
        for results, task in ((found, "attributes"), (prompted, "attributes_zero_shot")):
            mine = f"{task}/{modality}/macro_f1"
            overall = mean_of([results.statistics[f"{mine}:{key}"] for key in asked])
            by_chance = float(np.mean([results.chance[f"{mine}:{key}"] for key in asked]))
            info = MetricInfo(title=MACRO_F1_TITLE, task_title=TITLES[task], modality=modality)
            results.add_statistic(mine, overall, by_chance, info)
        judge_answers(
            found, "attributes", TITLES["attributes"], modality, answered, right, confidence, unit_group, group
        )
    if beside is not None:
        found.include(beside)
    found.include(prompted)
    found.notes["attributes"] = "Macro-F1 of each key, per cent, by linear heads and by the nearest prompt."
    found.about["attributes"] = {key: _counts(split, train, key, known[key]) for key in asked}
    return found


def _majority_f1(train: EmbeddedSplit, key: str, head: LinearHead, truth: np.ndarray) -> float:
    """Macro-F1 of always answering the most frequent value of the training products."""
    most = Counter(value for value in single_values(train, key) if value in head.values).most_common(1)
    if not most or not (truth >= 0).any():
        return float("nan")
    share = float((truth == head.values.index(most[0][0])).mean())
    return 2 * share / (1 + share) / len(np.unique(truth[truth >= 0]))


def _counts(split: EmbeddedSplit, train: EmbeddedSplit, key: str, vocabulary: Vocabulary) -> dict[str, Any]:
    given = [value for value in single_values(split, key) if value is not None]
    return {
        "values": len(vocabulary.values),
        "trained_on": sum(value in vocabulary.values for value in single_values(train, key)),
        "several_values": vocabulary.several,
        "rare_values": vocabulary.rare,
        "judged": len(given),
        "unknown_value": sum(value not in vocabulary.values for value in given),
    }
