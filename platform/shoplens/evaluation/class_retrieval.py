"""Retrieval among photos of classes, the task of metric learning. A query never retrieves itself."""

from __future__ import annotations

import numpy as np

from shoplens.evaluation.metrics import TIE
from shoplens.evaluation.ranking import Retrieval, members


def class_retrieval(vectors: np.ndarray, label: np.ndarray, items: np.ndarray | None = None) -> Retrieval:
    """Each photo is a query for the other photos of its class. The gallery is all photos but itself.

    vectors  [n, d], compared by inner product
    label    int64 [n] class of each photo; a photo of a negative class is in the gallery but is no query
    items    [n, d] the same photos as gallery items, if these have other vectors: `hyperbolic.lift_items` of points
             whose `lift_queries` are `vectors`; both float64. Scores of lifted points count as equal within `TIE` of
             their scale, the mean squared length without the last number, since it may be much less than 1.

    The query is left out by its place, not as the best hit: a copy of it is right if it has the same class, and
    wrong otherwise. A photo alone in its class is no query and counts in `n_without_answer`.
    """
    photos = np.arange(len(vectors))
    code = np.unique(np.where(label < 0, -1 - photos, label), return_inverse=True)[1]
    asked = np.flatnonzero(np.bincount(code)[code] > 1)
    return Retrieval(
        queries=vectors[asked],
        query_row=asked,
        query_key=code[asked],
        group=code[asked],
        gallery=vectors if items is None else items,
        gallery_row=photos,
        right=members(code, int(code.max(initial=-1)) + 1),
        query_owner=asked,
        left_out=members(photos, len(photos)),
        n_without_answer=len(photos) - len(asked),
        tie=TIE if items is None else TIE * min(1.0, float(np.square(vectors[:, :-1]).sum(axis=1).mean())),
    )
