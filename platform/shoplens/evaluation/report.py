"""The one-page report of an evaluation: figures beside chance, and pictures of hits and misses."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from shoplens.datasets.format import Dataset
from shoplens.datasets.images import decode
from shoplens.errors import ShoplensError
from shoplens.evaluation.embedded import EmbeddedSplit
from shoplens.evaluation.leaks import warning
from shoplens.evaluation.matching import matching
from shoplens.evaluation.ranking import Answers, Retrieval, nearest
from shoplens.evaluation.results import Evaluation, Metric
from shoplens.evaluation.tasks import image_to_text, text_to_image

THUMBNAIL = 150
"""Longest side of the pictures, pixels."""
ANSWERS = 5

TASK_TITLES = {
    "text_to_image": "Text finds photos",
    "image_to_text": "Photo finds texts",
    "matching/image": "Product matching by photo",
    "matching/text": "Product matching by text",
    "matching/fused": "Product matching by photo and text",
    "zero_shot_category": "Category without training on it",
    "matching": "Product matching",
    "clustering": "Product clustering",
    "attributes": "Attributes, by linear heads",
    "attributes_with_category": "Attributes, by linear heads where the category is known",
    "attributes_zero_shot": "Attributes, by the nearest prompt",
    "category": "Category, by a linear probe",
    "category_zero_shot": "Category, by the nearest path text",
    "restricted": "Restricted products",
}
PRODUCT_TASKS = tuple(TASK_TITLES)[6:]
METRIC_TITLES = {
    "map": "mAP",
    "map@r": "mAP@R",
    "hard_recall@1": "recall@1 within the category",
    "pair_ap": "AP of pairs",
    "hard_pair_ap": "AP of pairs within a category",
    "pair_f1": "F1 of pairs",
    "macro_f1": "macro-F1, mean over keys",
    "coverage": "answered",
    "precision": "right where answered",
    "ece": "calibration error",
    "tree_distance": "distance in the tree",
    "ap": "AP",
    "recall@precision": "recall at the threshold",
    "precision@precision": "precision at the threshold",
    **{
        f"{way}_{metric}": f"{title}, {way}"
        for way in ("components", "agglomerative")
        for metric, title in (
            ("pairwise_f1", "pairwise F1"),
            ("b_cubed_f1", "B-cubed F1"),
            ("ari", "ARI"),
            ("ami", "AMI"),
        )
    },
}
MODALITY_TITLES = {"image": "by photo", "text": "by text", "fused": "by both"}
SHOWN_APART = {
    "counts", "queries_without_answer", "accuracy_by_category", "tasks", "leaks", "thresholds", "clusters",
    "attributes", "reliability", "mistakes", "restricted",
}  # fmt: skip


@dataclass(frozen=True)
class Card:
    """A photo or a text as the page shows it: `right` is None for a query."""

    text: str
    picture: str | None = None
    right: bool | None = None
    score: float | None = None


@dataclass(frozen=True)
class Case:
    """One query with its answers, best first; `missed` is its best right answer where it was not the first."""

    query: Card
    answers: list[Card]
    missed: Card | None
    rank: int


@dataclass(frozen=True)
class Showcase:
    title: str
    explanation: str
    hits: list[Case]
    misses: list[Case]


def report(evaluation: Evaluation, split: EmbeddedSplit, dataset: Dataset, *, cases: int = 4) -> str:
    """The page as one HTML text with its pictures inside.

    Shows up to `cases` hits and misses of each pictured task, of different catalogs, drawn by the
    evaluation's seed. Raises ShoplensError if `evaluation` was not made from `split`.
    """
    return render(
        evaluation,
        showcases(evaluation, split, dataset, cases=cases),
        wrong_answers(evaluation, split, dataset),
        near_duplicates(evaluation, dataset),
    )


def showcases(evaluation: Evaluation, split: EmbeddedSplit, dataset: Dataset, *, cases: int = 4) -> list[Showcase]:
    """Hits and misses of the tasks that have queries."""
    told: list[tuple[str, Callable[[EmbeddedSplit], Retrieval], str]] = [
        ("text_to_image", text_to_image, "The text of a product, and the photos nearest to it."),
        ("image_to_text", image_to_text, "A photo, and the texts nearest to it among the distinct texts of the split."),
        (
            "matching/image",
            lambda split: matching(split, "image"),
            "A photo, and the nearest photos of other listings (of the same listing where a product has only one).",
        ),
    ]
    shown = []
    for name, make, explanation in told:
        outcomes = evaluation.outcomes.get(f"{name}/recall@1")
        if outcomes is None:
            continue
        task = make(split)
        if len(task) != len(outcomes):
            raise ShoplensError(
                f"the evaluation has {len(outcomes)} queries of {name}, the split {len(task)}: evaluate again"
            )
        rng = np.random.default_rng(evaluation.about.get("seed", 0))
        hits, misses = (
            [
                _case(name, answers, task, split, dataset)
                for answers in nearest(task, _spread(np.flatnonzero(outcomes == hit), task.group, cases, rng), ANSWERS)
            ]
            for hit in (1.0, 0.0)
        )
        shown.append(Showcase(TASK_TITLES[name], explanation, hits, misses))
    return shown


def wrong_answers(evaluation: Evaluation, split: EmbeddedSplit, dataset: Dataset) -> dict[str, list[Card]]:
    """Task title -> what the heads said most surely and wrongly, by photo and by both."""
    shown: dict[str, list[Card]] = {}
    for name, found in sorted(evaluation.about.get("mistakes", {}).items()):
        task, modality = name.split("/")
        if modality == "text" or not found:
            continue
        cards = []
        for one in found:
            picture = thumbnail(dataset.read_image(int(split.samples[one["row"]])))
            text = f"said {one['said']}, is {one['truth']}"
            cards.append(Card(text, picture, False, one["confidence"]))
        shown[f"{TASK_TITLES[task]}, {MODALITY_TITLES[modality]}"] = cards
    return shown


def near_duplicates(evaluation: Evaluation, dataset: Dataset) -> list[tuple[Card, Card]]:
    """Photos of the split beside those that they resemble in the splits it should not overlap."""
    titles, split_of = dataset.products["title"], dataset.images["split"]

    def card(sample: int) -> Card:
        title = titles[int(dataset.product_row[sample])].as_py()
        return Card(f"{split_of[sample].as_py()}: {title}", thumbnail(dataset.read_image(sample)))

    return [(card(ours), card(theirs)) for ours, theirs in evaluation.about.get("leaks", {}).get("near", [])]


def render(
    evaluation: Evaluation,
    shown: list[Showcase],
    wrong: Mapping[str, list[Card]] | None = None,
    near: Sequence[tuple[Card, Card]] = (),
) -> str:
    """The page as self-contained HTML; every text is escaped, and the page forbids itself scripts and loading."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    about = evaluation.about
    tasks, products, attributes = _tables(evaluation.metrics)
    return environment.get_template("report.html.j2").render(
        model=about.get("model", "model"),
        dataset=about.get("dataset", "dataset"),
        split=about.get("split", ""),
        facts=[(key.replace("_", " "), value) for key, value in about.items() if key not in SHOWN_APART],
        counts=about.get("counts", {}),
        without_answer={_title(task): n for task, n in about.get("queries_without_answer", {}).items() if n},
        leak=warning(about.get("leaks")),
        near=near,
        tasks=[(TASK_TITLES.get(task, task), rows) for task, rows in tasks.items()],
        products=[
            (TASK_TITLES[task], [(METRIC_TITLES.get(name, name), cells) for name, cells in rows.items()])
            for task, rows in products.items()
        ],
        modalities=MODALITY_TITLES,
        attributes=attributes,
        told=about.get("attributes", {}),
        clusters={_title(name): told for name, told in about.get("clusters", {}).items()},
        restricted=about.get("restricted"),
        reliability={_title(name): bins for name, bins in about.get("reliability", {}).items()},
        categories=sorted(about.get("accuracy_by_category", []), key=lambda row: row["accuracy"]),
        shown=shown,
        wrong=wrong or {},
        percent=percent,
        lift=_lift,
        known=lambda value: value is not None and not math.isnan(value),
    )


Cells = dict[str, Metric]
"""Modality -> metric."""


def _tables(
    metrics: Mapping[str, Metric],
) -> tuple[dict[str, list[tuple[str, Metric]]], dict[str, dict[str, Cells]], dict[str, dict[str, Cells]]]:
    """Metrics as tables: task -> rows; product task -> metric -> modalities; attribute key -> task -> modalities."""
    tasks: dict[str, list[tuple[str, Metric]]] = {}
    products: dict[str, dict[str, Cells]] = {}
    attributes: dict[str, dict[str, Cells]] = {}
    for name, metric in metrics.items():
        task, _, rest = name.partition("/")
        modality, _, short = rest.partition("/")
        what, _, key = short.partition(":")
        if task not in PRODUCT_TASKS or modality not in MODALITY_TITLES:
            task, _, short = name.rpartition("/")
            tasks.setdefault(task, []).append((short, metric))
        elif key:
            attributes.setdefault(key, {}).setdefault(task, {})[modality] = metric
        else:
            products.setdefault(task, {}).setdefault(what, {})[modality] = metric
    return tasks, {task: products[task] for task in PRODUCT_TASKS if task in products}, attributes


def _title(name: str) -> str:
    """`matching/image` -> `Product matching by photo`, `clustering/text/components` -> `..., components`."""
    if name in TASK_TITLES:
        return TASK_TITLES[name]
    task, *rest = name.split("/")
    return ", ".join([TASK_TITLES.get(task, task), *(MODALITY_TITLES.get(part, part) for part in rest)])


def percent(share: float) -> str:
    """`0.1234` -> `12.3`, `0.00012` -> `0.012`."""
    return f"{100 * share:.1f}" if abs(share) < 5e-6 or abs(share) >= 0.001 else f"{100 * share:.2g}"


def _lift(metric: Metric) -> str:
    if not metric.chance:
        return ""
    lift = metric.value / metric.chance
    return f"{lift:.0f}×" if lift >= 10 else f"{lift:.1f}×"


def _spread(queries: np.ndarray, group: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Up to n queries at random, of as many groups as there are."""
    queries = rng.permutation(queries)
    first = np.unique(group[queries], return_index=True)[1]
    rest = np.setdiff1d(np.arange(len(queries)), first)
    return queries[np.concatenate([np.sort(first), rest]).astype(np.int64)[:n]]


def _case(name: str, answers: Answers, task: Retrieval, split: EmbeddedSplit, dataset: Dataset) -> Case:
    asks_text, answers_text = name == "text_to_image", name == "image_to_text"

    def card(row: int, text_only: bool, **judged: Any) -> Card:
        if text_only:
            return Card(split.texts[row], **judged)
        picture = thumbnail(dataset.read_image(int(split.samples[row])))
        return Card(split.texts[split.product[row]], picture, **judged)

    found = [
        card(int(task.gallery_row[item]), answers_text, right=bool(right), score=float(score))
        for item, right, score in zip(answers.items, answers.right, answers.scores, strict=True)
    ]
    missed = None
    if answers.best_right_rank > len(answers.items):
        score = float(task.queries[answers.query] @ task.gallery[answers.best_right])
        missed = card(int(task.gallery_row[answers.best_right]), answers_text, right=True, score=score)
    query = card(int(task.query_row[answers.query]), asks_text)
    return Case(query, found, missed, answers.best_right_rank)


def thumbnail(data: bytes) -> str:
    """A photo's bytes -> a small JPEG as data URI."""
    image = decode(data, draft=2 * THUMBNAIL).image
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
