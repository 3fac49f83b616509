"""Processes that `up` starts and `down` stops, with all their descendants and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import psutil

from shoplens.cluster import ClusterError, Report
from shoplens.cluster.file import Cluster
from shoplens.cluster.state import Started, State, is_alive, log_dir

MARK = "SHOPLENS_MARK"
"""Environment variable that tells which `up` a process comes from: `State.mark`, then `/ray` or `/mlflow`."""
FILE = "SHOPLENS_CLUSTER"
"""Environment variable with the cluster file that a process belongs to."""
STOP_SECONDS = 30
LEFTOVER_SECONDS = 5


def spawn(command: list[str], environment: dict[str, str], log: Path, folder: Path) -> Started:
    """Starts a process that outlives this one: its own session, no terminal, output to `log`."""
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


def stop(cluster: Cluster, state: State, names: list[str], report: Report) -> None:
    """Stops the named processes with all their descendants, and removes them from `state`.

    The main processes get SIGTERM and 30 s, so that they stop their children. What is left gets SIGTERM, then
    SIGKILL, and 5 s each. Raises ClusterError if a process survives that.
    """
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
        State.delete(cluster)


def running_files() -> set[str]:
    """The cluster files whose Ray or MLflow, started by `up`, runs on this machine for this user."""
    found = set()
    for process in psutil.process_iter(["uids", "environ"]):
        uids, environment = process.info["uids"], process.info["environ"] or {}
        if uids is not None and uids.real == os.getuid() and MARK in environment and FILE in environment:
            found.add(environment[FILE])
    return found


def _send(signal: Literal["terminate", "kill"], targets: set[psutil.Process], seconds: float) -> set[psutil.Process]:
    """Sends the signal, waits up to `seconds`, and returns the processes that still run."""
    for process in targets:
        with _gone_is_fine():
            getattr(process, signal)()
    deadline = time.monotonic() + seconds
    left = {process for process in targets if is_alive(process)}
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = {process for process in left if is_alive(process)}
    return left


def _family(processes: set[psutil.Process]) -> set[psutil.Process]:
    """The processes and their descendants."""
    family = set(processes)
    for process in processes:
        with _gone_is_fine():
            family |= set(process.children(recursive=True))
    return family


def _strays(state: State, names: list[str]) -> set[psutil.Process]:
    """Descendants of the named processes, also those whose parent has died.

    Their environment holds the mark. Ray overwrites the environment of some workers with a process title; those
    have the temporary folder in their arguments.
    """
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
    """Moves the logs of Ray's last session to `kept`, which is a link to them while Ray runs."""
    logs = (temp_dir / "session_latest").resolve() / "logs"
    if not logs.is_dir():
        return
    if kept.is_symlink():
        kept.unlink()
    elif kept.exists():
        shutil.rmtree(kept)
    shutil.move(logs, kept)
