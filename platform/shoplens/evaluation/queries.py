"""Short queries on the photos of a split: how many of the first ten answers have what the query asks for.

Queries and their meaning come from the shop's own names and titles (`curation.short_queries`): a category ("sneakers",
"운동화"), or a category and one more fact ("navy backpack"). Right is a photo whose product has the asked facts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from shoplens.curation.short_queries import ANY, ShortQueries
from shoplens.evaluation.embedded import EmbeddedSplit
from shoplens.evaluation.results import Findings, MetricInfo

TITLE = "Short queries find photos"
PLACES = 10
LEAST_RIGHT = 3
"""A query with fewer right photos in the split is left out."""
MOST = 1000
"""Queries of each number of facts that are asked at most, drawn at random."""
HANGUL = re.compile(r"[가-힣]")


def search(
    split: EmbeddedSplit,
    facts: np.ndarray,
    queries: ShortQueries,
    levels: int,
    encode: Callable[[Sequence[str]], np.ndarray],
) -> Findings:
    """`search/precision@10` and `search/ndcg@10`, and the precision by language and number of words.

    facts    codes of the split's products, int64 [p, keys]
    levels   the first so many keys are categories
    encode   texts -> unit vectors [n, d]

    The precision divides by the places that can be right: by 3 if 3 photos of the split have what the query asks for.
    """
    found = Findings(titles={"search": TITLE})
    asked = queries.keep(_asked(queries, levels))
    right = asked.right_for(facts[split.product])
    kept = right.sum(1) >= LEAST_RIGHT
    found.about["queries_without_answer"] = {"search": int((~kept).sum())}
    asked, right = asked.keep(np.flatnonzero(kept)), right[kept]
    if not len(asked):
        return found
    texts = asked.texts
    scores = encode(texts) @ split.images.T
    first = np.argsort(-scores, axis=1, kind="stable")[:, :PLACES]
    hits = np.take_along_axis(right, first, 1).astype(np.float64)
    n_right = right.sum(1)
    most = np.minimum(n_right, PLACES)
    precision = hits.sum(1) / most
    gain = 1 / np.log2(np.arange(2, PLACES + 2))
    ndcg = hits @ gain[: hits.shape[1]] / np.cumsum(gain)[most - 1]
    group = np.unique(asked.asks, axis=0, return_inverse=True)[1].ravel()
    chance = n_right / right.shape[1] * np.minimum(PLACES, right.shape[1]) / most

    def add(name: str, title: str, outcomes: np.ndarray, rows: np.ndarray, headline: bool = False) -> None:
        info = MetricInfo(title=title, task_title=TITLE, headline=headline)
        found.add(f"search/{name}", outcomes[rows], group[rows], float(chance[rows].mean()), info)

    everything = np.arange(len(asked))
    add("precision@10", "precision@10", precision, everything, headline=True)
    add("ndcg@10", "nDCG@10", ndcg, everything)
    korean = np.array([HANGUL.search(text) is not None for text in texts])
    words = np.array([len(text.split()) for text in texts])
    for language, of_language in (("ko", korean), ("other", ~korean)):
        for length, label in ((1, "1 word"), (2, "2 words or more")):
            rows = np.flatnonzero(of_language & ((words == 1) if length == 1 else (words > 1)))
            if len(rows):
                add(f"precision@10/{language}/{length}", f"precision@10, {language}, {label}", precision, rows)
    return found


def _asked(queries: ShortQueries, levels: int) -> np.ndarray:
    """Queries for a category, alone or with one more fact: positions, int64, at most MOST of each."""
    facts = queries.asks != ANY
    of_category, further = facts[:, :levels].sum(1), facts[:, levels:].sum(1)
    chosen = []
    for count in (0, 1):
        rows = np.flatnonzero((of_category > 0) & (further == count))
        if len(rows) > MOST:
            rows = np.sort(np.random.default_rng(0).choice(rows, MOST, replace=False))
        chosen.append(rows)
    return np.concatenate(chosen)
