"""`shoplens models`: the table of registered models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shoplens.cli.options import ClusterOption
from shoplens.cli.terminal import console
from shoplens.errors import ShoplensError

if TYPE_CHECKING:
    from mlflow.entities import Run

VERSIONS_SHOWN = 5
HEADLINE_METRICS = 3
TABLE_WIDTH = 120
"""Least width in columns, so that Rich breaks no metric name. A narrower terminal wraps the lines itself."""
HEADLINE_TAG = "headline."
"""Run tag `headline.SPLIT`: the metrics to show of an evaluation on that split, as a JSON list of names."""


def models(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Show this model only, with all its versions.", show_default=False),
    ] = None,
    cluster: ClusterOption = None,
) -> None:
    """Lists the registered models: versions, aliases, gates, capabilities and headline metrics.

    Without NAME it lists the five newest versions of every model. `can` names what a version can do, such as
    embed_image. `figures` are the headline metrics of its evaluations, each with the split.

    Example:

        shoplens models eclip
    """
    from shoplens.cluster.file import attach

    attach(cluster)
    from shoplens.registry.runs import client

    tracking = client()
    registered = {model.name: model for model in tracking.search_registered_models()}
    if name is not None and name not in registered:
        there = ", ".join(registered) or "none yet"
        raise ShoplensError(f"there is no registered model {name!r} (there is: {there})")
    if not registered:
        console.print("no model is registered yet; train one with workloads.train")
        return
    headings = ("version", "aliases", "gate", "trained on", "can", "figures")
    table = Table(*headings, box=None, header_style="dim", padding=(0, 2, 0, 0))
    for model in registered.values() if name is None else [registered[name]]:
        versions = sorted(tracking.search_model_versions(f"name='{model.name}'"), key=lambda v: -int(v.version))
        for version in versions if name else versions[:VERSIONS_SHOWN]:
            held = [alias for alias, number in model.aliases.items() if int(number) == int(version.version)]
            run = tracking.get_run(version.run_id) if version.run_id else None
            table.add_row(
                f"{model.name}/{version.version}",
                Text(", ".join(held), style="bold green" if "champion" in held else ""),
                version.tags.get("gate", ""),
                run.data.tags.get("dataset_name", "") if run else "",
                Text("\n".join(_json_list(version.tags.get("capabilities")))),
                Text("\n".join(_figures(run)) if run else ""),
            )
    Console(width=max(console.width, TABLE_WIDTH)).print(table)


def _figures(run: Run) -> list[str]:
    """The headline metrics of a run, such as `text_to_image/recall@10 0.412 (test)`.

    The run's tags `headline.SPLIT` name them. A run without such tags shows metrics of its promotion gates.
    """
    tags = run.data.tags
    headline = {tag[len(HEADLINE_TAG) :]: _json_list(tags[tag]) for tag in tags if tag.startswith(HEADLINE_TAG)}
    if headline:
        return _recorded(run, headline)
    gates = [gate["metric"] for gate in _json_list(run.data.params.get("promotion.gates"))]
    return _recorded(run, {"test": gates, "val": gates})[:HEADLINE_METRICS]


def _recorded(run: Run, names: Mapping[str, list[str]]) -> list[str]:
    """Values of the metrics `names` (by split) that the run recorded, each once: test before val before others."""
    from shoplens.registry.runs import metric_key

    figures: dict[str, str] = {}
    for split in sorted(names, key=lambda split: (split != "test", split != "val", split)):
        for name in names[split]:
            key = metric_key(name if name.startswith(f"{split}/") else f"{split}/{name}")
            if name not in figures and key in run.data.metrics:
                figures[name] = f"{name} {run.data.metrics[key]:.3f} ({split})"
    return list(figures.values())


def _json_list(text: str | None) -> list:
    """The list that a tag or parameter holds; empty if it is absent or was cut off by MLflow's length limit."""
    try:
        value = json.loads(text or "[]")
    except ValueError:
        return []
    return value if isinstance(value, list) else []
