"""Ports on 127.0.0.1: which are free, who listens on the others, and whether a server answers."""

from __future__ import annotations

import socket

import httpx
import psutil

from shoplens.cluster import ClusterError
from shoplens.cluster.file import Cluster
from shoplens.cluster.loopback import ADDRESS
from shoplens.cluster.state import State


def check_ports(cluster: Cluster, state: State) -> None:
    """Raises ClusterError if a port that `up` needs is taken, or is given twice in the cluster file."""
    wanted = {}
    if cluster.mlflow.uri is None and "mlflow" not in state.processes:
        wanted["mlflow.port"] = cluster.mlflow.port
    if cluster.ray.address is None and "ray" not in state.processes:
        wanted["ray.dashboard_port"] = cluster.ray.dashboard_port
        wanted["ray.gcs_port"] = cluster.ray.gcs_port
        wanted["serve.http_options.port"] = cluster.serve_config["http_options"]["port"]
    for key, port in wanted.items():
        if sum(port == other for other in wanted.values()) > 1:
            raise ClusterError(f"port {port} is given twice in {cluster.file}: choose another for {key}")
        if not is_free(port):
            raise ClusterError(f"port {port} is taken by {_listener(port)}: stop it, or set {key} in {cluster.file}")


def is_free(port: int) -> bool:
    """Whether a server could listen on the port. Ports in TIME_WAIT count as free, as they do for the servers."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError:
            return False
    return True


def _listener(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        pass
    return "another process"


def free_port() -> int:
    """A free port from the kernel's ephemeral range."""
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        port: int = probe.getsockname()[1]
        return port


def free_block(first: int, size: int) -> int:
    """First of `size` consecutive free ports in first..first+2500, below the kernel's ephemeral range.

    Raises ClusterError if there is no such block.
    """
    for start in range(first, first + 2500, size):
        if all(is_free(port) for port in range(start, start + size)):
            return start
    raise ClusterError(f"no {size} ports in a row are free above {first}: set ray.replica_ports")


def answers(url: str) -> bool:
    """Whether GET gives status 200 within 5 s."""
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
