"""`up`, `down` and `status` of the cluster that a cluster file describes.

`up` writes what it starts to `cluster.json` in the cluster's state folder: process ids with their start times. `down`
stops these processes and their descendants, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoplens.cluster import Report
from shoplens.cluster.deploy import (
    DEPLOY_SECONDS,
    Health,
    applications,
    delete_applications,
    deploy,
    deployment,
    health_of,
)
from shoplens.cluster.file import Cluster
from shoplens.cluster.ports import answers
from shoplens.cluster.processes import running_files, stop
from shoplens.cluster.servers import start_servers
from shoplens.cluster.state import State, locked


@dataclass(frozen=True)
class Part:
    """A line of `shoplens status`."""

    name: str
    health: Health
    address: str
    message: str = ""


def up(cluster: Cluster, report: Report = lambda line: None, deploy_seconds: float = DEPLOY_SECONDS) -> None:
    """Starts what does not run yet, deploys the `serve:` section, and waits until every application is healthy.

    On a running cluster it deploys what changed, the applications' code included.
    Raises ConfigError if an application does not accept its `args:`. Raises ClusterError naming the port that is
    taken, or the process or application that failed, and why.
    """
    config = deployment(cluster)
    cluster.state_dir.mkdir(parents=True, exist_ok=True)
    with locked(cluster):
        start_servers(cluster, report)
        deploy(cluster, config, report, deploy_seconds)


def down(cluster: Cluster, report: Report = lambda line: None) -> bool:
    """Stops the processes that `up` started, with their descendants. Returns whether there was anything to stop.

    On a Ray that `up` did not start, it deletes the applications and leaves Ray running.
    """
    if not cluster.state_dir.is_dir():
        return False
    with locked(cluster):
        state = State.read(cluster)
        if state is None:
            return False
        if cluster.ray.address and answers(f"{cluster.dashboard}/api/version"):
            report("deleting the applications")
            delete_applications(cluster)
        stop(cluster, state, list(state.processes), report)
        return True


def others(cluster: Cluster) -> list[str]:
    """The cluster files of other platforms that this user runs on this machine, sorted."""
    return sorted(running_files() - {str(cluster.file)})


def status(cluster: Cluster) -> list[Part]:
    """Ray, MLflow and every application of the cluster file, with their health now."""
    state = State.read(cluster)
    alive = {name for name, process in (state.processes if state else {}).items() if process.process()}

    def server(name: str, ours: bool, address: str, health_path: str) -> Part:
        answering = answers(address + health_path)
        if not ours:
            return Part(name, "elsewhere" if answering else "down", address)
        if name.lower() in alive:
            return Part(name, "up" if answering else "starting", address, "" if answering else "does not answer yet")
        crashed = state is not None and name.lower() in state.processes
        return Part(name, "failed" if crashed else "down", address, "its process is gone" if crashed else "")

    ray = server("Ray", cluster.ray.address is None, cluster.dashboard, "/api/version")
    parts = [ray, server("MLflow", cluster.mlflow.uri is None, cluster.mlflow_uri, "/health")]
    deployed = applications(cluster) if ray.health in ("up", "elsewhere") else {}
    for application in cluster.serve_config["applications"]:
        name = application.get("name", "default")
        address = cluster.endpoint + (application.get("route_prefix") or "/").rstrip("/")
        if name in deployed:
            health, message = health_of(deployed[name])
            parts.append(Part(name, health, address, message))
        else:
            parts.append(Part(name, "down", address, "not deployed" if deployed else ""))
    return parts
