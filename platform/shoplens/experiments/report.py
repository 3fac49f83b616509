"""HTML report of an experiment: the verdict, the checks, and the intervals of all metrics as drawings."""

from __future__ import annotations

import math
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from shoplens.experiments.verdict import Advice, Analysis, Span, percent, sentence

WIDTH = 360
"""Width of the drawing of one metric, in units of its view box."""


def render(analysis: Analysis, advice: Advice) -> str:
    """The report as self-contained HTML. All texts are escaped; the page's policy forbids scripts and loading."""
    reach = _reach(analysis)

    def x(lift: float) -> str:
        return f"{WIDTH / 2 * (1 + min(max(lift / reach, -1.0), 1.0)):.1f}"

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html.j2").render(
        analysis=analysis,
        plan=analysis.plan,
        sentence=sentence(analysis),
        advice=advice,
        width=WIDTH,
        reach=reach,
        x=x,
        percent=percent,
        figure=figure,
        bounds=bounds,
        whole_percent=whole_percent,
        finite=math.isfinite,
    )


def _reach(analysis: Analysis) -> float:
    """The lift at the right edge of the drawings, such that most fixed intervals fit."""
    rows = analysis.rows
    sizes = sorted(max(abs(row.fixed.low), abs(row.fixed.high)) for row in rows if math.isfinite(row.fixed.high))
    typical = sizes[len(sizes) // 2] if sizes else 0.0
    return max(1.6 * typical, 2 * analysis.plan.planned_lift, *(1.2 * row.margin for row in rows if row.margin))


def whole_percent(share: float) -> str:
    """`0.95` -> `95 %`."""
    return f"{100 * share:.0f} %"


def figure(value: float) -> str:
    """`0.04213` -> `0.0421`, `51234.5` -> `51,234`."""
    if not math.isfinite(value):
        return "unknown"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def bounds(span: Span) -> str:
    """An interval as `-0.4 % to +2.1 %`."""
    return f"{percent(span.low)} to {percent(span.high)}" if math.isfinite(span.low + span.high) else "unbounded"
