"""The results of an evaluation: metrics with intervals, and the outcomes or draws behind them."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from shoplens.errors import ShoplensError
from shoplens.evaluation.embedded import Modality
from shoplens.statistics.bootstrap import Statistic, draw, interval_of_draws, intervals

FORMAT_VERSION = 1
HEADLINES = 3
"""Metrics of one evaluation that a list of models shows at most."""


@dataclass(frozen=True, kw_only=True)
class MetricInfo:
    """Describes a metric to the reader of a report. The task that makes the metric gives the description.

    A report replaces a missing title by a part of the metric's name: `text_to_image/recall@10` is `recall@10` of the
    task `text_to_image`.
    """

    title: str = ""
    """Title of the metric's row within its task, such as "recall@10"; title of its column if `attribute` is set"""
    task_title: str = ""
    """Title of the task, such as "Text finds photos". A report groups metrics by it."""
    unit: str = "share"
    """A "share" lies between 0 and 1, or -1 and 1 for a correlation. A report shows it in per cent. It shows any other
    unit, such as "distance" or "count", as a plain number with the unit behind the title."""
    lower_is_better: bool = False
    modality: Modality | None = None
    """Column of the metric, if the task is measured by photo, by text and by both"""
    attribute: str = ""
    """Row of the metric in the table of attribute keys, if the task is measured for each key"""
    headline: bool = False
    """Whether a list of models shows the metric"""


@dataclass(frozen=True)
class Metric(MetricInfo):
    """A mean over `n` queries, or a statistic of `n` units, with its 95 % interval.

    `chance` is the expected value of random scores, or of always giving the most frequent answer, on the same
    queries. `low` and `high` are nan if all queries are in one bootstrap group.
    """

    value: float
    low: float
    high: float
    n: int
    chance: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """Metrics by name (`task/metric`), the numbers behind each metric, and `about`.

    A mean has `outcomes` [n]. A statistic has `draws` [r]: its values under resampled groups. Both have bootstrap
    `groups` [n]. Two evaluations of the same dataset digest, split and tasks list their queries in the same order
    and draw the same groups, so outcomes and draws compare pairwise.
    """

    metrics: dict[str, Metric]
    outcomes: dict[str, np.ndarray]
    groups: dict[str, np.ndarray]
    about: dict[str, Any] = field(default_factory=dict)
    draws: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.metrics.keys() == self.groups.keys() == self.outcomes.keys() | self.draws.keys():
            raise ValueError("metrics, groups, and outcomes with draws must have the same names")

    @classmethod
    def of(
        cls,
        outcomes: Mapping[str, np.ndarray],
        groups: Mapping[str, np.ndarray],
        *,
        statistics: Mapping[str, Statistic] | None = None,
        chance: Mapping[str, float] | None = None,
        lower_is_better: Collection[str] = (),
        described: Mapping[str, MetricInfo] | None = None,
        about: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> Evaluation:
        """Computes the mean of every outcome and every statistic, with intervals.

        Leaves out names without a query, and statistics that are not defined (nan). Tasks come in the order of
        `described`, then of outcomes and statistics; the metrics of one task stay together.
        """
        outcomes = {name: np.asarray(values, dtype=np.float64) for name, values in outcomes.items() if len(values)}
        statistics = {name: one for name, one in (statistics or {}).items() if not math.isnan(one.value)}
        groups = {name: np.asarray(groups[name], dtype=np.int64) for name in outcomes}
        groups |= {name: np.asarray(one.group, dtype=np.int64) for name, one in statistics.items()}
        draws = {name: draw(one, seed) for name, one in statistics.items()}
        values = {name: values.mean() for name, values in outcomes.items()}
        values |= {name: one.value for name, one in statistics.items()}
        infos = {**(described or {})}
        infos |= {name: MetricInfo() for name in values if name not in infos}
        tasks = list(dict.fromkeys(_task(name) for name in infos))
        values = {name: values[name] for name in sorted(values, key=lambda name: tasks.index(_task(name)))}
        spans: dict[str, tuple[float, float]] = {}
        for names in _of_one_grouping(groups, outcomes):
            columns = np.stack([outcomes[name] for name in names], axis=1)
            spans |= dict(zip(names, intervals(columns, groups[names[0]], seed), strict=True))
        for name, drawn in draws.items():
            lowest, highest = statistics[name].limits
            limits = (lowest if (drawn < 0).any() else max(lowest, 0.0), highest)
            spans[name] = interval_of_draws(drawn, len(np.unique(groups[name])), limits=limits)
        metrics = {
            name: Metric(
                float(value),
                *spans[name],
                statistics[name].n if name in statistics else len(outcomes[name]),
                None if chance is None or name not in chance else float(chance[name]),
                **vars(replace(infos[name], lower_is_better=infos[name].lower_is_better or name in lower_is_better)),
            )
            for name, value in values.items()
        }
        return cls(metrics, outcomes, groups, {"seed": seed, **(about or {})}, draws)

    @property
    def headline(self) -> list[str]:
        """Names of the metrics that a list of models shows, in their order: at most `HEADLINES`."""
        return [name for name, metric in self.metrics.items() if metric.headline][:HEADLINES]

    def joined(self, other: Evaluation) -> Evaluation:
        """The metrics of both, with the numbers behind them, and the `about` of this one."""
        parts = ("metrics", "outcomes", "groups", "draws")
        return Evaluation(about=self.about, **{part: getattr(self, part) | getattr(other, part) for part in parts})

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `outcomes.npz`, then `evaluation.json` with its SHA-256. Each is written aside, then renamed."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        arrays = {f"outcomes/{name}": values for name, values in self.outcomes.items()}
        arrays |= {f"groups/{name}": values for name, values in self.groups.items()}
        arrays |= {f"draws/{name}": values for name, values in self.draws.items()}
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        packed = buffer.getvalue()
        summary = {
            "format_version": FORMAT_VERSION,
            "about": self.about,
            "metrics": {
                name: {key: _nan_to_none(value) for key, value in asdict(metric).items()}
                for name, metric in self.metrics.items()
            },
            "outcomes_sha256": hashlib.sha256(packed).hexdigest(),
        }
        text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False)
        _replace(folder / "outcomes.npz", packed)
        _replace(folder / "evaluation.json", text.encode())

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Evaluation:
        """Raises ShoplensError if the folder holds no evaluation, or a damaged one."""
        folder = Path(folder)
        try:
            summary = json.loads((folder / "evaluation.json").read_text())
            packed = (folder / "outcomes.npz").read_bytes()
        except FileNotFoundError as error:
            raise ShoplensError(
                f"{folder} holds no evaluation ({error.filename} is missing): evaluate the model first"
            ) from error
        except json.JSONDecodeError as error:
            raise ShoplensError(f"{folder}/evaluation.json is damaged ({error}): evaluate the model again") from error
        if summary.get("format_version") != FORMAT_VERSION:
            raise ShoplensError(
                f"{folder} is of evaluation format {summary.get('format_version')}: evaluate the model again"
            )
        if hashlib.sha256(packed).hexdigest() != summary["outcomes_sha256"]:
            raise ShoplensError(f"{folder}/outcomes.npz does not belong to evaluation.json: evaluate the model again")
        with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
            kept: dict[str, dict[str, np.ndarray]] = {"outcomes": {}, "groups": {}, "draws": {}}
            for key in arrays.files:
                kind, _, name = key.partition("/")
                kept[kind][name] = arrays[key]
            return cls(
                {name: Metric(**_none_to_nan(metric)) for name, metric in summary["metrics"].items()},
                kept["outcomes"],
                kept["groups"],
                summary["about"],
                kept["draws"],
            )


@dataclass
class Findings:
    """The results of tasks, collected on the way to an `Evaluation`.

    `about` holds what the report shows beside the metrics.

    titles   names for readers: of a task in `about` (`matching/image`: "Product matching by photo"), or of an entry of
             `about` that maps rows to columns to numbers, which the report then shows as a table
    notes    sentences below the headings of the report: `products` (metrics by modality), `attributes` (by key)
    """

    outcomes: dict[str, np.ndarray] = field(default_factory=dict)
    groups: dict[str, np.ndarray] = field(default_factory=dict)
    statistics: dict[str, Statistic] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)
    lower_is_better: set[str] = field(default_factory=set)
    described: dict[str, MetricInfo] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def add(
        self,
        name: str,
        outcomes: np.ndarray,
        group: np.ndarray,
        chance: float | None = None,
        info: MetricInfo | None = None,
    ) -> None:
        """Adds the mean of `outcomes` [n] with bootstrap groups [n]."""
        self.outcomes[name], self.groups[name] = outcomes, group
        self._describe(name, chance, info)

    def add_statistic(
        self, name: str, statistic: Statistic, chance: float | None = None, info: MetricInfo | None = None
    ) -> None:
        """Adds a figure that is no mean of its units. A `chance` of nan counts as unknown."""
        self.statistics[name] = statistic
        self._describe(name, None if chance is None or math.isnan(chance) else chance, info)

    def _describe(self, name: str, chance: float | None, info: MetricInfo | None) -> None:
        if chance is not None:
            self.chance[name] = chance
        self.described[name] = info or MetricInfo()

    def include(self, other: Findings) -> None:
        """Adds the results of `other`. Dictionaries of the same name in `about` are merged."""
        for part in ("outcomes", "groups", "statistics", "chance", "lower_is_better", "described", "titles", "notes"):
            setattr(self, part, getattr(self, part) | getattr(other, part))
        for key, value in other.about.items():
            self.about[key] = {**self.about[key], **value} if key in self.about else value

    def evaluation(self, about: Mapping[str, Any] | None = None, seed: int = 0) -> Evaluation:
        return Evaluation.of(
            self.outcomes,
            self.groups,
            statistics=self.statistics,
            chance=self.chance,
            lower_is_better=self.lower_is_better,
            described=self.described,
            about={
                **(about or {}),
                **self.about,
                **{key: value for key, value in (("titles", self.titles), ("notes", self.notes)) if value},
            },
            seed=seed,
        )


def _of_one_grouping(groups: Mapping[str, np.ndarray], names: Iterable[str]) -> list[list[str]]:
    """Names with equal groups together, so that groups are drawn once for all of them."""
    together: dict[bytes, list[str]] = {}
    for name in names:
        together.setdefault(groups[name].tobytes(), []).append(name)
    return list(together.values())


def _task(name: str) -> str:
    """`matching/image/recall@1` -> `matching/image`."""
    return "/".join(name.split("/")[:2]) if name.count("/") > 1 else name.split("/")[0]


def _nan_to_none(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _none_to_nan(metric: dict[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None and key in ("low", "high") else value for key, value in metric.items()}


def _replace(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    aside.write_bytes(data)
    os.replace(aside, path)
