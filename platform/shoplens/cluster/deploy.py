"""Deploying the `serve:` section of a cluster file to Ray Serve, and the health of what is deployed."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import sys
import time
from pathlib import Path
from typing import Any, Literal

from shoplens.cluster import ClusterError, Report, loopback
from shoplens.cluster.file import Cluster
from shoplens.cluster.state import State, log_dir
from shoplens.config import Config, validate

DEPLOY_SECONDS = 900

Health = Literal["up", "starting", "down", "failed", "elsewhere"]
"""`elsewhere`: it is up, and the cluster file names it instead of starting it."""


def deployment(cluster: Cluster) -> dict[str, Any]:
    """The body for Serve's REST API: the `serve:` section, with a runtime environment for every application.

    On a head node that `up` started, an application inherits the node's environment. It gets a digest of the code
    beside: Serve compares configurations only, and would not notice an edited file.
    Raises ClusterError if an application's module does not exist, ConfigError if the application does not accept
    its `args:`.
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
        if (arguments := _type_of_args(cluster.root, application["import_path"])) is not None:
            where = f"{cluster.file}: `args:` of the application {application.get('name', 'default')}"
            validate(arguments, application.get("args") or {}, where)
    return config


def _type_of_args(root: Path, import_path: str) -> type[Config] | None:
    """The settings class that an application's builder takes, from its signature.

    None if the module is outside the project, cannot be imported, or declares no such class.
    """
    module, _, builder = import_path.partition(":")
    if not (root / Path(*module.split("."))).with_suffix(".py").is_file():
        return None
    sys.path.insert(0, str(root))
    try:
        parameters = inspect.signature(getattr(importlib.import_module(module), builder)).parameters.values()
    except Exception:  # a module can raise anything on import; Serve reports it
        return None
    finally:
        sys.path.remove(str(root))
    types = [parameter.annotation for parameter in parameters]
    return next((found for found in types if isinstance(found, type) and issubclass(found, Config)), None)


def code_digest(root: Path) -> str:
    """Digest of every file in `serve_apps` and `platform/shoplens` by path and content, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for folder in (root / "serve_apps", root / "platform" / "shoplens"):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(root)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def deploy(cluster: Cluster, config: dict[str, Any], report: Report, seconds: float) -> None:
    """Deploys `config` (of `deployment`) and waits until every application is healthy.

    Raises ClusterError if Serve refuses the configuration, an application fails, Ray or MLflow stops, or `seconds`
    pass.
    """
    names = [application.get("name", "default") for application in config["applications"]]
    if not names and not applications(cluster):
        return
    report("deploying " + ", ".join(names))
    try:
        _client(cluster).deploy_applications(config)
    except RuntimeError as error:
        reason = "\n".join(str(error).rstrip(" .\n").splitlines()[-3:])
        raise ClusterError(f"Ray Serve refuses the applications: {reason}") from error
    deadline = time.monotonic() + seconds
    logs = f"logs: {log_dir(cluster) / 'ray' / 'serve'}"
    while True:
        state = State.read(cluster)
        if state and any(process.process() is None for process in state.processes.values()):
            raise ClusterError(f"Ray or MLflow stopped while the applications started; see {log_dir(cluster)}")
        deployed = applications(cluster)
        waiting = []
        for name in names:
            health, message = health_of(deployed.get(name, {}))
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


def delete_applications(cluster: Cluster) -> None:
    _client(cluster).delete_applications()


def applications(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """Serve's details of every deployed application, by name. Raises ClusterError if Serve does not answer."""
    try:
        return dict(_client(cluster).get_serve_details()["applications"])
    except (ConnectionError, RuntimeError) as error:
        raise ClusterError(f"Ray Serve does not answer at {cluster.dashboard}: {error}") from error


def health_of(application: dict[str, Any]) -> tuple[Health, str]:
    """Serve's details of one application -> its health, and the messages of its unhealthy deployments."""
    states: dict[str, Health] = {"RUNNING": "up", "DEPLOY_FAILED": "failed", "UNHEALTHY": "failed"}
    health = states.get(application.get("status", ""), "starting")
    messages = [
        f"{name}: {_summary(part['message'])}"
        for name, part in application.get("deployments", {}).items()
        if part.get("message") and part.get("status") != "HEALTHY"
    ]
    return health, "" if health == "up" else "; ".join(
        filter(None, [_summary(application.get("message", "")), *messages])
    )


def _summary(message: str) -> str:
    """The last line of a (nested) stack trace, and the place of its last frame. Other messages stay whole."""
    if "Traceback (most recent call last)" not in message:
        return message.strip()
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    places = [line for line in lines if line.startswith("File ") and "<frozen" not in line]
    return f"{lines[-1]} ({places[-1]})" if places else lines[-1]


def _client(cluster: Cluster) -> Any:
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    return ServeSubmissionClient(cluster.dashboard)
