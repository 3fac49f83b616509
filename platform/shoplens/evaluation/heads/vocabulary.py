"""Vocabularies of attribute keys, and heads that learn them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from shoplens.evaluation.embedded import MODALITIES, EmbeddedSplit, Modality
from shoplens.evaluation.heads.probes import PRECISION, AttributeHeads, Values

MIN_PRODUCTS = 10
"""Training products that a value needs before a head learns it."""

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


def vocabularies_of(heads: AttributeHeads, train: EmbeddedSplit) -> dict[str, Vocabulary]:
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
