"""Approximate search of large ranges: inverted lists give candidates, float64 sums rank them.

The lists are Faiss's (IVF with int8 codes, centroids in an HNSW graph). A photo takes d + 8 bytes beside its vector. A
search reads the part of a few lists that lies in the range. Scores are exact and in exact order; a product can be missed
only if its list was not read.

Centroids are trained on GPUs if there are any. Search stays on the CPU: Faiss's GPU indexes have no graph of centroids
(facebookresearch/faiss#2361), and without cuVS they ignore the range to search (#3114, #3924).
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
from shoplens.search.scan import Gallery, Range, TopK
from shoplens.search.storage import Vectors, blocks

_SAMPLE = 256
"""Photos of the index that serve as queries when the recall is measured."""
_NEAREST = 20
"""The k at which the recall is measured."""
_TRAINING_PHOTOS = 32
"""Photos a list from which centroids are trained."""
_OVER_FETCH = 2
"""Over-fetch 2k candidates: int8 codes cannot separate close neighbours."""
_EF_SEARCH = 64
"""Breadth of the search for the nearest lists (HNSW `efSearch`): 64 misses almost none."""
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

    def __init__(self, path: str | os.PathLike[str], parameters: Mapping[str, Any]) -> None:
        import faiss

        self.config = Approximate(least=parameters["least"], recall=parameters["recall"])
        self.max_codes: int = parameters["codes"]
        self._index = faiss.read_index(os.fspath(path), faiss.IO_FLAG_MMAP_IFC)

    @property
    def parameters(self) -> dict[str, Any]:
        """The entry `approximate` of `index.json`."""
        return {**self.config.model_dump(), "codes": self.max_codes}

    @classmethod
    def build(cls, path: str | os.PathLike[str], vectors: Vectors, longest: float, config: Approximate) -> Self:
        """Writes the inverted lists of `vectors` to `path`; `longest` is the greatest length of a vector."""
        import faiss

        n, dimension = vectors.shape
        count = min(n, round(4 * n**0.5))
        rng = np.random.default_rng(0)
        training = np.sort(rng.choice(n, min(n, _TRAINING_PHOTOS * count), replace=False))
        index = faiss.index_factory(dimension, f"IVF{count}_HNSW32,SQ8", faiss.METRIC_INNER_PRODUCT)
        faiss.downcast_index(index.quantizer).hnsw.efSearch = _EF_SEARCH
        index.cp.min_points_per_centroid = 1
        assigner = faiss.IndexFlatL2(dimension)
        if faiss.get_num_gpus():
            assigner = faiss.index_cpu_to_all_gpus(assigner)
        index.clustering_index = assigner
        index.train(vectors.take(training))
        index.clustering_index = None
        for rows in blocks(n, dimension):
            index.add(vectors.block(rows.start, rows.stop))
        faiss.write_index(index, os.fspath(path))
        del index
        lists = cls(path, {**config.model_dump(), "codes": _NEAREST})
        lists._tune(vectors, longest)
        return lists

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
        lists = min(self._index.nlist, math.ceil(2 * codes * self._index.nlist / (last - first)))
        selector = faiss.IDSelectorRange(first, last, True)
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=lists, max_codes=codes)
        return self._index.search(queries, math.ceil(_OVER_FETCH * k / share), params=parameters)[1]

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
