"""Ray's head node and the MLflow server: their commands, environments and start.

All their sockets listen on 127.0.0.1; see `shoplens.cluster.loopback`.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from shoplens.cluster import ClusterError, Report, loopback
from shoplens.cluster.file import Cluster
from shoplens.cluster.ports import answers, check_ports, free_block, free_port
from shoplens.cluster.processes import FILE, MARK, spawn, stop
from shoplens.cluster.state import Started, State, log_dir

TEMP_PREFIX = "shoplens-"
START_SECONDS = 120


def start_servers(cluster: Cluster, report: Report) -> None:
    """Starts Ray and MLflow unless they run or the cluster file names running ones, and waits for both.

    Raises ClusterError if the file changed since they were started, a port is taken, or one does not answer in time.
    """
    settings = {
        "ray": cluster.ray.model_dump(mode="json"),
        "mlflow": cluster.mlflow.model_dump(mode="json"),
        "environment": cluster.environment,
        "http_options": cluster.serve_config["http_options"],
    }
    state = State.read(cluster)
    if state is not None:
        missing = [name for name, process in state.processes.items() if process.process() is None]
        if missing:
            report(f"{' and '.join(missing)} stopped unexpectedly; removing what is left")
            stop(cluster, state, missing, report)
        if state.processes and state.settings != settings:
            changed = ", ".join(key for key in settings if settings[key] != state.settings.get(key))
            raise ClusterError(f"{changed} changed in {cluster.file} since it was started: run `shoplens down` first")
    if state is None or not state.processes:
        state = State(str(cluster.file), settings=settings)
    check_ports(cluster, state)
    log_dir(cluster).mkdir(exist_ok=True)
    if cluster.mlflow.uri is None and "mlflow" not in state.processes:
        report("starting the MLflow server")
        state.processes["mlflow"] = _start_mlflow(cluster, f"{state.mark}/mlflow")
        state.write(cluster)
    if cluster.ray.address is None and "ray" not in state.processes:
        report("starting Ray")
        state.temp_dir = tempfile.mkdtemp(prefix=TEMP_PREFIX, dir="/tmp")
        state.processes["ray"] = _start_ray(cluster, Path(state.temp_dir), f"{state.mark}/ray")
    state.write(cluster)
    _wait_until_answers(cluster, state, "ray", f"{cluster.dashboard}/api/version", report)
    _wait_until_answers(cluster, state, "mlflow", f"{cluster.mlflow_uri}/health", report)
    if state.temp_dir:
        _link(log_dir(cluster) / "ray", Path(state.temp_dir) / "session_latest" / "logs")


def _start_mlflow(cluster: Cluster, mark: str) -> Started:
    folder = cluster.state_dir / "mlflow"
    folder.mkdir(exist_ok=True)
    command = [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--host", loopback.ADDRESS, "--port", str(cluster.mlflow.port)),
        *("--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        FILE: str(cluster.file),
        MARK: mark,
    }
    return spawn(command, environment, log_dir(cluster) / "mlflow.log", folder)


def _start_ray(cluster: Cluster, temp_dir: Path, mark: str) -> Started:
    options = {
        "port": cluster.ray.gcs_port,
        "node-ip-address": loopback.ADDRESS,
        "dashboard-host": loopback.ADDRESS,
        "dashboard-port": cluster.ray.dashboard_port,
        "dashboard-agent-listen-port": 0,
        "ray-client-server-port": free_port(),
        "object-store-memory": int(cluster.ray.object_store_memory),
        "temp-dir": temp_dir,
        "num-cpus": cluster.ray.num_cpus,
        "num-gpus": cluster.ray.num_gpus,
    }
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--log-style", "record"]
    command += [f"--{name}={value}" for name, value in options.items() if value is not None]
    environment = _ray_environment(cluster, temp_dir) | {MARK: mark}
    return spawn(command, environment, log_dir(cluster) / "ray-start.log", cluster.root)


def _ray_environment(cluster: Cluster, temp_dir: Path) -> dict[str, str]:
    """Environment of the head node. Jobs and Serve replicas on it inherit it."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_ADDRESS", "RAY_JOB_"))}
    replica_port = cluster.ray.replica_ports or free_block(30000, 100)
    environment = {
        **inherited,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(cluster.root), os.environ.get("PYTHONPATH")])),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        FILE: str(cluster.file),
        "RAY_API_SERVER_ADDRESS": cluster.dashboard,
        "RAY_AUTH_MODE": "disabled",
        "RAY_worker_niceness": "0",  # Ray's 15 makes every other process of the machine go before an answer
        "RAY_DEDUP_LOGS_SKIP_REGEX": "PYTHON worker processes have been started",  # a raylet tells it every driver
        **loopback.head_environment(),
        # Training workers, replicas and Ray Data share few cores: torch's threads must sleep at a barrier, not spin.
        "OMP_WAIT_POLICY": "PASSIVE",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # Ray's 2 s are also how late it sees that workers are ready or done
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.3",  # at Ray's 0.1 an idle controller takes 3 % of a core
        "AUTOSCALER_METRIC_PORT": str(free_port()),
        "DASHBOARD_METRIC_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(replica_port),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(replica_port + 100),
    }
    if (binary := loopback.haproxy(temp_dir / "haproxy-on-loopback")) is not None:
        environment |= {
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_HAPROXY_BINARY_PATH": str(binary),
            "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 1)),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(temp_dir / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(temp_dir / "admin.sock"),
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(temp_dir / "metrics.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(temp_dir),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(temp_dir / "server-state"),
            "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "30",
        }
    return environment | cluster.environment


def _wait_until_answers(cluster: Cluster, state: State, name: str, url: str, report: Report) -> None:
    deadline = time.monotonic() + START_SECONDS
    log = log_dir(cluster) / ("ray-start.log" if name == "ray" else "mlflow.log")
    ours = state.processes.get(name)
    while not answers(url):
        report(f"waiting for {name} at {url}")
        if ours is None:
            raise ClusterError(f"nothing answers at {url}: check the address in {cluster.file}")
        if ours.process() is None:
            raise ClusterError(f"{name} stopped while starting; the end of {log}:\n{_tail(log)}")
        if time.monotonic() > deadline:
            raise ClusterError(f"{name} does not answer at {url} after {START_SECONDS} s; see {log}")
        time.sleep(0.3)


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _link(link: Path, target: Path) -> None:
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(target)
