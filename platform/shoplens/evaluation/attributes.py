"""Attribute extraction: which colour, material, gender, ... a product has, by a linear head a key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoplens.evaluation.embedded import MODALITIES, EmbeddedSplit, Modality
from shoplens.evaluation.heads.probes import PRECISION, AttributeHeads, LinearHead, Values
from shoplens.evaluation.results import Findings
from shoplens.statistics.bootstrap import Statistic, divide, mean_of, ratio, totals
from shoplens.statistics.calibration import calibration_error, reliability

MIN_PRODUCTS = 10
"""Products of the training split that must bear a value for it to be learnt."""

Encode = Callable[[Sequence[str]], np.ndarray]
"""Texts -> float32 unit vectors [n, d]."""
Attributes = Mapping[str, tuple[str, ...]]
"""Values of a product by key."""


@dataclass(frozen=True)
class Vocabulary:
    """The values that a head can answer for one key, and what was left out of training.

    `several` products have more than one value of the key, `rare` ones a value below `MIN_PRODUCTS`.
    """

    values: tuple[str, ...]
    several: int
    rare: int


def vocabularies(attributes: Sequence[Attributes], min_products: int = MIN_PRODUCTS) -> dict[str, Vocabulary]:
    """Keys with at least two common values among products with `attributes` [p].

    A key whose products mostly have several values is left out.
    """
    values, several = _counted(attributes)
    found = {}
    for key, counts in sorted(values.items()):
        common = tuple(sorted(value for value, n in counts.items() if n >= min_products))
        if len(common) >= 2 and several[key] <= counts.total():
            found[key] = _vocabulary(common, counts, several[key])
    return found


def _counted(attributes: Sequence[Attributes]) -> tuple[dict[str, Counter[str]], Counter[str]]:
    """By key: how many products have each value alone, and how many have several values."""
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
    """The vocabularies of heads that were trained before, as `train` has them."""
    values, several = _counted(train.attributes)
    return {
        key: _vocabulary(head.values, values.get(key, Counter()), several[key]) for key, head in heads.heads.items()
    }


def single_values(split: EmbeddedSplit, key: str) -> list[str | None]:
    """[p] the product's value of the key; None if it has none or several."""
    return [given[0] if len(given := attributes.get(key, ())) == 1 else None for attributes in split.attributes]


def fit_heads(
    train: EmbeddedSplit,
    development: EmbeddedSplit,
    known: Mapping[str, Vocabulary],
    *,
    precision: float = PRECISION,
) -> dict[Modality, AttributeHeads]:
    """Heads for image, text and fused vectors, by modality; rare values are not trained on."""
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
    """Key -> the value of each row's product; without `rare`, values outside the vocabulary are None."""
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
) -> Findings:
    """`attributes/{image,text,fused}/` macro_f1, coverage, precision, ece over all keys, `macro_f1:KEY` of each.

    macro_f1 is over the values that occur; coverage the share of rows with the key that the head answers;
    precision the share of those answers that is right. `attributes_zero_shot/...` takes the value whose
    prompt text is nearest, for comparison, and has macro_f1 alone.

    heads   those to judge, which must have learnt nothing from `split`; without them, heads are fitted
    """
    found = Findings()
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
            found.add_statistic(f"{name}/macro_f1:{key}", macro_f1(codes, answers.code, unit, group), by_chance)
            zero_shot = LinearHead(known[key].values, prompts[key], np.zeros(len(prompts[key]), np.float32))
            guess = zero_shot.logits(vectors[bears]).argmax(axis=1)
            said = macro_f1(zero_shot.codes(truth), guess, unit, group)
            found.add_statistic(f"attributes_zero_shot/{modality}/macro_f1:{key}", said, by_chance)
            answered.append(answers.answered)
            right.append(answers.code == codes)
            confidence.append(answers.probability)
            unit_group.append(unit)
        for task in ("attributes", "attributes_zero_shot"):
            mine = f"{task}/{modality}/macro_f1"
            overall = mean_of([found.statistics[f"{mine}:{key}"] for key in asked])
            found.add_statistic(mine, overall, float(np.mean([found.chance[f"{mine}:{key}"] for key in asked])))
        judge_answers(found, name, answered, right, confidence, unit_group, group)
    found.about["attributes"] = {key: _told(split, train, key, known[key]) for key in asked}
    return found


def judge_answers(
    found: Findings,
    name: str,
    answered: Sequence[np.ndarray],
    right: Sequence[np.ndarray],
    confidence: Sequence[np.ndarray],
    unit_group: Sequence[np.ndarray],
    group: np.ndarray,
) -> None:
    """Adds `NAME/` coverage, precision and ece of the answers to every key together; an array [rows] a key."""
    units, gave, hit = np.concatenate(unit_group), np.concatenate(answered), np.concatenate(right)
    sure = np.concatenate(confidence)
    found.add_statistic(f"{name}/coverage", ratio(gave, np.ones_like(gave), units, group))
    found.add_statistic(f"{name}/precision", ratio(gave & hit, gave, units, group))
    found.add_statistic(f"{name}/ece", calibration_error(sure, hit, units, group))
    found.lower_is_better.add(f"{name}/ece")
    found.about.setdefault("reliability", {})[name] = reliability(sure, hit)


def macro_f1(truth: np.ndarray, said: np.ndarray, unit_group: np.ndarray, group: np.ndarray) -> Statistic:
    """Mean F1 of the values that occur in `truth` [n]; codes of values, -1 in `truth` for one that has none.

    A value that a draw does not hold is left out of that draw's mean.
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
    """Macro-F1 of always answering the value that most training products have."""
    most = Counter(value for value in single_values(train, key) if value in head.values).most_common(1)
    if not most or not (truth >= 0).any():
        return float("nan")
    share = float((truth == head.values.index(most[0][0])).mean())
    return 2 * share / (1 + share) / len(np.unique(truth[truth >= 0]))


def _told(split: EmbeddedSplit, train: EmbeddedSplit, key: str, vocabulary: Vocabulary) -> dict[str, Any]:
    given = [value for value in single_values(split, key) if value is not None]
    return {
        "values": len(vocabulary.values),
        "trained_on": sum(value in vocabulary.values for value in single_values(train, key)),
        "several_values": vocabulary.several,
        "rare_values": vocabulary.rare,
        "judged": len(given),
        "unknown_value": sum(value not in vocabulary.values for value in given),
    }
