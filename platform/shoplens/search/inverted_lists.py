"""Approximate search of large ranges: inverted lists give candidates, float64 sums rank them.

The lists are Faiss's (IVF with int8 codes, centroids in an HNSW graph). They lie in the order of the tree: a list holds
photos of one category only, large categories have several. So a range has lists of its own, and a search reads the few
whose centroids are nearest. A photo takes d + 8 bytes beside its vector, and a list 4 d. Scores are exact and in exact
order; a product can be missed only if its list was not read.

Centroids are trained on GPUs if there are any. Search stays on the CPU: Faiss's GPU indexes have no graph of centroids
(facebookresearch/faiss#2361), and without cuVS they ignore the range to search (#3114, #3924).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import Field
from typing_extensions import Self

from shoplens.config import Config
from shoplens.search import scan
from shoplens.search.scan import Gallery, Range, TopK
from shoplens.search.storage import Vectors

_SAMPLE = 256
"""Photos of the index that serve as queries when the recall is measured."""
_PHOTOS_AT_ONCE = 1 << 16
_NEAREST = 20
"""The k at which the recall is measured."""
_TRAINING_PHOTOS = 32
"""Photos a list from which centroids are trained, at most."""
_PHOTOS = 64
"""Photos of a list, on average; more in a category of over 65,000, where centroids would take too long."""
_FEW_LISTS = 2500
"""So many centroids are compared one by one faster than through the graph."""
_OVER_FETCH = 2
"""Over-fetch 2k candidates: int8 codes cannot separate close neighbours."""
_EF_SEARCH = 64
"""Least breadth of the search for the nearest lists (HNSW `efSearch`); 1.5 times the number of lists misses almost none."""
_LEAST_ALLOWED = 0.1
"""If under 10 % of a range passes the filter, fall back to an exact scan."""


class Approximate(Config):
    """Settings of the approximate search by inverted lists."""

    least: int = Field(20_000, ge=1, description="Search ranges of fewer products exactly.")
    recall: float = Field(
        0.98,
        gt=0,
        lt=1,
        description="Least recall@20 of photos, the mean over 256 photos of the index as queries. The build raises the "
        "number of photos that a search reads until this is reached.",
    )


class InvertedLists:
    """Inverted lists over the photos of an index, mapped from a file. Safe from many threads.

    `max_codes` is the number of photos that a search reads (Faiss's `max_codes`).
    """

    def __init__(
        self, path: str | os.PathLike[str], parameters: Mapping[str, Any], rows: np.ndarray | None = None
    ) -> None:
        """`rows` int64 [lists, 2]: the rows of each list's category; None: lists hold photos of all categories."""
        import faiss

        self.config = Approximate(least=parameters["least"], recall=parameters["recall"])
        self.max_codes: int = parameters["codes"]
        self._index = faiss.read_index(os.fspath(path), faiss.IO_FLAG_MMAP_IFC)
        self._rows = np.tile([0, self._index.ntotal], (self._index.nlist, 1)) if rows is None else rows
        self._centroids = self._index.quantizer.reconstruct_n(0, self._index.nlist)

    @property
    def parameters(self) -> dict[str, Any]:
        """The entry `approximate` of `index.json`."""
        return {**self.config.model_dump(), "codes": self.max_codes}

    @classmethod
    def build(
        cls,
        path: str | os.PathLike[str],
        vectors: Vectors,
        longest: float,
        config: Approximate,
        categories: np.ndarray,
    ) -> tuple[Self, np.ndarray]:
        """Writes the inverted lists of `vectors` to `path`. Returns them and the rows of each list's category.

        longest     the greatest length of a vector
        categories  int64 [categories + 1]: where the vectors of each category begin, and the end of the last
        """
        import faiss

        n, dimension = vectors.shape
        rng = np.random.default_rng(0)
        sizes = np.diff(categories)
        counts = np.maximum(1, np.minimum(np.round(sizes / _PHOTOS), np.round(4 * np.sqrt(sizes)))).astype(np.int64)
        centroids = [
            _centers(vectors, first, first + size, count, rng)
            for first, size, count in zip(categories[:-1].tolist(), sizes.tolist(), counts.tolist(), strict=True)
        ]
        index = faiss.index_factory(dimension, f"IVF{counts.sum()}_HNSW16,SQ8", faiss.METRIC_INNER_PRODUCT)
        index.quantizer.add(np.concatenate(centroids))
        index.train(vectors.take(np.sort(rng.choice(n, min(n, _TRAINING_PHOTOS * index.nlist), replace=False))))
        before = np.cumsum(counts) - counts
        for category, (first, last) in enumerate(pairwise(categories.tolist())):
            for start in range(first, last, _PHOTOS_AT_ONCE):
                some = vectors.block(start, min(start + _PHOTOS_AT_ONCE, last))
                near = before[category] + faiss.knn(some, centroids[category], 1)[1].ravel()
                index.add_core(len(some), faiss.swig_ptr(some), None, faiss.swig_ptr(near))
        faiss.write_index(index, os.fspath(path))
        del index
        rows = np.repeat(np.stack([categories[:-1], categories[1:]], axis=1), counts, axis=0)
        lists = cls(path, {**config.model_dump(), "codes": _NEAREST}, rows)
        lists._tune(vectors, longest)
        return lists, rows

    def _tune(self, vectors: Vectors, longest: float) -> None:
        """Raises `max_codes` until the recall is reached. A photo is not its own neighbour."""
        n = len(vectors)
        sample = np.random.default_rng(1).choice(n, min(n, _SAMPLE), replace=False)
        queries = vectors.take(sample)
        photos = Gallery(vectors, np.arange(n + 1), longest)
        exact = scan.best(photos, queries, _NEAREST + 1, [Range(0, n)]).rows
        others = exact != sample[:, None]
        while True:
            candidates = self.photos(queries, _NEAREST, 0, n)
            hit = (exact[:, :, None] == candidates[:, None, :]).any(axis=2)
            if hit[others].mean() >= self.config.recall or self.max_codes >= n:
                return
            self.max_codes = min(n, self.max_codes * 5 // 4)

    def photos(self, queries: np.ndarray, k: int, first: int, last: int, share: float = 1.0) -> np.ndarray:
        """int64 [m, c]: candidate rows from `first` to `last` (exclusive) for queries float32 [m, d]; -1 for none.

        `share` is the part of the range that passes the filter. A k above 20 or a share below 1 reads proportionally more
        photos. Lists are read nearest first until that many photos of the range were seen, so a category in one corner
        of the space needs few lists and a scattered one many.
        """
        import faiss

        codes = math.ceil(self.max_codes * max(1.0, k / _NEAREST) / share)
        some = slice(
            int(np.searchsorted(self._rows[:, 1], first, side="right")),
            int(np.searchsorted(self._rows[:, 0], last, side="left")),
        )
        within, count = self._rows[some], some.stop - some.start
        cut = count > 0 and (within[0, 0] < first or within[-1, 1] > last)
        selector = faiss.IDSelectorRange(first, last, True) if cut else None
        wanted = math.ceil(_OVER_FETCH * k / share)
        if count <= _FEW_LISTS:
            lists = min(count, math.ceil(codes * count / (last - first)))
            return self._search(queries, wanted, some, faiss.SearchParametersIVF(sel=selector, nprobe=lists))
        lists = math.ceil(codes * self._index.nlist / (last - first))
        parameters = faiss.SearchParametersIVF(nprobe=min(lists, self._index.nlist))
        if last - first < self._index.ntotal:
            selector = faiss.IDSelectorRange(first, last, True)
            parameters = faiss.SearchParametersIVF(
                sel=selector, nprobe=min(2 * lists, self._index.nlist), max_codes=codes
            )
        graph = faiss.SearchParametersHNSW(efSearch=max(_EF_SEARCH, 3 * parameters.nprobe // 2))
        parameters.quantizer_params = graph
        return self._index.search(queries, wanted, params=parameters)[1]

    def _search(self, queries: np.ndarray, k: int, some: slice, parameters: Any) -> np.ndarray:
        """int64 [m, k]: photos of the nearest of some lists; -1 for none."""
        import faiss

        m, lists = len(queries), parameters.nprobe
        queries = np.ascontiguousarray(queries)
        near = queries @ self._centroids[some].T
        nearest = np.argpartition(near, near.shape[1] - lists, axis=1)[:, near.shape[1] - lists :]
        scores = near[np.arange(m)[:, None], nearest]
        nearest = nearest + some.start
        found, distances = np.empty((m, k), np.int64), np.empty((m, k), np.float32)
        pointers = [faiss.swig_ptr(array) for array in (nearest, scores, distances, found)]
        self._index.search_preassigned_c(m, faiss.swig_ptr(queries), k, *pointers, False, parameters)
        return found

    def nearest(self, gallery: Gallery, queries: np.ndarray, k: int, ranges: Sequence[Range]) -> TopK | None:
        """Like `scan.best`, approximately; None if an exact scan should answer.

        That is so if the range is small, if few of its products pass the filter, or if the lists give fewer than k
        products although more exist. Products that a delta added are not in the lists and are searched exactly.
        """
        start = gallery.start
        size = sum(high - low for low, high, _ in ranges)
        barred = sum(int(excluded.sum()) for *_, excluded in ranges if excluded is not None)
        if size < self.config.least or size - barred < _LEAST_ALLOWED * size:
            return None
        candidates = []
        for low, high, excluded in ranges:
            first, last = int(start[low]), int(start[high])
            if last > self._index.ntotal:
                candidates.append(scan.best(gallery, queries, k, [Range(low, high, excluded)]).products)
            elif low < high:
                k_photos = k * -(-(last - first) // (high - low))
                products = self.photos(queries, k_photos, first, last, 1 - barred / size)
                if not gallery.one_photo_each:
                    products = np.where(products < 0, -1, np.searchsorted(start, products, side="right") - 1)
                if excluded is not None:
                    products = np.where(excluded[np.maximum(products - low, 0)], -1, products)
                candidates.append(products)
        top = scan.among(gallery, queries, k, np.concatenate(candidates, axis=1))
        return top if top.products.shape[1] == min(k, size - barred) else None


def _centers(vectors: Vectors, first: int, last: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """float32 [count, d]: the centers of clusters of the vectors from `first` to `last`."""
    import faiss

    if count == 1:
        return vectors.block(first, last).mean(axis=0, keepdims=True)
    some = np.sort(first + rng.choice(last - first, min(last - first, _TRAINING_PHOTOS * count), replace=False))
    means = faiss.Kmeans(vectors.shape[1], count, niter=10, min_points_per_centroid=1, gpu=faiss.get_num_gpus() > 0)
    means.train(vectors.take(some))
    return means.centroids
