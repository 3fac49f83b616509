"""Short queries of a shop, such as "sneakers" or "검정 운동화", and the facts that each asks for.

Titles are long, shoppers type one or two words. What a word asks for is found from the products it belongs to: the facts
that nearly all of them share, if these facts are not as common among the others.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field

from shoplens.config import Config
from shoplens.datasets.format import Dataset
from shoplens.datasets.samples import catalog_codes, category_codes

ANY = -1
CATEGORY = "category"
WORDS = re.compile(r"[^\W_]+(?:[-'][^\W_]+)*")
MINED_PRODUCTS = 50_000
"""Largest number of products whose titles are mined."""


class ShortQueriesConfig(Config):
    """Short queries, made of a shop's own names and titles."""

    sources: tuple[Literal["names", "titles"], ...] = Field(
        ("names", "titles"),
        description="`names`: names of categories, values of attributes, and both together. `titles`: runs of words "
        "of titles and further texts, also in other languages than the names.",
    )
    attributes: tuple[str, ...] | None = Field(
        None, description="Attributes that queries may ask for. null: all with at most `most_values` values."
    )
    most_values: int = Field(64, ge=1, description="Largest number of values of an attribute that queries ask for.")
    words: int = Field(2, ge=1, le=4, description="Longest run of words of a title.")
    agreement: float = Field(
        0.8, gt=0.5, le=1, description="Share of the products with a run of words that must agree on a fact."
    )
    catalogs: int = Field(4, ge=2, description="Least number of catalogs with a run of words.")
    most: int = Field(5000, ge=1, description="Largest number of runs of words, the most frequent first.")
    weight: float = Field(1.0, gt=0, description="Weight of the loss of queries beside that of titles.")


@dataclass(frozen=True)
class Facts:
    """Facts of products as codes.

    keys     `category 1` (root) and so on, then attributes
    codes    int64 [products, keys]; ANY if unknown. Of several values of an attribute the first counts.
    values   value -> code, for each key; a category by its id
    """

    keys: tuple[str, ...]
    codes: np.ndarray
    values: tuple[Mapping[str, int], ...]

    @classmethod
    def of(cls, dataset: Dataset, attributes: Sequence[str] | None = None, most_values: int = 64) -> Facts:
        """Every category level, and the named attributes. null: all with 2 to `most_values` values."""
        levels = category_codes(dataset)
        tree = {node.id: node.order for node in dataset.categories}
        keys = [f"{CATEGORY} {level}" for level in range(1, levels.shape[1] + 1)]
        values: list[Mapping[str, int]] = [tree] * levels.shape[1]
        columns = [*levels.T]
        rows = [dict(pairs or ()) for pairs in dataset.products["attributes"].to_pylist()]
        for key in attributes if attributes is not None else dict.fromkeys(key for row in rows for key in row):
            found = [next(iter(row.get(key) or ()), None) for row in rows]
            code: dict[str, int] = {}
            column = [ANY if value is None else code.setdefault(value, len(code)) for value in found]
            if attributes is not None or 2 <= len(code) <= most_values:
                keys.append(key)
                values.append(code)
                columns.append(np.array(column))
        return cls(tuple(keys), np.stack(columns, 1).astype(np.int64), tuple(values))

    @property
    def levels(self) -> int:
        return sum(key.startswith(f"{CATEGORY} ") for key in self.keys)


@dataclass(frozen=True)
class ShortQueries:
    """Texts, and the facts int64 [texts, keys] that each asks for."""

    texts: tuple[str, ...]
    asks: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def kind(self) -> np.ndarray:
        """Which keys each text asks for, as a number: int64 [texts]."""
        return np.unique(self.asks != ANY, axis=0, return_inverse=True)[1].ravel()

    def right_for(self, facts: np.ndarray) -> np.ndarray:
        """Whether each product with facts [p, keys] has all that each text asks for: bool [texts, p]."""
        right = np.ones((len(self.asks), len(facts)), bool)
        for key in range(facts.shape[1]):
            asked = self.asks[:, key, None]
            right &= (asked == ANY) | (facts[:, key] == asked)
        return right

    def keep(self, rows: np.ndarray) -> ShortQueries:
        """The texts at these positions, int64."""
        return ShortQueries(tuple(self.texts[row] for row in rows.tolist()), self.asks[rows])

    def draw(self, facts: np.ndarray, rng: np.random.Generator) -> int:
        """A text that is right for a product, each kind of text equally often; ANY if there is none."""
        right = np.flatnonzero(self.right_for(facts[None])[:, 0])
        if not len(right):
            return ANY
        kinds = self.kind[right]
        return int(rng.choice(right[kinds == rng.choice(np.unique(kinds))]))


def short_queries(dataset: Dataset, facts: Facts, products: np.ndarray, config: ShortQueriesConfig) -> ShortQueries:
    """The queries of a shop, learnt from `products` (rows, int64). Of equal texts the first meaning counts."""
    found: dict[str, np.ndarray] = {}
    if "names" in config.sources:
        for text, asks in _names(dataset, facts, products):
            found.setdefault(text, asks)
    if "titles" in config.sources:
        said = _runs(dataset, products, config)
        for text, rows in said:
            asks = meaning(rows, facts.codes, products, config.agreement, facts.levels)
            if (asks != ANY).any():
                found.setdefault(text, asks)
    asks = np.stack(list(found.values())) if found else np.empty((0, len(facts.keys)), np.int64)
    return ShortQueries(tuple(found), asks)


def meaning(rows: np.ndarray, codes: np.ndarray, products: np.ndarray, agreement: float, levels: int = 0) -> np.ndarray:
    """The facts that a text asks for, int64 [keys], from the products `rows` that it belongs to.

    levels   the first so many keys are categories, the root first; of equally good ones the finest is taken

    A fact is taken if `agreement` of the rows share it, and if among `products` that have the facts taken so far at
    least twice that share lack it: all boots are for women, so "boots" does not ask for women.
    """
    asks = np.full(codes.shape[1], ANY)
    others = products
    order = [*reversed(range(levels)), *range(levels, codes.shape[1])]
    while True:
        best, gain = None, 0.5
        for key in order:
            if asks[key] != ANY:
                continue
            known, counts = np.unique(codes[rows, key], return_counts=True)
            value = known[counts.argmax()]
            lacking = 1 - counts.max() / len(rows)
            if value == ANY or lacking > 1 - agreement:
                continue
            base = np.mean(codes[others, key] != value)
            if base and lacking / base <= gain:
                best, gain = (key, value), lacking / base - 1e-9
        if best is None:
            return asks
        key, value = best
        asks[key] = value
        others = others[codes[others, key] == value]


def _names(dataset: Dataset, facts: Facts, products: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Names of categories at every level, values of attributes, and values with the name of the leaf category.

    The attribute whose values titles say most comes first: "navy" asks for a colour rather than an accent colour.
    """
    tree = list(dataset.categories)
    there = set(facts.codes[products, : facts.levels].ravel().tolist())
    for node in tree:
        if node.order in there:
            asks = np.full(len(facts.keys), ANY)
            asks[node.level - 1] = node.order
            yield node.name, asks
    of_value = [{code: value for value, code in values.items()} for values in facts.values]
    name_of = {node.order: node.name for node in tree}
    leaf = facts.levels - 1
    for key in _as_often_said(dataset, facts, products, of_value):
        for code, category in np.unique(facts.codes[products][:, [key, leaf]], axis=0).tolist():
            if code == ANY:
                continue
            asks = np.full(len(facts.keys), ANY)
            asks[key] = code
            yield of_value[key][code], asks.copy()
            if category != ANY:
                asks[leaf] = category
                yield f"{of_value[key][code]} {name_of[category]}", asks


def _as_often_said(
    dataset: Dataset, facts: Facts, products: np.ndarray, of_value: Sequence[Mapping[int, str]]
) -> list[int]:
    """The attribute keys by the share of products whose texts say their value, the largest first."""
    said = [" ".join(texts).casefold() for texts in _texts(dataset, _sampled(products))]
    codes = facts.codes[_sampled(products)]

    def share(key: int) -> float:
        values = {code: value.casefold() for code, value in of_value[key].items()}
        return float(
            np.mean(
                [
                    code in values and values[code] in text
                    for code, text in zip(codes[:, key].tolist(), said, strict=True)
                ]
            )
        )

    return sorted(range(facts.levels, len(facts.keys)), key=share, reverse=True)


def _sampled(products: np.ndarray) -> np.ndarray:
    if len(products) <= MINED_PRODUCTS:
        return products
    return np.random.default_rng(0).choice(products, MINED_PRODUCTS, replace=False)


def _texts(dataset: Dataset, products: np.ndarray) -> list[set[str]]:
    """Title and further texts of each product."""
    titles, texts = (dataset.products[column].take(products).to_pylist() for column in ("title", "texts"))
    return [{title, *dict(further or ()).values()} for title, further in zip(titles, texts, strict=True)]


def _runs(dataset: Dataset, products: np.ndarray, config: ShortQueriesConfig) -> Iterator[tuple[str, np.ndarray]]:
    """Runs of words of titles and texts with the rows of their products, the most frequent first."""
    products = _sampled(products)
    catalog = catalog_codes(dataset)
    rows_of: dict[str, set[int]] = defaultdict(set)
    for row, texts in zip(products.tolist(), _texts(dataset, products), strict=True):
        for text in texts:
            for run in _words(text, config.words):
                rows_of[run].add(row)
    frequent = sorted(((len(rows), run) for run, rows in rows_of.items() if len(rows) >= config.catalogs), reverse=True)
    kept = 0
    for _, run in frequent:
        rows = np.fromiter(rows_of[run], np.int64)
        if kept < config.most and len(np.unique(catalog[rows])) >= config.catalogs:
            kept += 1
            yield run, rows


def _words(text: str, longest: int) -> Iterable[str]:
    words = WORDS.findall(text)
    for length in range(1, longest + 1):
        for start in range(len(words) - length + 1):
            yield " ".join(words[start : start + length])
