"""A ranking of photos for a topic: the query that scores them, and why each photo scores as it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Query(NamedTuple):
    """Unit rows [n, dim]: the topics as the text tower sees them, and the queries that photos are scored with."""

    topic: np.ndarray
    query: np.ndarray


class Reasons(NamedTuple):
    """`score` [n] in -1 to 1 and its two parts: `fit`, along the topic itself, and `attraction`, the rest."""

    score: np.ndarray
    fit: np.ndarray
    attraction: np.ndarray


@dataclass(frozen=True)
class Place:
    """One photo in a ranking. `index` is its position in the request."""

    index: int
    score: float
    fit: float
    attraction: float


def reasons(topic: np.ndarray, query: np.ndarray, vectors: np.ndarray) -> Reasons:
    """Splits the scores of vectors [n, dim]: query [dim] = (query . topic) topic + rest, each applied to the vectors."""
    along = (query @ topic) * topic
    score, fit = vectors @ query, vectors @ along
    return Reasons(score, fit, score - fit)


def places(found: Reasons, top_n: int | None = None) -> list[Place]:
    """The `top_n` best by score. Photos of equal score keep their order."""
    order = np.argsort(-found.score, kind="stable")[:top_n]
    return [Place(int(i), *(float(part[i]) for part in found)) for i in order]
