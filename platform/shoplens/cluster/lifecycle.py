"""Starts, describes and stops what a cluster file says: Ray's head node, the MLflow server, the applications.

Whatever is started is written to `cluster.json` in the cluster's state folder (process ids with their start
times), and only that is ever stopped. Everything listens on 127.0.0.1: Ray's own processes because
RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 keeps it from replacing a loopback address by the machine's, HAProxy's
metrics and statistics because it is started through a script that puts the address into its configuration.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
import psutil
from filelock import FileLock, Timeout

from shoplens.cluster import loopback
from shoplens.cluster.file import Cluster
from shoplens.config import Config, validate
from shoplens.errors import ShoplensError

Report = Callable[[str], None]
"""Takes one line on what is going on now."""

TEMP_PREFIX = "shoplens-"
MARK = "SHOPLENS_MARK"
START_SECONDS = 120
DEPLOY_SECONDS = 900
STOP_SECONDS = 30
LEFTOVER_SECONDS = 5


class ClusterError(ShoplensError):
    """Ray, MLflow or an application did not come up, or is not there; the message says which and why."""


@dataclass(frozen=True)
class Started:
    """A process that `up` started; the start time tells it from a later one with the same id."""

    pid: int
    created: float

    def process(self) -> psutil.Process | None:
        """The process, or None if it is gone."""
        try:
            process = psutil.Process(self.pid)
            ours = abs(process.create_time() - self.created) < 1
            return process if ours and _is_alive(process) else None
        except psutil.NoSuchProcess:
            return None


@dataclass
class State:
    """What `cluster.json` holds. `mark` is in the environment of all that was started; `settings` is the part
    of the file that a running Ray or MLflow cannot change."""

    file: str
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    temp_dir: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    processes: dict[str, Started] = field(default_factory=dict)

    @classmethod
    def read(cls, cluster: Cluster) -> State | None:
        try:
            saved = json.loads((cluster.state_dir / "cluster.json").read_text())
        except FileNotFoundError:
            return None
        saved["processes"] = {name: Started(**process) for name, process in saved["processes"].items()}
        return cls(**saved)

    def write(self, cluster: Cluster) -> None:
        path = cluster.state_dir / "cluster.json"
        aside = path.with_suffix(".part")
        aside.write_text(json.dumps(asdict(self), indent=1))
        aside.replace(path)


Health = Literal["up", "starting", "down", "failed", "elsewhere"]


@dataclass(frozen=True)
class Part:
    """A line of `shoplens status`."""

    name: str
    health: Health
    address: str
    message: str = ""


def up(cluster: Cluster, report: Report = lambda line: None, deploy_seconds: float = DEPLOY_SECONDS) -> None:
    """Starts what is not running, deploys the `serve:` section and waits until every application is healthy.

    On a running cluster it deploys what changed since, the applications' code included.
    Raises ConfigError for `args:` that the application does not take; ClusterError naming the port that is taken, or
    the process or application that failed, and why.
    """
    config = deployment(cluster)
    cluster.state_dir.mkdir(parents=True, exist_ok=True)
    with _alone(cluster):
        _start(cluster, report)
        _deploy(cluster, config, report, deploy_seconds)


def down(cluster: Cluster, report: Report = lambda line: None) -> bool:
    """Stops what `up` started, with all that it started in turn; True if there was anything.

    On a Ray that `up` did not start, the applications are deleted and Ray goes on.
    """
    if not cluster.state_dir.is_dir():
        return False
    with _alone(cluster):
        state = State.read(cluster)
        if state is None:
            return False
        if cluster.ray.address and _answers(f"{cluster.dashboard}/api/version"):
            report("deleting the applications")
            _serve_client(cluster).delete_applications()
        _stop(cluster, state, list(state.processes), report)
        return True


def status(cluster: Cluster) -> list[Part]:
    """Ray, MLflow and every application of the cluster, as they are now."""
    state = State.read(cluster)
    alive = {name for name, process in (state.processes if state else {}).items() if process.process()}

    def server(name: str, ours: bool, address: str, health_path: str) -> Part:
        answers = _answers(address + health_path)
        if not ours:
            return Part(name, "elsewhere" if answers else "down", address)
        if name.lower() in alive:
            return Part(name, "up" if answers else "starting", address, "" if answers else "does not answer yet")
        crashed = state is not None and name.lower() in state.processes
        return Part(name, "failed" if crashed else "down", address, "its process is gone" if crashed else "")

    ray = server("Ray", cluster.ray.address is None, cluster.dashboard, "/api/version")
    parts = [ray, server("MLflow", cluster.mlflow.uri is None, cluster.mlflow_uri, "/health")]
    deployed = _applications(cluster) if ray.health in ("up", "elsewhere") else {}
    for application in cluster.serve_config["applications"]:
        name = application.get("name", "default")
        address = cluster.endpoint + (application.get("route_prefix") or "/").rstrip("/")
        if name in deployed:
            health, message = _health(deployed[name])
            parts.append(Part(name, health, address, message))
        else:
            parts.append(Part(name, "down", address, "not deployed" if deployed else ""))
    return parts


def log_dir(cluster: Cluster) -> Path:
    return cluster.state_dir / "logs"


# --- starting ---------------------------------------------------------------------------------------------


def _start(cluster: Cluster, report: Report) -> None:
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
            report(f"{' and '.join(missing)} stopped unasked; clearing away what is left")
            _stop(cluster, state, missing, report)
        if state.processes and state.settings != settings:
            changed = ", ".join(key for key in settings if settings[key] != state.settings.get(key))
            raise ClusterError(f"{changed} changed in {cluster.file} since it was started: run `shoplens down` first")
    if state is None or not state.processes:
        state = State(str(cluster.file), settings=settings)
    _check_ports(cluster, state)
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
        *(
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            loopback.ADDRESS,
            "--port",
            str(cluster.mlflow.port),
        ),
        *("--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        MARK: mark,
    }
    return _spawn(command, environment, log_dir(cluster) / "mlflow.log", folder)


def _start_ray(cluster: Cluster, temp_dir: Path, mark: str) -> Started:
    options = {
        "port": cluster.ray.gcs_port,
        "node-ip-address": loopback.ADDRESS,
        "dashboard-host": loopback.ADDRESS,
        "dashboard-port": cluster.ray.dashboard_port,
        "dashboard-agent-listen-port": 0,
        "ray-client-server-port": _free_port(),
        "object-store-memory": int(cluster.ray.object_store_memory),
        "temp-dir": temp_dir,
        "num-cpus": cluster.ray.num_cpus,
        "num-gpus": cluster.ray.num_gpus,
    }
    command = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        "--log-style",
        "record",
    ]
    for name, value in options.items():
        command += [f"--{name}={value}"] if value is not None else []
    return _spawn(
        command,
        _ray_environment(cluster, temp_dir) | {MARK: mark},
        log_dir(cluster) / "ray-start.log",
        cluster.root,
    )


def _ray_environment(cluster: Cluster, temp_dir: Path) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_ADDRESS", "RAY_JOB_"))}
    replica_port = cluster.ray.replica_ports or _free_block(30000, 100)
    environment = {
        **inherited,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(cluster.root), os.environ.get("PYTHONPATH")])),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "SHOPLENS_CLUSTER": str(cluster.file),
        "RAY_API_SERVER_ADDRESS": cluster.dashboard,
        "RAY_AUTH_MODE": "disabled",
        **loopback.head_environment(),
        # Workers, replicas and feed share few cores: torch's threads must sleep at a barrier, not spin.
        "OMP_WAIT_POLICY": "PASSIVE",
        "AUTOSCALER_METRIC_PORT": str(_free_port()),
        "DASHBOARD_METRIC_PORT": str(_free_port()),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(_free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(_free_port()),
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
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(_free_port()),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(_free_port()),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(temp_dir / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(temp_dir / "admin.sock"),
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(temp_dir / "metrics.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(temp_dir),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(temp_dir / "server-state"),
            "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "30",
        }
    return environment | cluster.environment


def _spawn(command: list[str], environment: dict[str, str], log: Path, folder: Path) -> Started:
    """Starts a process that outlives this one, apart from its terminal."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Started(process.pid, psutil.Process(process.pid).create_time())


def _wait_until_answers(cluster: Cluster, state: State, name: str, url: str, report: Report) -> None:
    deadline = time.monotonic() + START_SECONDS
    log = log_dir(cluster) / ("ray-start.log" if name == "ray" else "mlflow.log")
    ours = state.processes.get(name)
    while not _answers(url):
        report(f"waiting for {name} at {url}")
        if ours is None:
            raise ClusterError(f"nothing answers at {url}: check the address in {cluster.file}")
        if ours.process() is None:
            raise ClusterError(f"{name} stopped while starting; its last words in {log}:\n{_tail(log)}")
        if time.monotonic() > deadline:
            raise ClusterError(f"{name} does not answer at {url} after {START_SECONDS} s; see {log}")
        time.sleep(0.3)


# --- deploying --------------------------------------------------------------------------------------------


def _deploy(cluster: Cluster, config: dict[str, Any], report: Report, seconds: float) -> None:
    names = [application.get("name", "default") for application in config["applications"]]
    if not names and not _applications(cluster):
        return
    report("deploying " + ", ".join(names))
    try:
        _serve_client(cluster).deploy_applications(config)
    except RuntimeError as error:
        reason = "\n".join(str(error).rstrip(" .\n").splitlines()[-3:])
        raise ClusterError(f"Ray Serve does not take the applications: {reason}") from error
    deadline = time.monotonic() + seconds
    logs = f"logs: {log_dir(cluster) / 'ray' / 'serve'}"
    while True:
        state = State.read(cluster)
        if state and any(process.process() is None for process in state.processes.values()):
            raise ClusterError(f"Ray or MLflow stopped while the applications started; see {log_dir(cluster)}")
        deployed = _applications(cluster)
        waiting = []
        for name in names:
            health, message = _health(deployed.get(name, {}))
            if health == "failed":
                raise ClusterError(f"application {name} failed: {message}\n{logs}")
            if health != "up":
                waiting.append(f"{name} ({message})" if message else name)
        if not waiting and set(deployed) == set(names):
            return
        if time.monotonic() > deadline:
            raise ClusterError(f"after {seconds:.0f} s not healthy: {'; '.join(waiting)}; {logs}")
        report("waiting for " + "; ".join(waiting))
        time.sleep(0.5)


def deployment(cluster: Cluster) -> dict[str, Any]:
    """The body for Serve's REST API: the `serve:` section, each application with its runtime environment.

    A head node started here hands its own environment down, so that an application needs none, save a digest
    of the code: Serve compares configurations only, and would not notice an edited file.
    Raises ClusterError if an application's module is not there, ConfigError for `args:` that it does not take.
    """
    config: dict[str, Any] = json.loads(json.dumps(cluster.serve_config))
    for application in config["applications"]:
        runtime_env = application.setdefault("runtime_env", {})
        if cluster.ray.address is None and cluster.kubernetes is None:
            variables = {"SHOPLENS_CODE": code_digest(cluster.root), **loopback.replica_environment()}
            module = application["import_path"].partition(":")[0].split(".")
            if module[0] == "serve_apps" and not (cluster.root / Path(*module)).with_suffix(".py").is_file():
                raise ClusterError(f"{cluster.file}: there is no module {'.'.join(module)} in {cluster.root}")
        else:
            variables = cluster.environment
            if cluster.ray.working_dir:
                runtime_env.setdefault("working_dir", cluster.ray.working_dir)
                variables = {"PYTHONPATH": "platform", **variables}
        runtime_env["env_vars"] = {**variables, **runtime_env.get("env_vars", {})}
        if (taken := _type_of_args(cluster.root, application["import_path"])) is not None:
            where = f"{cluster.file}: `args:` of the application {application.get('name', 'default')}"
            validate(taken, application.get("args") or {}, where)
    return config


def _type_of_args(root: Path, import_path: str) -> type[Config] | None:
    """What the builder of an application says that it takes; None if it lies elsewhere or does not say."""
    module, _, builder = import_path.partition(":")
    if not (root / Path(*module.split("."))).with_suffix(".py").is_file():
        return None
    sys.path.insert(0, str(root))
    try:
        parameters = inspect.signature(getattr(importlib.import_module(module), builder)).parameters.values()
    except Exception:  # whatever a module raises when it is imported; Serve will say it
        return None
    finally:
        sys.path.remove(str(root))
    types = [parameter.annotation for parameter in parameters]
    return next((found for found in types if isinstance(found, type) and issubclass(found, Config)), None)


def code_digest(root: Path) -> str:
    """Identifies the code and pages that applications run, by name and content."""
    digest = hashlib.sha256()
    for folder in (root / "serve_apps", root / "platform" / "shoplens"):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(root)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _serve_client(cluster: Cluster) -> Any:
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    return ServeSubmissionClient(cluster.dashboard)


def _applications(cluster: Cluster) -> dict[str, dict[str, Any]]:
    try:
        return dict(_serve_client(cluster).get_serve_details()["applications"])
    except (ConnectionError, RuntimeError) as error:
        raise ClusterError(f"Ray Serve does not answer at {cluster.dashboard}: {error}") from error


def _health(application: dict[str, Any]) -> tuple[Health, str]:
    """Serve's details of one application -> its health, and the message of the deployment that keeps it."""
    states: dict[str, Health] = {"RUNNING": "up", "DEPLOY_FAILED": "failed", "UNHEALTHY": "failed"}
    health = states.get(application.get("status", ""), "starting")
    messages = [
        f"{name}: {_gist(part['message'])}"
        for name, part in application.get("deployments", {}).items()
        if part.get("message") and part.get("status") not in ("HEALTHY",)
    ]
    return health, "" if health == "up" else "; ".join(filter(None, [_gist(application.get("message", "")), *messages]))


def _gist(message: str) -> str:
    """A stack trace as Ray gives it (several, nested) -> its last line and the place that it came from."""
    if "Traceback (most recent call last)" not in message:
        return message.strip()
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    places = [line for line in lines if line.startswith("File ") and "<frozen" not in line]
    return f"{lines[-1]} ({places[-1]})" if places else lines[-1]


# --- stopping ---------------------------------------------------------------------------------------------


def _stop(cluster: Cluster, state: State, names: list[str], report: Report) -> None:
    """Stops the named processes with all that they started, and takes them out of `state`."""
    mains = {process for name in names if (process := state.processes[name].process())}
    left = _family(mains) | _strays(state, names)
    if left:
        report(f"stopping {' and '.join(names)} ({len(left)} processes)")
    _send("terminate", mains, STOP_SECONDS)
    for signal in ("terminate", "kill"):
        left = _send(signal, left | _strays(state, names), LEFTOVER_SECONDS)
    if left:
        raise ClusterError(f"processes {', '.join(str(process.pid) for process in left)} do not stop")
    if "ray" in names and state.temp_dir:
        _keep_logs(Path(state.temp_dir), log_dir(cluster) / "ray")
        shutil.rmtree(state.temp_dir, ignore_errors=True)
        state.temp_dir = None
    for name in names:
        del state.processes[name]
    if state.processes:
        state.write(cluster)
    else:
        (cluster.state_dir / "cluster.json").unlink(missing_ok=True)


def _send(signal: Literal["terminate", "kill"], targets: set[psutil.Process], seconds: float) -> set[psutil.Process]:
    """Sends the signal, waits until the processes are gone, and returns those that are not."""
    for process in targets:
        with _gone_is_fine():
            getattr(process, signal)()
    deadline = time.monotonic() + seconds
    left = {process for process in targets if _is_alive(process)}
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = {process for process in left if _is_alive(process)}
    return left


def _is_alive(process: psutil.Process) -> bool:
    """False also for a process that has ended and only waits to be noticed by its parent."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _family(processes: set[psutil.Process]) -> set[psutil.Process]:
    """The processes and all that descends from them."""
    family = set(processes)
    for process in processes:
        with _gone_is_fine():
            family |= set(process.children(recursive=True))
    return family


def _strays(state: State, names: list[str]) -> set[psutil.Process]:
    """All that was started by the named processes, its parent alive or not: known by the mark in its
    environment, or, where Ray has written a title over that, by the temporary folder in its arguments."""
    marks = {f"{state.mark}/{name}" for name in names}
    folder = f"{state.temp_dir}/" if state.temp_dir and "ray" in names else None
    found = set()
    for process in psutil.process_iter(["uids", "cmdline", "environ"]):
        uids, arguments, environment = (process.info[key] for key in ("uids", "cmdline", "environ"))
        if uids is None or uids.real != os.getuid() or process.pid == os.getpid():
            continue
        marked = (environment or {}).get(MARK) in marks
        if marked or (folder and any(folder in part for part in arguments or ())):
            found.add(process)
    return found


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except psutil.NoSuchProcess:
        return


def _keep_logs(temp_dir: Path, kept: Path) -> None:
    """Moves the last session's logs out of the temporary folder, in place of the link to them."""
    logs = (temp_dir / "session_latest").resolve() / "logs"
    if not logs.is_dir():
        return
    if kept.is_symlink():
        kept.unlink()
    elif kept.exists():
        shutil.rmtree(kept)
    shutil.move(logs, kept)


# --- ports and files --------------------------------------------------------------------------------------


def _check_ports(cluster: Cluster, state: State) -> None:
    wanted = {}
    if cluster.mlflow.uri is None and "mlflow" not in state.processes:
        wanted["mlflow.port"] = cluster.mlflow.port
    if cluster.ray.address is None and "ray" not in state.processes:
        wanted["ray.dashboard_port"] = cluster.ray.dashboard_port
        wanted["ray.gcs_port"] = cluster.ray.gcs_port
        wanted["serve.http_options.port"] = cluster.serve_config["http_options"]["port"]
    for key, port in wanted.items():
        if sum(port == other for other in wanted.values()) > 1:
            raise ClusterError(f"port {port} is given twice in {cluster.file}")
        if not _is_free(port):
            raise ClusterError(f"port {port} is taken by {_listener(port)}: stop it, or set {key} in {cluster.file}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((loopback.ADDRESS, port))
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((loopback.ADDRESS, 0))
        port: int = probe.getsockname()[1]
        return port


def _free_block(first: int, size: int) -> int:
    """First of `size` ports in a row, below the kernel's own range, on none of which anything listens."""
    for start in range(first, first + 2500, size):
        if all(_is_free(port) for port in range(start, start + size)):
            return start
    raise ClusterError(f"no {size} ports in a row are free above {first}: set ray.replica_ports")


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _link(link: Path, target: Path) -> None:
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(target)


@contextmanager
def _alone(cluster: Cluster) -> Iterator[None]:
    lock = FileLock(cluster.state_dir / "cluster.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ClusterError(f"another `shoplens up` or `down` of {cluster.file} is at work; wait for it") from None
    try:
        yield
    finally:
        lock.release()
