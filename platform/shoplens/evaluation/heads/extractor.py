"""The attribute extractor of a package: linear heads, and a prior from the product's category."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from shoplens.errors import ShoplensError
from shoplens.evaluation.embedded import MODALITIES, EmbeddedSplit, Modality
from shoplens.evaluation.heads.answers import MACRO_F1_TITLE, judge_answers, macro_f1
from shoplens.evaluation.heads.probes import PRECISION, AttributeHeads, LinearHead
from shoplens.evaluation.heads.value_counts import ValueCounts
from shoplens.evaluation.heads.vocabulary import MIN_PRODUCTS, fit_heads, single_values, vocabularies
from shoplens.evaluation.results import Findings, MetricInfo
from shoplens.schema import CategoryTree
from shoplens.statistics.bootstrap import mean_of
from shoplens.statistics.calibration import threshold_at_precision

FOLDER = "attributes"
"""The folder of the extractor in a package."""
FILE = "categories.json"
FORMAT_VERSION = 1
TITLE = "Attributes, by linear heads where the category is known"
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Weights of the category prior, of which the development rows choose one."""
RELEVANT = 0.5
"""If the category is unknown, a key is answered if the product's category has it with at least this probability."""


@dataclass(frozen=True)
class Extracted:
    """The answer for one key: values by falling probability, probabilities [values], whether the first passes the
    threshold."""

    key: str
    values: tuple[str, ...]
    probabilities: np.ndarray
    answered: bool


@dataclass(frozen=True)
class Hint:
    """The effect of a known category for one modality: its weight, and the threshold of each key with that weight."""

    weight: float
    thresholds: Mapping[str, float]


@dataclass(frozen=True)
class Extractor:
    """Attribute heads for photos, texts and both, with counts that make a prior from a category.

    If the category c is known, the probability of a head's value v is

        p(v | x, c)  ~  p(v | x) (p(v | c) / p(v))^w

    with the smoothed shares of `ValueCounts`. w = 1 is Bayes' rule if x and c are independent given v. But a photo
    mostly shows its category, which would then count twice. So w is chosen on the development split by log loss, one
    for each modality. Thresholds are chosen anew for these probabilities.
    """

    heads: Mapping[Modality, AttributeHeads]
    category: Mapping[Modality, LinearHead]
    """Heads that predict the category; their values are category ids. Empty if the products have no category."""
    counts: ValueCounts
    hints: Mapping[Modality, Hint]
    learnt_from: Mapping[str, Any]
    """`dataset`: its digest; `splits`: the splits on which heads, thresholds and weights were chosen"""

    @property
    def keys(self) -> list[str]:
        return list(self.heads["fused"].heads)

    @property
    def dim(self) -> int:
        """Length of the vectors that the heads take."""
        return next(iter(self.heads["fused"].heads.values())).weights.shape[1]

    def knows(self, key: str, values: Collection[str] = ()) -> bool:
        """Whether the key has a head, and the head has all of `values`."""
        head = self.heads["fused"].heads.get(key)
        return head is not None and set(values) <= set(head.values)

    @classmethod
    def fit(
        cls,
        train: EmbeddedSplit,
        development: EmbeddedSplit,
        tree: CategoryTree,
        learnt_from: Mapping[str, Any],
        *,
        precision: float = PRECISION,
    ) -> Extractor | None:
        """Fits heads and prior. Returns None if the products of `train` have no key to learn.

        tree   holds the categories of both splits
        """
        known = vocabularies(train.attributes)
        if not known:
            return None
        values = {key: vocabulary.values for key, vocabulary in known.items()}
        counts = ValueCounts.of(tree, train.attributes, train.path_of_product, values)
        heads = fit_heads(train, development, known, precision=precision)
        hints = {m: _hint(m, heads[m], development, counts, precision) for m in MODALITIES}
        return cls(heads, _category_heads(train, development, tree), counts, hints, learnt_from)

    def guess_category(self, modality: Modality, vector: np.ndarray) -> tuple[str, float] | None:
        """The most probable category of `vector` [d] and its probability; None if no category head was learnt."""
        head = self.category.get(modality)
        if head is None:
            return None
        found = head.answer(vector[None])
        return head.values[found.code[0]], float(found.probability[0])

    def relevant(self, modality: Modality, vector: np.ndarray, category: str | None) -> list[str]:
        """The keys that products of the category have. Without a category, it is predicted from `vector` [d]."""
        if category is not None:
            seen = self.counts.keys(category)
            return [key for key in self.keys if key in seen]
        head = self.category.get(modality)
        if head is None:
            return self.keys
        likely = head.predict_proba(vector[None])[0] @ self._occurs[modality]
        return [key for key, probability in zip(self.keys, likely, strict=True) if probability >= RELEVANT]

    @cached_property
    def _occurs(self) -> dict[Modality, np.ndarray]:
        """bool [categories of the head, keys]: whether products of the category have the key."""
        seen = {m: [self.counts.keys(category) for category in head.values] for m, head in self.category.items()}
        return {m: np.array([[key in keys for key in self.keys] for keys in found]) for m, found in seen.items()}

    def probabilities(
        self, modality: Modality, vectors: np.ndarray, key: str, categories: Sequence[str] | None = None
    ) -> np.ndarray:
        """Probabilities of the values of `key`, [n, values].

        vectors      float32 [n, d] of unit length
        categories   category ids [n], if they are known
        """
        head = self.heads[modality].heads[key]
        if categories is None:
            return head.predict_proba(vectors)
        lift = _lifts(self.counts, categories, key, head.values)
        return _lifted(head.predict_proba(vectors), lift, self.hints[modality].weight)

    def extract(
        self,
        modality: Modality,
        vector: np.ndarray,
        key: str,
        *,
        category: str | None = None,
        among: Sequence[str] | None = None,
    ) -> Extracted:
        """The answer of the head of `key` for `vector` [d] of unit length.

        category   the product's category id, if it is known
        among      candidate values of the head; probabilities are conditional on one of them being right
        """
        head = self.heads[modality].heads[key]
        probabilities = self.probabilities(modality, vector[None], key, None if category is None else [category])[0]
        threshold = head.threshold if category is None else self.hints[modality].thresholds[key]
        if among is not None:
            probabilities = np.where(np.isin(head.values, among), np.maximum(probabilities, 1e-300), 0)
            probabilities = probabilities / probabilities.sum()
        best = [
            place for place in np.argsort(-probabilities, kind="stable") if among is None or head.values[place] in among
        ]
        return Extracted(
            key,
            tuple(head.values[place] for place in best),
            probabilities[best],
            bool(probabilities[best[0]] >= threshold),
        )

    def save(self, package: str | os.PathLike[str]) -> None:
        """Writes `attributes/` into the package: heads by modality, `category/` heads by modality, `categories.json`."""
        folder = Path(package) / FOLDER
        for modality in MODALITIES:
            self.heads[modality].save(folder)
            if modality in self.category:
                AttributeHeads(modality, {"category": self.category[modality]}).save(folder / "category")
        summary = {
            "format_version": FORMAT_VERSION,
            "learnt_from": dict(self.learnt_from),
            "hints": {m: {"weight": hint.weight, "thresholds": hint.thresholds} for m, hint in self.hints.items()},
            "categories": self.counts.to_json(),
        }
        (folder / FILE).write_text(json.dumps(summary, ensure_ascii=False, indent=1), "utf-8")

    @classmethod
    def load(cls, package: str | os.PathLike[str]) -> Extractor | None:
        """Returns None if the package has no extractor. Raises ShoplensError if the extractor is damaged."""
        folder = Path(package) / FOLDER
        if not folder.is_dir():
            return None
        heads = {modality: AttributeHeads.load(folder, modality) for modality in MODALITIES}
        category = {}
        if (folder / "category").is_dir():
            category = {m: AttributeHeads.load(folder / "category", m).heads["category"] for m in MODALITIES}
        try:
            summary = json.loads((folder / FILE).read_text("utf-8"))
            if summary["format_version"] != FORMAT_VERSION:
                raise ValueError(f"format {summary['format_version']}")
            hints = {m: Hint(summary["hints"][m]["weight"], summary["hints"][m]["thresholds"]) for m in MODALITIES}
            return cls(heads, category, ValueCounts.from_json(summary["categories"]), hints, summary["learnt_from"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ShoplensError(f"{folder / FILE} is damaged: {error}") from error


def judge_hints(extractor: Extractor, split: EmbeddedSplit) -> Findings:
    """`attributes_with_category/{image,text,fused}/` macro_f1, coverage, precision, ece with known categories.

    The metrics are those of `attributes/...` (see `attributes.extract`) by the same heads, over the rows that have a
    category.
    """
    found = Findings()
    group = split.catalog_of_product
    for modality in MODALITIES:
        vectors, rows = split.vectors(modality), split.rows(modality)
        answered, right, confidence, unit_group, scores = [], [], [], [], []
        for key in extractor.keys:
            asked, truth, categories = _asked(split, modality, key, extractor.counts.tree)
            codes = extractor.heads[modality].heads[key].codes(truth)
            if not (codes >= 0).any():
                continue
            probabilities = extractor.probabilities(modality, vectors[asked], key, categories)
            code, best, unit = probabilities.argmax(axis=1), probabilities.max(axis=1), group[rows[asked]]
            scores.append(macro_f1(codes, code, unit, group))
            answered.append(best >= extractor.hints[modality].thresholds[key])
            right.append(code == codes)
            confidence.append(best)
            unit_group.append(unit)
        if scores:
            task, info = (
                "attributes_with_category",
                MetricInfo(title=MACRO_F1_TITLE, task_title=TITLE, modality=modality),
            )
            found.add_statistic(f"{task}/{modality}/macro_f1", mean_of(scores), info=info)
            judge_answers(found, task, TITLE, modality, answered, right, confidence, unit_group, group)
    return found


def _category_heads(train: EmbeddedSplit, development: EmbeddedSplit, tree: CategoryTree) -> dict[Modality, LinearHead]:
    """Category heads by modality, over the deepest categories with at least `MIN_PRODUCTS` training products."""
    paths = train.path_of_product
    products = Counter(path[:level] for path in paths for level in range(1, len(path) + 1))
    id_of = {node.path: node.id for node in tree if products[node.path] >= MIN_PRODUCTS}

    def labels(split: EmbeddedSplit) -> list[str | None]:
        lineages = [[path[:level] for level in range(len(path), 0, -1)] for path in split.path_of_product]
        return [next((id_of[path] for path in lineage if path in id_of), None) for lineage in lineages]

    known, theirs = labels(train), labels(development)
    if len(set(known) - {None}) < 2:
        return {}
    return {
        modality: LinearHead.fit(
            train.vectors(modality),
            [known[row] for row in train.rows(modality)],
            development.vectors(modality),
            [theirs[row] for row in development.rows(modality)],
        )
        for modality in MODALITIES
    }


def _hint(
    modality: Modality, heads: AttributeHeads, development: EmbeddedSplit, counts: ValueCounts, precision: float
) -> Hint:
    """The hint chosen on the development rows that have a category. Without such a row the weight is 0."""
    judged = {}
    for key, head in heads.heads.items():
        asked, truth, categories = _asked(development, modality, key, counts.tree)
        if len(asked):
            vectors = development.vectors(modality)[asked]
            judged[key] = head.predict_proba(vectors), _lifts(counts, categories, key, head.values), head.codes(truth)
    weight = min(WEIGHTS, key=lambda w: sum(_loss(_lifted(p, lift, w), codes) for p, lift, codes in judged.values()))
    thresholds = {key: head.threshold for key, head in heads.heads.items()}
    for key, (probabilities, lift, codes) in judged.items():
        found = _lifted(probabilities, lift, weight)
        thresholds[key] = threshold_at_precision(found.max(axis=1), found.argmax(axis=1) == codes, precision)
    return Hint(weight, thresholds)


def _asked(
    split: EmbeddedSplit, modality: Modality, key: str, tree: CategoryTree
) -> tuple[np.ndarray, list[str], list[str]]:
    """Rows [n] with a value and a category: their places in `split.vectors`, values and category ids."""
    id_of = {node.path: node.id for node in tree}
    categories, values = [id_of.get(path) for path in split.path_of_product], single_values(split, key)
    found = [
        (place, value, category)
        for place, row in enumerate(split.rows(modality))
        if (category := categories[row]) is not None and (value := values[row]) is not None
    ]
    return np.array([place for place, *_ in found], np.int64), [v for _, v, _ in found], [c for *_, c in found]


def _lifts(counts: ValueCounts, categories: Sequence[str], key: str, values: Sequence[str]) -> np.ndarray:
    """`ValueCounts.log_lift` of each row's category, [n, values]."""
    lifts = {category: counts.log_lift(category, key, values) for category in set(categories)}
    return np.stack([lifts[category] for category in categories])


def _lifted(probabilities: np.ndarray, lift: np.ndarray, weight: float) -> np.ndarray:
    """probabilities * exp(weight * lift), each row [n, values] summing to one."""
    found = probabilities * np.exp(weight * lift)
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def _loss(probabilities: np.ndarray, codes: np.ndarray) -> float:
    """Sum of -log p of the right values, over rows whose value the head knows (codes [n] >= 0)."""
    right = probabilities[np.flatnonzero(codes >= 0), codes[codes >= 0]]
    return float(-np.log(np.maximum(right, 1e-12)).sum())
