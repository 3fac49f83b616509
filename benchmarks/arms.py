"""Comparison of arms: runs with kept results, means over seeds with intervals, and cells of Markdown tables.

A run's metric is `{"outcomes": [n], "groups": [n]}`, one outcome and one group a query, or `{"value": float}`. Both may
have a `chance`. Runs of one case have the same queries in the same order.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from shoplens.statistics.bootstrap import interval

Metrics = Mapping[str, Mapping[str, Any]]


def run_all(make: Callable[..., str], calls: Iterable[tuple[str, tuple[Any, ...]]], processes: int) -> None:
    """Calls `make(*arguments)` in a pool of processes for each (title, arguments), and prints the texts it returns."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        jobs = {pool.submit(make, *arguments): title for title, arguments in calls}
        for number, job in enumerate(as_completed(jobs), 1):
            print(f"{number}/{len(jobs)} {jobs[job]}: {job.result()}", flush=True)


def keep(file: Path, result: Any) -> None:
    """Writes a run's result as JSON. An interrupted call leaves no half-written file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(json.dumps(result))
    partial.rename(file)


def mean_over_seeds(by_seed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean of one metric over seeds, its 95 % interval (`low`, `high`), `chance` if known, and the value `by_seed`.

    The interval of outcomes is a bootstrap over groups of the mean over seeds; that of values is Student's over seeds.
    """
    if "outcomes" in by_seed[0]:
        values = [float(np.mean(seed["outcomes"])) for seed in by_seed]
        outcomes = np.mean([seed["outcomes"] for seed in by_seed], axis=0)
        low, high = interval(outcomes, np.array(by_seed[0]["groups"]))
    else:
        values = [seed["value"] for seed in by_seed]
        n = len(values)
        spread = student_t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n) if n > 1 else math.nan
        low, high = np.mean(values) - spread, np.mean(values) + spread
    figures = {"value": float(np.mean(values)), "low": float(low), "high": float(high)}
    rounded = {name: round(value, 4) for name, value in figures.items()}
    chance = {"chance": round(by_seed[0]["chance"], 4)} if "chance" in by_seed[0] else {}
    return {**rounded, **chance, "by_seed": [round(value, 4) for value in values]}


def paired_differences(new: Sequence[Metrics], old: Sequence[Metrics]) -> dict[str, dict[str, Any]]:
    """`mean_over_seeds` of new - old for each metric of `new`, paired by seed and query."""
    differences: dict[str, list[dict[str, Any]]] = {}
    for new_metrics, old_metrics in zip(new, old, strict=True):
        for name, metric in new_metrics.items():
            before = old_metrics[name]
            if "outcomes" in metric:
                assert metric["groups"] == before["groups"]
                outcomes = np.subtract(metric["outcomes"], before["outcomes"])
                differences.setdefault(name, []).append({"outcomes": outcomes, "groups": metric["groups"]})
            else:
                differences.setdefault(name, []).append({"value": metric["value"] - before["value"]})
    return {name: mean_over_seeds(by_seed) for name, by_seed in differences.items()}


def value_cell(metric: Mapping[str, Any], best: float) -> str:
    """Value and interval, in bold if the interval reaches `best`, the highest value of the column."""
    cell = f"{metric['value']:.3f} ({metric['low']:.3f} to {metric['high']:.3f})"
    return f"**{cell}**" if metric["high"] >= best else cell


def difference_cell(metric: Mapping[str, Any]) -> str:
    """Difference and interval, in bold if the interval excludes 0."""
    cell = f"{metric['value']:+.3f} ({metric['low']:+.3f} to {metric['high']:+.3f})"
    return f"**{cell}**" if metric["low"] > 0 or metric["high"] < 0 else cell


def table_head(*columns: str) -> list[str]:
    return ["| " + " ".join(f"{column} |".lstrip() for column in columns), "| --- " * len(columns) + "|"]


def command() -> str:
    return " ".join(["python", *sys.argv])


def machine() -> dict[str, Any]:
    return {"cpus": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()}


def versions(*libraries: str) -> dict[str, str]:
    return {name: version(name) for name in libraries}
