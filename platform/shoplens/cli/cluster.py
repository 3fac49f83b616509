"""`shoplens up`, `status`, `down` and `manifests`: the cluster that a cluster file describes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from shoplens.cli.options import ClusterFile
from shoplens.cli.terminal import console, progress

if TYPE_CHECKING:
    from shoplens.cluster.file import Cluster


def up(
    cluster_file: ClusterFile = None,
    wait: Annotated[float, typer.Option(min=1, help="Seconds to wait until the Serve applications are healthy.")] = 900,
) -> None:
    """Starts Ray, MLflow and the Serve applications of a cluster file, and waits until they are healthy.

    On a running cluster it deploys what changed: the `serve:` section of the file, and the applications' code. Without
    a file it also names the platforms of other cluster files that run here.

    Example:

        shoplens up clusters/local.yaml
    """
    from shoplens.cluster import lifecycle
    from shoplens.cluster.file import current

    cluster = current(cluster_file)
    if cluster_file is None:
        _say_others(lifecycle.others(cluster))
    with progress() as report:
        lifecycle.up(cluster, report, wait)
    _print_status(cluster)


def status(cluster_file: ClusterFile = None) -> None:
    """Prints what runs, its address, the champion versions, and the command to type next.

    The exit code is 1 if Ray, MLflow or an application is not up.

    Example:

        shoplens status clusters/local.yaml
    """
    from shoplens.cluster.file import current

    if not _print_status(current(cluster_file, check_serve=False)):
        raise typer.Exit(1)


def down(cluster_file: ClusterFile = None) -> None:
    """Stops what `shoplens up` started. Datasets, runs, models and logs stay.

    On a Ray cluster that `shoplens up` did not start, it deletes the Serve applications and leaves Ray running. If
    nothing of the file runs, it names the platforms of other cluster files that do.

    Example:

        shoplens down clusters/local.yaml
    """
    from shoplens.cluster import lifecycle
    from shoplens.cluster.file import current
    from shoplens.cluster.state import log_dir

    cluster = current(cluster_file, check_serve=False)
    with progress() as report:
        stopped = lifecycle.down(cluster, report)
    if stopped:
        console.print(Text(f"stopped; logs stay in {log_dir(cluster)}"))
    else:
        console.print(Text(f"nothing of {_short(cluster.file)} is running"))
    if cluster_file is None or not stopped:
        _say_others(lifecycle.others(cluster), " Stop it: shoplens down {}")


def manifests(
    cluster_file: Annotated[
        Path, typer.Argument(metavar="CLUSTERFILE", help="Cluster file, such as clusters/kubernetes.yaml.")
    ],
) -> None:
    """Prints the KubeRay manifest of a cluster file that has a `kubernetes:` section.

    Example:

        shoplens manifests clusters/kubernetes.yaml | kubectl apply -f -
    """
    from shoplens.cluster.file import current
    from shoplens.cluster.manifests import manifests as render

    print(render(current(cluster_file)), end="")


def _say_others(files: list[str], then: str = "") -> None:
    for file in files:
        short = _short(Path(file))
        console.print(Text(f"a platform of another cluster file runs here: {short}.{then.format(short)}"))


def _print_status(cluster: Cluster) -> bool:
    """Prints the table. Returns whether everything is up."""
    from shoplens.cluster import lifecycle
    from shoplens.cluster.state import log_dir

    parts = lifecycle.status(cluster)
    colours = {"up": "green", "elsewhere": "green", "starting": "yellow", "down": "dim", "failed": "red"}
    table = Table("", "state", "address", "", box=None, header_style="dim", padding=(0, 2, 0, 0))
    for part in parts:
        table.add_row(part.name, Text(part.health, style=colours[part.health]), part.address, Text(part.message))
    console.print(Text(f"{cluster.name}  {cluster.file}", style="bold"))
    console.print(table)
    _say_others(lifecycle.others(cluster))
    running = {part.name: part.health in ("up", "elsewhere") for part in parts}
    champions = _champions(cluster) if running["MLflow"] else {}
    for name, version in champions.items():
        console.print(Text(f"champion: {name}/{version}"))
    console.print(Text(f"storage: {cluster.storage_path}   logs: {log_dir(cluster)}", style="dim"))
    console.print(Text(f"next: {_next(cluster, running, champions)}"))
    return all(running.values())


def _champions(cluster: Cluster) -> dict[str, int]:
    from shoplens.registry.runs import client

    models = client(cluster.mlflow_uri).search_registered_models()
    return {model.name: int(model.aliases["champion"]) for model in models if "champion" in model.aliases}


def _next(cluster: Cluster, running: dict[str, bool], champions: dict[str, int]) -> str:
    """The command that a newcomer needs now: start the cluster, train a model, or open the page."""
    if not running["Ray"] or not running["MLflow"]:
        return f"shoplens up {_short(cluster.file)}"
    if not champions:
        train = "python -m workloads.train workloads/configs/eclip.yaml dataset=DIR"
        return f"{_submit(cluster)} -- {train}"
    return f"open {cluster.endpoint}/" if all(running.values()) else f"shoplens up {_short(cluster.file)}"


def _submit(cluster: Cluster) -> str:
    """`ray job submit` with the options that this cluster needs; clusters/local.yaml needs none."""
    command = "ray job submit --working-dir ."
    if cluster.dashboard != "http://127.0.0.1:8265":
        command = f"RAY_API_SERVER_ADDRESS={cluster.dashboard} {command}"
    if runtime_env := cluster.job_runtime_env:
        command += f" --runtime-env-json {shlex.quote(json.dumps(runtime_env))}"
    return command


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
