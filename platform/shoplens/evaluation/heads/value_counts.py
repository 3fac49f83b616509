"""Counts of each attribute value in each category: the prior of a value given the category."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoplens.schema import CategoryTree

STRENGTH = 10.0
"""The share in the parent category has the weight of this many products."""
EVERYTHING = ""
"""The id of the whole shop, above the roots of the tree. No category has this id."""


@dataclass(frozen=True)
class ValueCounts:
    """Counts of products by category (with everything below it), key and value."""

    tree: CategoryTree
    counts: Mapping[str, Mapping[str, Mapping[str, int]]]
    """category id -> key -> value -> number of products; categories, keys and values without a product are missing"""

    @classmethod
    def of(
        cls,
        tree: CategoryTree,
        attributes: Sequence[Mapping[str, Sequence[str]]],
        paths: Sequence[tuple[str, ...]],
        known: Mapping[str, Collection[str]],
    ) -> ValueCounts:
        """Counts products by their `attributes` [p] and category `paths` [p] (empty if unknown).

        known   key -> values to count; other keys and values are ignored
        """
        id_of = {node.path: node.id for node in tree}
        counts: dict[str, dict[str, Counter[str]]] = {}
        for given, path in zip(attributes, paths, strict=True):
            lineage = [EVERYTHING, *(id_of[path[: level + 1]] for level in range(len(path)))]
            for key in given.keys() & known.keys():
                for value in set(given[key]) & set(known[key]):
                    for category in lineage:
                        counts.setdefault(category, {}).setdefault(key, Counter())[value] += 1
        return cls(tree, counts)

    def keys(self, category: str) -> set[str]:
        """Keys of the category. If it has none, keys of the nearest category above it that has some."""
        for ancestor in reversed(self._lineage(category)):
            if ancestor in self.counts:
                return set(self.counts[ancestor])
        return set()

    def share(self, category: str, key: str, values: Sequence[str]) -> np.ndarray:
        """p(value | category) [values] among products that have one of `values`.

        p(v | c) = (n(v, c) + S p(v | parent of c)) / (n(c) + S) with S = `STRENGTH`. The recursion starts at the whole
        shop with (n(v) + 1) / (n + number of values).
        """
        total = self._of(EVERYTHING, key, values) + 1
        share = total / total.sum()
        for ancestor in self._lineage(category)[1:]:
            here = self._of(ancestor, key, values)
            share = (here + STRENGTH * share) / (here.sum() + STRENGTH)
        return np.asarray(share)

    def log_lift(self, category: str, key: str, values: Sequence[str]) -> np.ndarray:
        """log p(value | category) - log p(value) [values]."""
        return np.asarray(np.log(self.share(category, key, values)) - np.log(self.share(EVERYTHING, key, values)))

    def _of(self, category: str, key: str, values: Sequence[str]) -> np.ndarray:
        seen = self.counts.get(category, {}).get(key, {})
        return np.array([seen.get(value, 0) for value in values], dtype=np.float64)

    def _lineage(self, category: str) -> list[str]:
        """Ids from the whole shop down to the category."""
        lineage: list[str] = []
        node: str | None = category or None
        while node is not None:
            lineage.insert(0, node)
            node = self.tree[node].parent_id
        return [EVERYTHING, *lineage]

    def to_json(self) -> list[dict[str, Any]]:
        """The whole shop first, then every node of the tree."""
        nodes: Iterable[tuple[str, Sequence[str]]] = ((node.id, node.path) for node in self.tree)
        return [
            {"id": category, "path": list(path), "counts": self.counts.get(category, {})}
            for category, path in [(EVERYTHING, ()), *nodes]
        ]

    @classmethod
    def from_json(cls, rows: Sequence[Mapping[str, Any]]) -> ValueCounts:
        tree = CategoryTree.of((row["path"], row["id"]) for row in rows if row["path"])
        return cls(tree, {row["id"]: row["counts"] for row in rows if row["counts"]})
