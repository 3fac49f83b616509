"""The metrics of an evaluation as a table of text."""

from __future__ import annotations

import math

from shoplens.evaluation.leaks import warning
from shoplens.evaluation.results import Evaluation


def table(evaluation: Evaluation) -> str:
    """One line for each metric: value, 95 % interval, chance, number of queries."""
    width = max([34, *(len(name) + 2 for name in evaluation.metrics)])
    lines = [f"{'metric':<{width}}{'value':>8}   {'95 % interval':<18}{'chance':>8}{'queries':>9}"]
    for name, metric in evaluation.metrics.items():
        interval = "" if math.isnan(metric.low) else f"{metric.low:.3f} to {metric.high:.3f}"
        chance = "" if metric.chance is None else f"{metric.chance:.3f}"
        lines.append(f"{name:<{width}}{metric.value:>8.3f}   {interval:<18}{chance:>8}{metric.n:>9}")
    if leaked := warning(evaluation.about.get("leaks")):
        lines.append(leaked)
    return "\n".join(lines)
