"""What a package knows of attributes: heads, and what a category says of them. Fitted, kept in files, asked."""

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
from shoplens.evaluation.attributes import (
    MIN_PRODUCTS,
    fit_heads,
    judge_answers,
    macro_f1,
    single_values,
    vocabularies,
)
from shoplens.evaluation.embedded import MODALITIES, EmbeddedSplit, Modality
from shoplens.evaluation.heads.probes import PRECISION, AttributeHeads, LinearHead
from shoplens.evaluation.heads.value_counts import ValueCounts
from shoplens.evaluation.results import Findings
from shoplens.schema import CategoryTree
from shoplens.statistics.bootstrap import mean_of
from shoplens.statistics.calibration import threshold_at_precision

FOLDER = "attributes"
"""Where a package holds its extractor."""
FILE = "categories.json"
FORMAT_VERSION = 1
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How much of a category's word counts: what the development rows choose from."""
RELEVANT = 0.5
"""Where the category is not known, a key is answered if it occurs in the product's category with this probability."""


@dataclass(frozen=True)
class Extracted:
    """Of one key: its values, likeliest first, their probabilities [values], and whether the first is sure enough."""

    key: str
    values: tuple[str, ...]
    probabilities: np.ndarray
    answered: bool


@dataclass(frozen=True)
class Hint:
    """What a known category changes for one modality: how much it counts, and each key's threshold then."""

    weight: float
    thresholds: Mapping[str, float]


@dataclass(frozen=True)
class Extractor:
    """Attribute heads for photos, texts and both, with the counts that turn a category into a prior.

    Where the category c is known, the probability of a head's value v is

        p(v | x, c)  ~  p(v | x) (p(v | c) / p(v))^w

    with the smoothed shares of `ValueCounts`. w = 1 is Bayes' rule where x tells nothing of c that v does not; a
    photo mostly shows its category, which would then count twice, so w is chosen on the development split, by
    log loss, one for each modality. Thresholds are set for these probabilities anew.
    """

    heads: Mapping[Modality, AttributeHeads]
    category: Mapping[Modality, LinearHead]
    """Which category a vector is of; empty where the products have none. Its values are category ids."""
    counts: ValueCounts
    hints: Mapping[Modality, Hint]
    learnt_from: Mapping[str, Any]
    """`dataset`: its digest, `splits`: what heads, thresholds and weights were chosen on"""

    @property
    def keys(self) -> list[str]:
        return list(self.heads["fused"].heads)

    @property
    def dim(self) -> int:
        """Length of the vectors that the heads take."""
        return next(iter(self.heads["fused"].heads.values())).weights.shape[1]

    def knows(self, key: str, values: Collection[str] = ()) -> bool:
        """Whether there is a head for the key, and all of `values` are its own."""
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
        """None if the products of `train` have no key to learn. `tree` holds the categories of both splits."""
        known = vocabularies(train.attributes)
        if not known:
            return None
        values = {key: vocabulary.values for key, vocabulary in known.items()}
        counts = ValueCounts.of(tree, train.attributes, train.path_of_product, values)
        heads = fit_heads(train, development, known, precision=precision)
        hints = {m: _hint(m, heads[m], development, counts, precision) for m in MODALITIES}
        return cls(heads, _category_heads(train, development, tree), counts, hints, learnt_from)

    def guess_category(self, modality: Modality, vector: np.ndarray) -> tuple[str, float] | None:
        """The likeliest category of `vector` [d] and its probability; None where that was not learnt."""
        head = self.category.get(modality)
        if head is None:
            return None
        found = head.answer(vector[None])
        return head.values[found.code[0]], float(found.probability[0])

    def relevant(self, modality: Modality, vector: np.ndarray, category: str | None) -> list[str]:
        """Keys that products of the category have; without one, of the categories that `vector` [d] may be of."""
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
        """Whether products of a category have a key, bool [categories of the head, keys]."""
        seen = {m: [self.counts.keys(category) for category in head.values] for m, head in self.category.items()}
        return {m: np.array([[key in keys for key in self.keys] for keys in found]) for m, found in seen.items()}

    def probabilities(
        self, modality: Modality, vectors: np.ndarray, key: str, categories: Sequence[str] | None = None
    ) -> np.ndarray:
        """Of the head of `key`, [n, values], for `vectors` [n, d]; given the `categories` [n], ids, if they are known."""
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
        """What the head of `key` says of `vector` [d], of unit length.

        category   the product's category id
        among      values of the head that come into question; their probabilities are given that one of them is right
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
        """Writes `attributes/` of the package: heads by modality, `category/` likewise, and `categories.json`."""
        folder = Path(package) / FOLDER
        for modality in MODALITIES:
            self.heads[modality].save(folder)
            if modality in self.category:
                AttributeHeads(modality, {"category": self.category[modality]}).save(folder / "category")
        told = {
            "format_version": FORMAT_VERSION,
            "learnt_from": dict(self.learnt_from),
            "hints": {m: {"weight": hint.weight, "thresholds": hint.thresholds} for m, hint in self.hints.items()},
            "categories": self.counts.to_json(),
        }
        (folder / FILE).write_text(json.dumps(told, ensure_ascii=False, indent=1), "utf-8")

    @classmethod
    def load(cls, package: str | os.PathLike[str]) -> Extractor | None:
        """None if the package has none. Raises ShoplensError if it is damaged."""
        folder = Path(package) / FOLDER
        if not folder.is_dir():
            return None
        heads = {modality: AttributeHeads.load(folder, modality) for modality in MODALITIES}
        category = {}
        if (folder / "category").is_dir():
            category = {m: AttributeHeads.load(folder / "category", m).heads["category"] for m in MODALITIES}
        try:
            told = json.loads((folder / FILE).read_text("utf-8"))
            if told["format_version"] != FORMAT_VERSION:
                raise ValueError(f"format {told['format_version']}")
            hints = {m: Hint(told["hints"][m]["weight"], told["hints"][m]["thresholds"]) for m in MODALITIES}
            return cls(heads, category, ValueCounts.from_json(told["categories"]), hints, told["learnt_from"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ShoplensError(f"{folder / FILE} is damaged: {error}") from error


def judge_hints(extractor: Extractor, split: EmbeddedSplit) -> Findings:
    """`attributes_with_category/{image,text,fused}/` macro_f1, coverage, precision, ece, each row's category known.

    As `attributes/...` of the same heads (see `attributes.extract`), over the rows that have a category.
    """
    found = Findings()
    group = split.catalog_of_product
    for modality in MODALITIES:
        name, vectors, rows = f"attributes_with_category/{modality}", split.vectors(modality), split.rows(modality)
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
            found.add_statistic(f"{name}/macro_f1", mean_of(scores))
            judge_answers(found, name, answered, right, confidence, unit_group, group)
    return found


def _category_heads(train: EmbeddedSplit, development: EmbeddedSplit, tree: CategoryTree) -> dict[Modality, LinearHead]:
    """By modality, over the deepest categories that `MIN_PRODUCTS` training products are in."""
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
    """Chosen on the development rows that have a category; without any the category does not count."""
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
    """Places in `split.vectors` of the rows [n] with a value and a category, their values and category ids."""
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
    """Summed -log p of the right values, over the rows whose value the head knows (codes [n] >= 0)."""
    right = probabilities[np.flatnonzero(codes >= 0), codes[codes >= 0]]
    return float(-np.log(np.maximum(right, 1e-12)).sum())
