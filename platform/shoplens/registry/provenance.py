"""Provenance: code, libraries, Ray job and person, recorded with every run and promotion."""

from __future__ import annotations

import getpass
import json
import os
import platform
import socket
import subprocess
from importlib import metadata
from pathlib import Path

LIBRARIES = ("ray", "torch", "transformers", "timm", "mlflow", "shoplens")


def versions() -> dict[str, str]:
    """Versions of Python and of the installed `LIBRARIES`."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state() -> tuple[str, bool | None] | None:
    """(commit, dirty) of the running code, or None. `dirty` is None if only the commit is known.

    Sources, in order: `SHOPLENS_GIT_COMMIT` (`COMMIT` or `COMMIT-dirty`), because `ray job submit` uploads a copy
    without `.git`; the checkout that shoplens is installed from; the current directory.
    """
    if given := os.environ.get("SHOPLENS_GIT_COMMIT"):
        commit, sign, _ = given.partition("-dirty")
        return commit, bool(sign) or None
    source = Path(__file__).resolve()
    return _checkout(source.parent, tracked=source.name) or _checkout(Path.cwd())


def _checkout(folder: Path, tracked: str | None = None) -> tuple[str, bool] | None:
    """State of the checkout around `folder`; with `tracked`, only if git knows that file."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        if tracked is not None:
            git("ls-files", "--error-unmatch", tracked)
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None


def submission_id() -> str | None:
    """Submission id of the Ray job whose driver this process is, if any."""
    try:
        job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    except json.JSONDecodeError:
        return None
    return (job.get("metadata") or {}).get("job_submission_id")


def who() -> str:
    """`SHOPLENS_USER`, else login@host."""
    if given := os.environ.get("SHOPLENS_USER"):
        return given
    try:
        login = getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        login = str(os.getuid())
    return f"{login}@{socket.gethostname()}"
