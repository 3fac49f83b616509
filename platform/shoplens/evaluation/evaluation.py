"""What an evaluation found: metrics with intervals, and every query's outcome behind them."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shoplens.errors import ShoplensError
from shoplens.evaluation.bootstrap import interval

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Metric:
    """A mean over `n` queries with its 95 % interval.

    `chance` is what random scores would give on the same queries and galleries. `low` and `high` are nan
    where all queries are of one group.
    """

    value: float
    low: float
    high: float
    n: int
    chance: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """Metrics by name (`task/metric`), the outcomes [n] and bootstrap groups [n] behind each, and `about`.

    Two evaluations of the same dataset digest, split and tasks list their queries in the same order, so
    their outcomes can be compared pairwise (`bootstrap.paired_difference`).
    """

    metrics: dict[str, Metric]
    outcomes: dict[str, np.ndarray]
    groups: dict[str, np.ndarray]
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.metrics.keys() == self.outcomes.keys() == self.groups.keys():
            raise ValueError("metrics, outcomes and groups must have the same names")

    @classmethod
    def of(
        cls,
        outcomes: Mapping[str, np.ndarray],
        groups: Mapping[str, np.ndarray],
        *,
        chance: Mapping[str, float] | None = None,
        about: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> Evaluation:
        """The mean and interval of every outcome; names without a single query are left out."""
        outcomes = {name: np.asarray(values, dtype=np.float64) for name, values in outcomes.items() if len(values)}
        groups = {name: np.asarray(groups[name], dtype=np.int64) for name in outcomes}
        metrics = {
            name: Metric(
                float(values.mean()),
                *interval(values, groups[name], seed),
                len(values),
                None if chance is None or name not in chance else float(chance[name]),
            )
            for name, values in outcomes.items()
        }
        return cls(metrics, outcomes, groups, {"seed": seed, **(about or {})})

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `outcomes.npz`, then `evaluation.json` which names its SHA-256, each aside and renamed."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        arrays = {f"outcomes/{name}": values for name, values in self.outcomes.items()}
        arrays |= {f"groups/{name}": values for name, values in self.groups.items()}
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
            names = list(summary["metrics"])
            return cls(
                {name: Metric(**_none_to_nan(metric)) for name, metric in summary["metrics"].items()},
                {name: arrays[f"outcomes/{name}"] for name in names},
                {name: arrays[f"groups/{name}"] for name in names},
                summary["about"],
            )


def _nan_to_none(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _none_to_nan(metric: dict[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None and key in ("low", "high") else value for key, value in metric.items()}


def _replace(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    aside.write_bytes(data)
    os.replace(aside, path)
