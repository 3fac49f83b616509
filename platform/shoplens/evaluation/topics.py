"""Photos ranked for topics: is the product that shoppers liked best found, and do topic and photo find each other?

Equal scores stand in every order with equal chance, and so do products that were liked equally: every figure is
the expectation over both, so that a model without an opinion scores exactly what chance does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from shoplens.evaluation.metrics import TIE, chance_recall, recall_at
from shoplens.evaluation.ranking import Retrieval, rank
from shoplens.evaluation.results import Findings

TOPS = (1, 3, 5)
NDCG_AT = (5, 10)
RECALLS = (1, 5, 10)


@dataclass(frozen=True)
class CandidateList:
    """One topic: `topic` is its row; `items` [n] are places in a gallery of photos, `liked` [n] how much each was."""

    topic: int
    items: np.ndarray
    liked: np.ndarray


def ranking_figures(scores: np.ndarray, liked: np.ndarray) -> dict[str, float]:
    """Of one list [n], with the true best, the most liked of it:

    mrr         1 / (place that the scores give to the true best)
    topN_top1   the first by score is among the N most liked (CLIK's Topn-Top1)
    best_in_N   the true best is among the first N by score
    ndcg@k      gains of liking, discounted by place (Järvelin & Kekäläinen 2002; ties: McSherry & Najork 2008)
    """
    n = len(scores)
    ahead, tied = _places(scores, TIE)
    better, equal = _places(liked, 0.0)
    best = better == 0
    first = ahead == 0
    found = {"mrr": float(np.mean([_mean_reciprocal(a, t) for a, t in zip(ahead[best], tied[best], strict=True)]))}
    for top in TOPS:
        found[f"top{top}_top1"] = float(np.clip((top - better[first]) / equal[first], 0, 1).mean())
        found[f"best_in_{top}"] = float(np.clip((top - ahead[best]) / tied[best], 0, 1).mean())
    discount = 1 / np.log2(np.arange(n) + 2)
    gain = liked - min(0.0, float(liked.min()))
    for k in NDCG_AT:
        until = np.concatenate([[0.0], np.cumsum(np.where(np.arange(n) < k, discount, 0))])
        ideal = float(np.sort(gain)[::-1][:k] @ discount[:k])
        expected = (until[ahead + tied] - until[ahead]) / tied
        found[f"ndcg@{k}"] = float(gain @ expected) / ideal if ideal > 0 else 1.0
    return found


def rank_candidates(scores: Sequence[np.ndarray], lists: Sequence[CandidateList], category: Sequence[str]) -> Findings:
    """`ranking/...` over lists, each a bootstrap group of its own; `category` of each is told apart in `about`."""
    found = Findings()
    figures = [ranking_figures(s, one.liked) for s, one in zip(scores, lists, strict=True)]
    by_chance = [ranking_figures(np.zeros(len(one.liked)), one.liked) for one in lists]
    group = np.array([one.topic for one in lists], dtype=np.int64)
    for name in figures[0] if figures else ():
        values = np.array([each[name] for each in figures])
        found.add(f"ranking/{name}", values, group, float(np.mean([each[name] for each in by_chance])))
    found.about["ranking_by_category"] = {
        name: {
            "topics": category.count(name),
            **{
                key: float(np.mean([f[key] for f, c in zip(figures, category, strict=True) if c == name]))
                for key in ("mrr", "ndcg@10")
            },
        }
        for name in sorted(set(category))
    }
    return found


def match_topics(topics: np.ndarray, photos: np.ndarray, lists: Sequence[CandidateList]) -> Findings:
    """`topic_to_image/recall@k, mrr`: each topic asks for a photo of its own among all; `image_to_topic/...`.

    topics [t, d] unit rows in the order of `lists`, whose items are right for them; photos [n, d]. Photos that are
    right for no topic stay in the gallery and ask nothing, nor do topics without a photo of their own.
    """
    found = Findings()
    pairs = [(row, int(item)) for row, one in enumerate(lists) for item in one.items]
    topic, photo = (
        (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
        if pairs
        else (np.zeros(0, np.int64),) * 2
    )
    belongs = sparse.csr_array((np.ones(len(topic), np.int32), (topic, photo)), shape=(len(topics), len(photos)))
    of_photo = belongs.T.tocsr()
    asked, asking = (np.flatnonzero(np.diff(sparse_rows.indptr)) for sparse_rows in (of_photo, belongs))
    group = np.array([one.topic for one in lists], dtype=np.int64)
    ways = {
        "topic_to_image": Retrieval(
            queries=topics[asking], query_row=asking, query_key=asking, group=group[asking],
            gallery=photos, gallery_row=np.arange(len(photos)), right=belongs,
        ),
        "image_to_topic": Retrieval(
            queries=photos[asked], query_row=asked, query_key=asked, group=group[of_photo.indices[of_photo.indptr[asked]]],
            gallery=topics, gallery_row=np.arange(len(topics)), right=of_photo,
        ),
    }  # fmt: skip
    for name, task in ways.items():
        if not len(task):
            continue
        ranks = rank(task)
        found.add(f"{name}/mrr", 1 / (1 + ranks.first), task.group)
        for k in RECALLS:
            by_chance = chance_recall(k, ranks.n_right, ranks.n_gallery)
            found.add(f"{name}/recall@{k}", recall_at(k, ranks.first), task.group, float(by_chance.mean()))
    return found


def _places(values: np.ndarray, tie: float) -> tuple[np.ndarray, np.ndarray]:
    """Of each value [n]: how many are larger, and how many equal with itself among them, up to `tie`."""
    order = np.argsort(-values, kind="stable")
    step = np.concatenate([[True], -np.diff(values[order]) > tie]) if len(values) else np.zeros(0, bool)
    code = np.cumsum(step) - 1
    start = np.flatnonzero(step)
    size = np.diff(np.append(start, len(values)))
    ahead, tied = np.empty((2, len(values)), np.int64)
    ahead[order], tied[order] = start[code], size[code]
    return ahead, tied


def _mean_reciprocal(ahead: int, tied: int) -> float:
    """Mean of 1 / place over the places ahead + 1 to ahead + tied."""
    return float((1 / np.arange(ahead + 1, ahead + tied + 1)).mean())
