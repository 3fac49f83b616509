"""The `shoplens` command: datasets, the cluster, and the model registry. One module a command group.

Commands import heavy libraries (torch, Ray, MLflow) inside their functions, so that `shoplens --help` is fast.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import typer
from rich.console import Console
from rich.text import Text

from shoplens.cli import cluster, dataset, models, registry
from shoplens.cluster.loopback import start_own_ray_on_loopback
from shoplens.errors import ShoplensError

app = typer.Typer(
    name="shoplens",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Trains, tracks and serves e-commerce vision-language models.

**From an empty folder to a served model:**

1. `shoplens dataset synthesize data/demo` creates a dataset

2. `shoplens up clusters/local.yaml` starts Ray, MLflow and the endpoints

3. `ray job submit --working-dir . -- python -m workloads.train workloads/configs/eclip.yaml
dataset=$PWD/data/demo` trains a model and registers it as version 1

4. `shoplens promote eclip 1 --alias champion` checks version 1 against its gates, and serves it

5. `shoplens status` prints the addresses of the endpoints

`shoplens COMMAND --help` explains a command and gives an example. SHOPLENS_DEBUG=1 prints the stack trace of an
error.""",
)
app.add_typer(dataset.app, name="dataset", rich_help_panel="Datasets")
COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Cluster": (cluster.up, cluster.status, cluster.down, cluster.manifests),
    "Model registry": (models.models, registry.promote, registry.rollback, registry.export),
}
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)


def main() -> None:
    """Runs the command line. A ShoplensError becomes one sentence on stderr and exit code 2.

    With SHOPLENS_DEBUG=1 it is raised, with its stack trace.
    """
    start_own_ray_on_loopback()
    try:
        app()
    except ShoplensError as error:
        if os.environ.get("SHOPLENS_DEBUG"):
            raise
        cause = getattr(error, "cause", None)  # Ray wraps an error of a worker, and keeps the original here
        Console(stderr=True, soft_wrap=True).print(Text(f"error: {cause or error}", style="red"))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
