"""Search of large ranges by inverted lists: those nearest to a query give candidates, float64 sums decide among them.

The lists are Faiss's (IVF, int8 codes, their centres in a graph): a photo takes d + 8 bytes beside its vector, and a
search looks at the part of some lists that lies in the range. What is found are true scores in true order; what can be
missed is a product in a list that was not looked into.

The centres are learned on GPUs where there are any. Searching stays on the CPU: Faiss's GPU indexes have no graph of
centres (facebookresearch/faiss#2361), and without cuVS they ignore the range that they are to search (#3114, #3924).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field
from typing_extensions import Self

from shoplens.config import Config
from shoplens.search import scan
from shoplens.search.scan import Found, Range
from shoplens.search.storage import Vectors, blocks

_SAMPLE = 256
_NEAREST = 20
_LEARNED_FROM = 32
"""Photos a list."""
_AHEAD = 2
"""So many times as many candidates as are asked for: int8 codes confuse near ones."""
_SURELY = 64
"""Of the nearest lists, so many are found with next to none missing (`efSearch`)."""
_ALLOWED = 0.1
"""Of ranges in which fewer products may be found, so much would have to be looked at that a scan is as good."""


class Approximate(Config):
    """Which ranges are searched by inverted lists, and how well.

    least    ranges of fewer products are searched exactly
    recall   at least this share of the 20 nearest photos is found, the mean over 256 photos of the index as queries;
             decides how many photos a search looks at
    """

    least: int = Field(20_000, ge=1)
    recall: float = Field(0.98, gt=0, lt=1)


class Lists:
    """Inverted lists over the photos of an index, mapped from a file; searching is safe from many threads.

    `told` is what `index.json` keeps of them: the configuration, and `codes`, how many photos a search looks at.
    """

    def __init__(self, path: str | os.PathLike[str], told: Mapping[str, Any]) -> None:
        import faiss

        self.told = dict(told)
        self.config = Approximate(least=told["least"], recall=told["recall"])
        self._index = faiss.read_index(os.fspath(path), faiss.IO_FLAG_MMAP_IFC)

    @classmethod
    def build(cls, path: str | os.PathLike[str], vectors: Vectors, longest: float, config: Approximate) -> Self:
        """Writes the lists of `vectors`, of which none is longer than `longest`, to `path`."""
        import faiss

        n, dimension = vectors.shape
        count = min(n, round(4 * n**0.5))
        rng = np.random.default_rng(0)
        learned_from = np.sort(rng.choice(n, min(n, _LEARNED_FROM * count), replace=False))
        index = faiss.index_factory(dimension, f"IVF{count}_HNSW32,SQ8", faiss.METRIC_INNER_PRODUCT)
        faiss.downcast_index(index.quantizer).hnsw.efSearch = _SURELY
        index.cp.min_points_per_centroid = 1
        assigner = faiss.IndexFlatL2(dimension)
        if faiss.get_num_gpus():
            assigner = faiss.index_cpu_to_all_gpus(assigner)
        index.clustering_index = assigner
        index.train(vectors.take(learned_from))
        index.clustering_index = None
        for rows in blocks(n, dimension):
            index.add(vectors.block(rows.start, rows.stop))
        faiss.write_index(index, os.fspath(path))
        del index
        lists = cls(path, {**config.model_dump(), "codes": _NEAREST})
        lists._look_at_enough(vectors, longest)
        return lists

    def _look_at_enough(self, vectors: Vectors, longest: float) -> None:
        """Raises `codes` until the recall is reached; a photo does not count as its own neighbour."""
        n = len(vectors)
        sample = np.random.default_rng(1).choice(n, min(n, _SAMPLE), replace=False)
        queries, each = vectors.take(sample), np.arange(n + 1)
        near = scan.best(vectors, each, longest, queries, _NEAREST + 1, [Range(0, n)]).rows
        others = near != sample[:, None]
        while True:
            found = self.photos(queries, _NEAREST, 0, n)
            there = (near[:, :, None] == found[:, None, :]).any(axis=2)
            if there[others].mean() >= self.config.recall or self.told["codes"] >= n:
                return
            self.told["codes"] = min(n, self.told["codes"] * 5 // 4)

    def photos(self, queries: np.ndarray, k: int, first: int, last: int, share: float = 1.0) -> np.ndarray:
        """int64 [m, c]: rows from `first` to `last` (exclusive) near each of the queries float32 [m, d], -1 for none.

        Enough for k of which only a `share` counts: for more than 20, and for less than all, more photos are looked at.
        The nearest lists are looked into until so many photos of the range were seen, be they all there or far between.
        """
        import faiss

        codes = math.ceil(self.told["codes"] * max(1.0, k / _NEAREST) / share)
        lists = min(self._index.nlist, math.ceil(2 * codes * self._index.nlist / (last - first)))
        of_range = faiss.IDSelectorRange(first, last, True)
        how = faiss.SearchParametersIVF(sel=of_range, nprobe=lists, max_codes=codes)
        return self._index.search(queries, math.ceil(_AHEAD * k / share), params=how)[1]

    def nearest(
        self,
        vectors: Vectors,
        start: np.ndarray,
        longest: float,
        queries: np.ndarray,
        k: int,
        ranges: Sequence[Range],
        order: np.ndarray | None,
    ) -> Found | None:
        """As `scan.best`; None where that is the better way, or the lists hold fewer than k of products that there are.

        Products behind those that the lists were made of are searched exactly.
        """
        size = sum(high - low for low, high, _ in ranges)
        barred = sum(int(excluded.sum()) for *_, excluded in ranges if excluded is not None)
        if size < self.config.least or size - barred < _ALLOWED * size:
            return None
        found = []
        for low, high, excluded in ranges:
            first, last = int(start[low]), int(start[high])
            if last > self._index.ntotal:
                behind = scan.best(vectors, start, longest, queries, k, [Range(low, high, excluded)], order)
                found.append(behind.products)
            elif low < high:
                asked = k * -(-(last - first) // (high - low))
                products = self.photos(queries, asked, first, last, 1 - barred / size)
                if len(vectors) > len(start) - 1:
                    products = np.where(products < 0, -1, np.searchsorted(start, products, side="right") - 1)
                if excluded is not None:
                    products = np.where(excluded[np.maximum(products - low, 0)], -1, products)
                found.append(products)
        nearly = scan.among(vectors, start, queries, k, np.concatenate(found, axis=1), order)
        return nearly if nearly.products.shape[1] == min(k, size - barred) else None
