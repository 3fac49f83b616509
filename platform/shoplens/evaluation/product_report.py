"""The report of the product tasks: the page of an evaluation, with pictures from its split and dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoplens.datasets.format import Dataset
from shoplens.errors import ShoplensError
from shoplens.evaluation.embedded import EmbeddedSplit
from shoplens.evaluation.matching import matching
from shoplens.evaluation.ranking import Answers, Retrieval, nearest
from shoplens.evaluation.report import Card, Case, Showcase, render, thumbnail
from shoplens.evaluation.results import Evaluation
from shoplens.evaluation.tasks import image_to_text, text_to_image

ANSWERS = 5


@dataclass(frozen=True)
class Pictured:
    """A retrieval task that the page shows by pictures: its name, its queries, and which sides are texts."""

    name: str
    make: Callable[[EmbeddedSplit], Retrieval]
    explanation: str
    asks_text: bool = False
    answers_text: bool = False


PICTURED = (
    Pictured("text_to_image", text_to_image, "The text of a product, and the photos nearest to it.", asks_text=True),
    Pictured(
        "image_to_text",
        image_to_text,
        "A photo, and the texts nearest to it among the distinct texts of the split.",
        answers_text=True,
    ),
    Pictured(
        "matching/image",
        lambda split: matching(split, "image"),
        "A photo, and the nearest photos of other listings (of the same listing where a product has only one).",
    ),
)


def report(evaluation: Evaluation, split: EmbeddedSplit, dataset: Dataset, *, cases: int = 4) -> str:
    """The page as one HTML text that holds its pictures.

    Shows up to `cases` hits and misses of each pictured task, of different catalogs, drawn by the evaluation's seed.
    Raises ShoplensError if `evaluation` was not made from `split`.
    """
    return render(
        evaluation,
        showcases(evaluation, split, dataset, cases=cases),
        wrong_answers(evaluation, split, dataset),
        near_duplicates(evaluation, dataset),
    )


def showcases(evaluation: Evaluation, split: EmbeddedSplit, dataset: Dataset, *, cases: int = 4) -> list[Showcase]:
    """Hits and misses of the pictured tasks that have queries."""
    titles = evaluation.about.get("titles", {})
    shown = []
    for pictured in PICTURED:
        name = pictured.name
        outcomes = evaluation.outcomes.get(f"{name}/recall@1")
        if outcomes is None:
            continue
        task = pictured.make(split)
        if len(task) != len(outcomes):
            raise ShoplensError(
                f"the evaluation has {len(outcomes)} queries of {name}, the split {len(task)}: evaluate again"
            )
        rng = np.random.default_rng(evaluation.about.get("seed", 0))
        hits, misses = (
            [
                _case(pictured, answers, task, split, dataset)
                for answers in nearest(task, _spread(np.flatnonzero(outcomes == hit), task.group, cases, rng), ANSWERS)
            ]
            for hit in (1.0, 0.0)
        )
        shown.append(Showcase(titles.get(name, name), pictured.explanation, hits, misses))
    return shown


def wrong_answers(evaluation: Evaluation, split: EmbeddedSplit, dataset: Dataset) -> dict[str, list[Card]]:
    """Task title -> the wrong answers of highest probability, by photo and by both."""
    titles = evaluation.about.get("titles", {})
    shown: dict[str, list[Card]] = {}
    for name, found in sorted(evaluation.about.get("mistakes", {}).items()):
        if name.endswith("/text") or not found:
            continue
        cards = []
        for one in found:
            picture = thumbnail(dataset.read_image(int(split.samples[one["row"]])))
            text = f"said {one['said']}, is {one['truth']}"
            cards.append(Card(text, picture, False, one["confidence"]))
        shown[titles.get(name, name)] = cards
    return shown


def near_duplicates(evaluation: Evaluation, dataset: Dataset) -> list[tuple[Card, Card]]:
    """Pairs of a photo of the split and the photo it resembles in the splits that were learnt from."""
    titles, split_of = dataset.products["title"], dataset.images["split"]

    def card(sample: int) -> Card:
        title = titles[int(dataset.product_row[sample])].as_py()
        return Card(f"{split_of[sample].as_py()}: {title}", thumbnail(dataset.read_image(sample)))

    return [(card(ours), card(theirs)) for ours, theirs in evaluation.about.get("leaks", {}).get("near", [])]


def _spread(queries: np.ndarray, group: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Up to n random queries, of as many different groups as possible."""
    queries = rng.permutation(queries)
    first = np.unique(group[queries], return_index=True)[1]
    rest = np.setdiff1d(np.arange(len(queries)), first)
    return queries[np.concatenate([np.sort(first), rest]).astype(np.int64)[:n]]


def _case(pictured: Pictured, answers: Answers, task: Retrieval, split: EmbeddedSplit, dataset: Dataset) -> Case:
    def card(row: int, text_only: bool, **judged: Any) -> Card:
        if text_only:
            return Card(split.texts[row], **judged)
        picture = thumbnail(dataset.read_image(int(split.samples[row])))
        return Card(split.texts[split.product[row]], picture, **judged)

    found = [
        card(int(task.gallery_row[item]), pictured.answers_text, right=bool(right), score=float(score))
        for item, right, score in zip(answers.items, answers.right, answers.scores, strict=True)
    ]
    missed = None
    if answers.best_right_rank > len(answers.items):
        score = float(task.queries[answers.query] @ task.gallery[answers.best_right])
        missed = card(int(task.gallery_row[answers.best_right]), pictured.answers_text, right=True, score=score)
    query = card(int(task.query_row[answers.query]), pictured.asks_text)
    return Case(query, found, missed, answers.best_right_rank)
