"""What an evaluation found: metrics with intervals, and the outcomes or draws behind them."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shoplens.errors import ShoplensError
from shoplens.statistics.bootstrap import Statistic, draw, intervals, percentiles

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Metric:
    """A mean over `n` queries, or a statistic of `n` units, with its 95 % interval.

    `chance` is what random scores, or the answer that is right most often, would give on the same queries.
    `low` and `high` are nan where all queries are of one group.
    """

    value: float
    low: float
    high: float
    n: int
    chance: float | None = None
    lower_is_better: bool = False


@dataclass(frozen=True)
class Evaluation:
    """Metrics by name (`task/metric`), what stands behind each, and `about`.

    Behind a mean are its `outcomes` [n]; behind a statistic its `draws` [r], the values under resampled
    groups; behind both the bootstrap `groups` [n]. Two evaluations of the same dataset digest, split and tasks
    list their queries in the same order and draw the same groups, so outcomes and draws compare pairwise.
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
        about: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> Evaluation:
        """The mean of every outcome and every statistic, with intervals.

        Names without a single query, and statistics that are not defined (nan), are left out.
        """
        outcomes = {name: np.asarray(values, dtype=np.float64) for name, values in outcomes.items() if len(values)}
        statistics = {name: one for name, one in (statistics or {}).items() if not math.isnan(one.value)}
        groups = {name: np.asarray(groups[name], dtype=np.int64) for name in outcomes}
        groups |= {name: np.asarray(one.group, dtype=np.int64) for name, one in statistics.items()}
        draws = {name: draw(one, seed) for name, one in statistics.items()}
        values = {name: values.mean() for name, values in outcomes.items()}
        values |= {name: one.value for name, one in statistics.items()}
        tasks = list(dict.fromkeys(_task(name) for name in values))
        values = {name: values[name] for name in sorted(values, key=lambda name: tasks.index(_task(name)))}
        spans: dict[str, tuple[float, float]] = {}
        for names in _of_one_grouping(groups, outcomes):
            columns = np.stack([outcomes[name] for name in names], axis=1)
            spans |= dict(zip(names, intervals(columns, groups[names[0]], seed), strict=True))
        spans |= {name: percentiles(drawn) for name, drawn in draws.items()}
        metrics = {
            name: Metric(
                float(value),
                *spans[name],
                statistics[name].n if name in statistics else len(outcomes[name]),
                None if chance is None or name not in chance else float(chance[name]),
                name in lower_is_better,
            )
            for name, value in values.items()
        }
        return cls(metrics, outcomes, groups, {"seed": seed, **(about or {})}, draws)

    def joined(self, other: Evaluation) -> Evaluation:
        """The metrics of both, with what stands behind them, and what is said `about` this one."""
        parts = ("metrics", "outcomes", "groups", "draws")
        return Evaluation(about=self.about, **{part: getattr(self, part) | getattr(other, part) for part in parts})

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `outcomes.npz`, then `evaluation.json` which names its SHA-256, each aside and renamed."""
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
        """Raises ShoplensError if the folder holds no evaluation, or one that is damaged."""
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
    """What tasks found, gathered on the way to an `Evaluation`; `about` holds what its report shows beside."""

    outcomes: dict[str, np.ndarray] = field(default_factory=dict)
    groups: dict[str, np.ndarray] = field(default_factory=dict)
    statistics: dict[str, Statistic] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)
    lower_is_better: set[str] = field(default_factory=set)
    about: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, outcomes: np.ndarray, group: np.ndarray, chance: float | None = None) -> None:
        """A mean of `outcomes` [n] with bootstrap groups [n]."""
        self.outcomes[name], self.groups[name] = outcomes, group
        if chance is not None:
            self.chance[name] = chance

    def add_statistic(self, name: str, statistic: Statistic, chance: float | None = None) -> None:
        self.statistics[name] = statistic
        if chance is not None and not math.isnan(chance):
            self.chance[name] = chance

    def include(self, other: Findings) -> None:
        """Adds what `other` found; of `about`, dictionaries of the same name are joined."""
        self.outcomes |= other.outcomes
        self.groups |= other.groups
        self.statistics |= other.statistics
        self.chance |= other.chance
        self.lower_is_better |= other.lower_is_better
        for key, value in other.about.items():
            self.about[key] = {**self.about[key], **value} if key in self.about else value

    def evaluation(self, about: Mapping[str, Any] | None = None, seed: int = 0) -> Evaluation:
        return Evaluation.of(
            self.outcomes,
            self.groups,
            statistics=self.statistics,
            chance=self.chance,
            lower_is_better=self.lower_is_better,
            about={**(about or {}), **self.about},
            seed=seed,
        )


def _of_one_grouping(groups: Mapping[str, np.ndarray], names: Iterable[str]) -> list[list[str]]:
    """The names whose groups are equal together, so that groups are drawn once for all of them."""
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
