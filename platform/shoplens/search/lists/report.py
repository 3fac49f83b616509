"""The report on lists of similar products, as one HTML page: summary, charts, and example lists."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from shoplens import evaluation as evaluation_room
from shoplens.evaluation.report import percent
from shoplens.evaluation.results import Evaluation, Metric
from shoplens.statistics.bootstrap import interval_of_draws

TITLES = {
    "full": "seeds with a full list",
    "violations": "places that break a rule",
    "duplicates": "places that repeat a listing",
    "duplicates_product": "places that repeat a product",
    "duplicates_component": "places that repeat a photo group",
    "duplicates_photo": "places that repeat a photo (perceptual hash)",
    "duplicates_truth": "places that truly repeat a product",
    "itself": "places that hold the seed",
    "itself_product": "places of the seed's product",
    "itself_component": "places of the seed's photo group",
    "itself_photo": "places with the seed's photo",
    "itself_truth": "places that are truly the seed's product",
    "leakage_leaf": "places outside the seed's category",
    "leakage_parent": "places outside the category above it",
    "leakage_section": "places outside its section",
}
"""Titles of the metrics `lists/NAME@K`, in the order of the page."""
RULES = {
    "in_stock": "in stock",
    "price": "in price range",
    "attributes": "attributes",
    "cheapest": "cheapest",
    "shared_photo": "photo shown twice",
    "capped": "more with this photo left out",
}
ESTIMATORS = {"ips": "inverse propensity", "snips": "self-normalised", "dr": "doubly robust"}
BOX = 200
"""Side of the Lorenz chart, in SVG units."""


@dataclass(frozen=True)
class Card:
    """A product on the page. None is unknown; a seed has neither ring nor score."""

    title: str
    picture: str | None
    price: float | None
    ring: int | None = None
    rules: tuple[str, ...] = ()
    score: float | None = None
    repeats: bool = False


@dataclass(frozen=True)
class Example:
    """A seed and the first results of each system; `length` is that of the evaluated system's whole list."""

    seed: Card
    lists: Mapping[str, Sequence[Card]]
    length: int


class Advice(NamedTuple):
    words: str
    command: str


class Difference(NamedTuple):
    """The evaluated system minus the other, with a paired interval.

    `better` is None if the interval contains 0, or if the metric has no better direction.
    """

    name: str
    value: float
    low: float
    high: float
    better: bool | None


def sentence(evaluation: Evaluation) -> str:
    """The summary of an evaluation, in one line."""
    about, metrics = evaluation.about, evaluation.metrics
    k = about["k"]
    parts = [
        f"{about['model']}: {percent(metrics[f'lists/full@{k}'].value)} % of {about['seeds']['seeds']:,} seeds get {k}"
    ]
    violations = metrics.get(f"lists/violations@{k}")
    if violations is not None:
        parts.append("no rule is broken" if not violations.value else f"{percent(violations.value)} % break a rule")
    repeated = [
        f"{percent(metrics[name].value)} % repeat a {what}"
        for what in ("product", "component", "photo")
        if (name := f"lists/duplicates_{what}@{k}") in metrics
    ]
    clicked = metrics.get(f"lists/clicks/hit@{k}")
    if clicked is not None:
        repeated.append(f"{percent(clicked.value)} % of {clicked.n:,} clicks are in the list")
    return ", ".join([*parts, *repeated])


def differences(evaluation: Evaluation, other: Evaluation) -> list[Difference]:
    """The differences of all metrics that both evaluations have and that can be paired, without times and sizes.

    Outcomes are paired by click, impression or seed. With seeds only those count for which both have an outcome.
    """
    outcomes: dict[str, np.ndarray] = {}
    groups: dict[str, np.ndarray] = {}
    spans: dict[str, tuple[float, float, float]] = {}
    for name in evaluation.metrics.keys() & other.metrics.keys():
        ours, theirs = evaluation.groups[name], other.groups[name]
        same_groups = np.array_equal(ours, theirs)
        if "latency" in name or "bytes" in name or "/agreement/" in name:
            continue
        if name in evaluation.draws and name in other.draws:
            span = (math.nan, math.nan)
            if same_groups:
                drawn = evaluation.draws[name] - other.draws[name]
                span = interval_of_draws(drawn, len(np.unique(ours)))
            spans[name] = (evaluation.metrics[name].value - other.metrics[name].value, *span)
        elif same_groups:
            outcomes[name], groups[name] = evaluation.outcomes[name] - other.outcomes[name], ours
        elif len(np.unique(ours)) == len(ours) and len(np.unique(theirs)) == len(theirs):
            groups[name], a, b = np.intersect1d(ours, theirs, return_indices=True)
            outcomes[name] = evaluation.outcomes[name][a] - other.outcomes[name][b]
    paired = Evaluation.of(outcomes, groups).metrics
    spans |= {name: (metric.value, metric.low, metric.high) for name, metric in paired.items()}
    compared = []
    for name, metric in evaluation.metrics.items():
        if name in spans:
            value, low, high = spans[name]
            significant = (low > 0 or high < 0) and "/ring_" not in name
            better = (value < 0) == metric.lower_is_better if significant else None
            compared.append(Difference(name, value, low, high, better))
    return compared


def render(
    evaluation: Evaluation,
    advice: Advice,
    examples: Sequence[Example] = (),
    compared: Sequence[Difference] = (),
) -> str:
    """The page as self-contained HTML. All text is escaped; its security policy allows neither scripts nor loading."""
    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, *evaluation_room.__path__]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    about, metrics = evaluation.about, evaluation.metrics
    k = about["k"]
    differing = [one for one in compared if any(end for end in one[1:4] if math.isfinite(end))]
    ends = sorted(max(abs(one.low), abs(one.high)) for one in differing if math.isfinite(one.low + one.high))
    reach = ends[len(ends) * 3 // 4] if ends else 0.0
    return environment.get_template("report.html.j2").render(
        about=about,
        metrics=metrics,
        k=k,
        sentence=sentence(evaluation),
        advice=advice,
        held=[(title, metrics[name]) for what, title in TITLES.items() if (name := f"lists/{what}@{k}") in metrics],
        rings=[metric.value for name, metric in metrics.items() if name.startswith("lists/ring_")],
        concentration=[
            (facts, metrics[f"lists/catalog/{name}"]) for name, facts in about.get("centrality", {}).items()
        ],
        curve=" ".join(
            f"{BOX * place / (len(about['spread']) - 1):.1f},{BOX * (1 - share):.1f}"
            for place, share in enumerate(about["spread"])
        ),
        box=BOX,
        clicks=_clicks(metrics),
        buckets=_buckets(metrics, about, k),
        agreement=[(name.split("/")[-1], metric) for name, metric in metrics.items() if "/agreement/" in name],
        compared=compared,
        differing=differing,
        reach=reach,
        across=lambda value: 50 * (1 + (min(max(value / reach, -1.0), 1.0) if reach else 0.0)),
        estimators=ESTIMATORS,
        rule_titles=RULES,
        ring_title=ring_title,
        examples=examples,
        percent=percent,
        signed=lambda share: ("+" if share > 0 else "") + percent(share),
        known=lambda value: value is not None and not math.isnan(value),
    )


def ring_title(ring: int) -> str:
    return "own category" if ring == 0 else f"ring {ring}"


def _clicks(metrics: Mapping[str, Metric]) -> list[tuple[str, Metric]]:
    start = "lists/clicks/"
    names = [name for name in metrics if name.startswith(start) and "popularity" not in name]
    return [(name.removeprefix(start).replace("_by_seed", ", mean over seeds"), metrics[name]) for name in names]


def _buckets(metrics: Mapping[str, Metric], about: Mapping, k: int) -> list[tuple[int, Metric]]:
    """(seeds, hit rate) of each popularity bucket, the rarest first."""
    return [
        (counts["seeds"], metrics[f"lists/clicks/{bucket}/hit@{k}"])
        for bucket, counts in sorted(about.get("popularity", {}).items())
    ]
