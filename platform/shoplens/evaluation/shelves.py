"""Rankings of candidate photos for topics: the figures, and the shelves that the report shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shoplens.curation.topics import TopicProducts
from shoplens.datasets.format import Dataset
from shoplens.evaluation.report import Card, Case, Showcase, thumbnail
from shoplens.evaluation.results import Findings
from shoplens.evaluation.topics import CandidateList, match_topics, rank_candidates
from shoplens.schema import Topic


def judge(
    table: TopicProducts,
    item: np.ndarray,
    vectors: np.ndarray,
    topic: np.ndarray,
    query: np.ndarray,
    category: Sequence[str],
) -> Findings:
    """table's topics t: vectors [photos, d] of which `item` [n] is each candidate's, topic and query [t, d]."""
    groups = table.groups()
    found = match_topics(
        topic,
        vectors,
        [
            CandidateList(int(table.topic[rows[0]]), item[rows][table.listed[rows]], table.liked[rows])
            for rows in groups
        ],
    )
    if not np.isnan(table.liked).any():
        lists = [CandidateList(int(table.topic[rows[0]]), item[rows], table.liked[rows]) for rows in groups]
        scores = [vectors[one.items] @ query[place] for place, one in enumerate(lists)]
        found.include(rank_candidates(scores, lists, category))
    return found


def shelves(
    table: TopicProducts,
    item: np.ndarray,
    vectors: np.ndarray,
    query: np.ndarray,
    gallery: np.ndarray,
    topics: Sequence[Topic],
    dataset: Dataset,
    n: int = 6,
) -> list[Showcase]:
    """Some topics with their candidates, best score first; the 20 % of them that were liked best are marked."""
    titles = dataset.products["title"].to_pylist()
    shown: list[Case] = []
    groups = table.groups()
    for place in np.random.default_rng(0).permutation(len(groups))[:n].tolist():
        rows = groups[place]
        topic = topics[int(table.topic[rows[0]])]
        scores = vectors[item[rows]] @ query[place]
        known = not np.isnan(table.liked[rows]).any()
        right = table.liked[rows] >= np.quantile(table.liked[rows], 0.8) if known else table.listed[rows]
        order = np.argsort(-scores, kind="stable")
        cards = [
            Card(
                titles[int(table.product[rows[i]])],
                thumbnail(dataset.read_image(int(gallery[item[rows[i]]]))),
                bool(right[i]),
                float(scores[i]),
            )
            for i in order[:8].tolist()
        ]
        said = " · ".join(filter(None, (topic.name, topic.desc, topic.date, topic.cat1, topic.cat2)))
        shown.append(Case(Card(said), cards, None, 1 + int(np.argmax(right[order]))))
    explanation = "A topic and its candidates, best score first."
    legend = "Green is among the 20 % that shoppers liked best, red is not. The number is the score."
    return [Showcase("Shelves", explanation, shown, [], legend=legend)]
