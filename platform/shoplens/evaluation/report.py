"""The page of an evaluation: metrics beside chance, and pictures of hits and misses, for any recipe.

The page shows what the metrics say of themselves (see `results.MetricInfo`).
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from shoplens.datasets.images import decode
from shoplens.evaluation.embedded import MODALITY_TITLES, Modality
from shoplens.evaluation.leaks import warning
from shoplens.evaluation.results import Evaluation, Metric

FEW_GROUPS = 20
"""The page warns of intervals over fewer groups."""
THUMBNAIL = 150
"""Longest side of the pictures, pixels."""


@dataclass(frozen=True)
class Card:
    """A photo or a text on the page. `right` is None for a query."""

    text: str
    picture: str | None = None
    right: bool | None = None
    score: float | None = None


@dataclass(frozen=True)
class Case:
    """One query with its answers, best first. `missed` is its best right answer if that is not among `answers`."""

    query: Card
    answers: list[Card]
    missed: Card | None
    rank: int


@dataclass(frozen=True)
class Showcase:
    """Hits and misses of one task as pictures. `legend` says what the colours and the number of a card mean."""

    title: str
    explanation: str
    hits: list[Case]
    misses: list[Case]
    legend: str = field(
        default="Green is the same product, red is another; the number is the cosine similarity.", kw_only=True
    )


def render(
    evaluation: Evaluation,
    shown: Sequence[Showcase] = (),
    wrong: Mapping[str, Sequence[Card]] | None = None,
    near: Sequence[tuple[Card, Card]] = (),
) -> str:
    """The page as self-contained HTML. Every text is escaped; the page forbids scripts and loading.

    shown   pictured tasks
    wrong   task title -> the wrong answers of highest probability
    near    near-duplicates: a photo of the split, and a photo of the splits that were learnt from
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    about = evaluation.about
    titles = about.get("titles", {})
    tables = _tables(evaluation.metrics)

    def titled(key: str) -> dict[str, Any]:
        return {titles.get(name, name): value for name, value in about.get(key, {}).items()}

    return environment.get_template("report.html.j2").render(
        model=about.get("model", "model"),
        dataset=about.get("dataset", "dataset"),
        split=about.get("split", ""),
        facts=[(key.replace("_", " "), value) for key, value in about.items() if isinstance(value, str | int | float)],
        counts=about.get("counts", {}),
        notes=about.get("notes", {}),
        without_answer={title: n for title, n in titled("queries_without_answer").items() if n},
        few_groups=_few_groups(evaluation),
        leak=warning(about.get("leaks")),
        near=near,
        tasks=tables.tasks,
        shares_only=all(metric.unit == "share" for rows in tables.tasks.values() for _, metric in rows),
        any_chance=any(metric.chance is not None for rows in tables.tasks.values() for _, metric in rows),
        products=tables.by_modality,
        modalities=MODALITY_TITLES,
        attribute_columns=tables.attribute_columns,
        attributes=tables.by_attribute,
        attribute_counts=about.get("attributes", {}),
        clusters=titled("clusters"),
        restricted=about.get("restricted"),
        reliability=titled("reliability"),
        breakdowns={titles[key]: rows for key, rows in about.items() if key in titles and _is_table(rows)},
        categories=sorted(about.get("accuracy_by_category", []), key=lambda row: row["accuracy"]),
        shown=shown,
        wrong=wrong or {},
        figure=figure,
        number=_number,
        percent=percent,
        lift=_lift,
        known=lambda value: value is not None and not math.isnan(value),
    )


def _few_groups(evaluation: Evaluation) -> dict[str, int]:
    """Task title -> number of bootstrap groups, where intervals rest on fewer than `FEW_GROUPS`."""
    found: dict[str, int] = {}
    for name, metric in evaluation.metrics.items():
        n = len(np.unique(evaluation.groups[name])) if name in evaluation.groups else 0
        if 1 < n < FEW_GROUPS:
            title = metric.task_title or name.rpartition("/")[0] or name
            found[title] = min(n, found.get(title, n))
    return found


@dataclass(frozen=True)
class _Tables:
    """Metrics as the tables of the page, in the order of the metrics."""

    tasks: dict[str, list[tuple[str, Metric]]]
    """task title -> rows of (title, metric): metrics without modality"""
    by_modality: dict[str, dict[str, dict[Modality, Metric]]]
    """task title -> title -> modality -> metric"""
    by_attribute: dict[str, dict[str, Metric]]
    """attribute key -> column title -> metric"""

    @property
    def attribute_columns(self) -> list[str]:
        return list(dict.fromkeys(title for row in self.by_attribute.values() for title in row))


def _tables(metrics: Mapping[str, Metric]) -> _Tables:
    tables = _Tables({}, {}, {})
    for name, metric in metrics.items():
        task, _, short = name.rpartition("/")
        task, title = metric.task_title or task, metric.title or short
        if metric.unit != "share":
            title = f"{title}, {metric.unit}"
        if metric.attribute:
            tables.by_attribute.setdefault(metric.attribute, {})[title] = metric
        elif metric.modality is not None:
            tables.by_modality.setdefault(task, {}).setdefault(title, {})[metric.modality] = metric
        else:
            tables.tasks.setdefault(task, []).append((title, metric))
    return tables


def _is_table(value: Any) -> bool:
    """Whether `value` maps rows to columns to numbers."""
    rows = value.values() if isinstance(value, Mapping) else ()
    numbers = [number for row in rows if isinstance(row, Mapping) for number in row.values()]
    return bool(numbers) and all(isinstance(number, int | float) for number in numbers)


def figure(value: float, unit: str = "share") -> str:
    """A share in per cent; a value of any other unit as a plain number."""
    return percent(value) if unit == "share" else _number(value)


def percent(share: float) -> str:
    """`0.1234` -> `12.3`, `0.00012` -> `0.012`."""
    return f"{100 * share:.1f}" if abs(share) < 5e-6 or abs(share) >= 0.001 else f"{100 * share:.2g}"


def _number(value: float) -> str:
    """`12345.6` -> `12,346`, `12.3456` -> `12.35`."""
    return f"{value:,.0f}" if abs(value) >= 1000 or isinstance(value, int) else f"{value:.4g}"


def _lift(metric: Metric) -> str:
    """How many times chance a share is; empty for an error, where less than chance is better."""
    if not metric.chance or metric.lower_is_better or metric.unit != "share":
        return ""
    lift = metric.value / metric.chance
    return f"{lift:.0f}×" if lift >= 10 else f"{lift:.1f}×"


def thumbnail(data: bytes) -> str:
    """Encodes a photo's bytes as a small JPEG in a data URI."""
    image = decode(data, draft=2 * THUMBNAIL).image
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
