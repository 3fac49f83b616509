"""Attribute extraction: the colour, material, gender, ... of a product, by one linear head for each key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shoplens.evaluation.embedded import MODALITIES, MODALITY_TITLES, EmbeddedSplit, Modality
from shoplens.evaluation.heads.probes import PRECISION, AttributeHeads, LinearHead, Values
from shoplens.evaluation.results import Findings, MetricInfo
from shoplens.statistics.bootstrap import Statistic, divide, mean_of, ratio, totals
from shoplens.statistics.calibration import calibration_error, reliability

MIN_PRODUCTS = 10
"""Training products that a value needs before a head learns it."""
TITLES = {"attributes": "Attributes, by linear heads", "attributes_zero_shot": "Attributes, by the nearest prompt"}
MACRO_F1_TITLE = "macro-F1, mean over keys"

Encode = Callable[[Sequence[str]], np.ndarray]
"""Texts -> float32 unit vectors [n, d]."""
Attributes = Mapping[str, tuple[str, ...]]
"""The values of one product by key."""


@dataclass(frozen=True)
class Vocabulary:
    """The values that a head can answer for one key, and how many products training leaves out.

    `several` counts products with more than one value of the key. `rare` counts products whose value has fewer than
    `MIN_PRODUCTS` products.
    """

    values: tuple[str, ...]
    several: int
    rare: int


def vocabularies(attributes: Sequence[Attributes], min_products: int = MIN_PRODUCTS) -> dict[str, Vocabulary]:
    """Vocabularies of the keys that have at least two common values among products with `attributes` [p].

    A key is left out if most of its products have several values.
    """
    values, several = _counted(attributes)
    found = {}
    for key, counts in sorted(values.items()):
        common = tuple(sorted(value for value, n in counts.items() if n >= min_products))
        if len(common) >= 2 and several[key] <= counts.total():
            found[key] = _vocabulary(common, counts, several[key])
    return found


def _counted(attributes: Sequence[Attributes]) -> tuple[dict[str, Counter[str]], Counter[str]]:
    """By key: the number of products with exactly each value, and the number with several values."""
    values: dict[str, Counter[str]] = {}
    several: Counter[str] = Counter()
    for product in attributes:
        for key, given in product.items():
            counts = values.setdefault(key, Counter())
            if len(given) == 1:
                counts[given[0]] += 1
            else:
                several[key] += 1
    return values, several


def _vocabulary(values: tuple[str, ...], counts: Counter[str], several: int) -> Vocabulary:
    return Vocabulary(values, several, counts.total() - sum(counts[value] for value in values))


def _vocabularies_of(heads: AttributeHeads, train: EmbeddedSplit) -> dict[str, Vocabulary]:
    """The vocabularies of heads that were trained before, with counts from `train`."""
    values, several = _counted(train.attributes)
    return {
        key: _vocabulary(head.values, values.get(key, Counter()), several[key]) for key, head in heads.heads.items()
    }


def single_values(split: EmbeddedSplit, key: str) -> list[str | None]:
    """[p] the product's value of the key; None if it has no value or several."""
    return [given[0] if len(given := attributes.get(key, ())) == 1 else None for attributes in split.attributes]


def fit_heads(
    train: EmbeddedSplit,
    development: EmbeddedSplit,
    known: Mapping[str, Vocabulary],
    *,
    precision: float = PRECISION,
) -> dict[Modality, AttributeHeads]:
    """Fits heads for image, text and fused vectors, by modality. Rare values are not trained on."""
    return {
        modality: AttributeHeads.fit(
            modality,
            train.vectors(modality),
            _by_key(train, known, train.rows(modality), rare=False),
            development.vectors(modality),
            _by_key(development, known, development.rows(modality), rare=True),
            precision=precision,
        )
        for modality in MODALITIES
    }


def _by_key(
    split: EmbeddedSplit, known: Mapping[str, Vocabulary], rows: np.ndarray, *, rare: bool
) -> dict[str, Values]:
    """Key -> the value of each row's product. Unless `rare`, values outside the vocabulary become None."""
    by_key: dict[str, Values] = {}
    for key, vocabulary in known.items():
        values = [value if rare or value in vocabulary.values else None for value in single_values(split, key)]
        by_key[key] = [values[row] for row in rows]
    return by_key


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
    known = vocabularies(train.attributes) if heads is None else _vocabularies_of(heads["fused"], train)
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
