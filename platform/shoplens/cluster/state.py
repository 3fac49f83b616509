"""`cluster.json`: what `shoplens up` started, kept in the cluster's state folder for `status` and `down`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from shoplens.cluster import ClusterError
from shoplens.cluster.file import Cluster


@dataclass(frozen=True)
class Started:
    """A process that `up` started. `created` (Unix seconds) tells it from a later process with the same id."""

    pid: int
    created: float

    def process(self) -> psutil.Process | None:
        """The process, or None if it has ended."""
        try:
            process = psutil.Process(self.pid)
            ours = abs(process.create_time() - self.created) < 1
            return process if ours and is_alive(process) else None
        except psutil.NoSuchProcess:
            return None


@dataclass
class State:
    """The content of `cluster.json`.

    mark       a random id. Every process that `up` starts inherits it in its environment
    temp_dir   Ray's temporary folder
    settings   the part of the cluster file that a running Ray or MLflow cannot change
    processes  the main processes, `ray` and `mlflow`
    """

    file: str
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    temp_dir: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    processes: dict[str, Started] = field(default_factory=dict)

    @classmethod
    def read(cls, cluster: Cluster) -> State | None:
        """The saved state, or None if the cluster is not up."""
        try:
            saved = json.loads(_path(cluster).read_text())
        except FileNotFoundError:
            return None
        saved["processes"] = {name: Started(**process) for name, process in saved["processes"].items()}
        return cls(**saved)

    def write(self, cluster: Cluster) -> None:
        """Replaces `cluster.json` as a whole: a reader never sees half a file."""
        path = _path(cluster)
        aside = path.with_suffix(".part")
        aside.write_text(json.dumps(asdict(self), indent=1))
        aside.replace(path)

    @staticmethod
    def delete(cluster: Cluster) -> None:
        _path(cluster).unlink(missing_ok=True)


def _path(cluster: Cluster) -> Path:
    return cluster.state_dir / "cluster.json"


def log_dir(cluster: Cluster) -> Path:
    """Folder with `mlflow.log`, `ray-start.log` and `ray/` (the logs of Ray's session)."""
    return cluster.state_dir / "logs"


@contextmanager
def locked(cluster: Cluster) -> Iterator[None]:
    """Lets one `up` or `down` of a cluster run at a time. Raises ClusterError if another one runs."""
    lock = FileLock(cluster.state_dir / "cluster.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ClusterError(f"another `shoplens up` or `down` of {cluster.file} is at work; wait for it") from None
    try:
        yield
    finally:
        lock.release()


def is_alive(process: psutil.Process) -> bool:
    """Whether the process runs. A zombie (ended, but not yet waited for by its parent) does not."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
