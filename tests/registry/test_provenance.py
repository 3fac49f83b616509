from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
import torch

from shoplens.registry import provenance


def test_versions_are_those_of_the_imported_libraries() -> None:
    found = provenance.versions()
    assert found["mlflow"] == mlflow.__version__
    assert found["torch"] == torch.__version__.partition("+")[0] or found["torch"] == torch.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"ray", "transformers", "timm", "shoplens"} <= found.keys()


def _git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_commit_of_a_checkout_and_whether_it_was_edited(tmp_path: Path) -> None:
    _git(tmp_path, "init", "-q")
    assert provenance._checkout(tmp_path) is None, "no commit yet"
    (tmp_path / "a.py").write_text("1")
    _git(tmp_path, "add", "a.py")
    _git(tmp_path, "commit", "-qm", "a")
    commit = _git(tmp_path, "rev-parse", "HEAD")
    assert provenance._checkout(tmp_path) == (commit, False)
    (tmp_path / "venv.py").write_text("installed here, but not of this repository")
    assert provenance._checkout(tmp_path, tracked="venv.py") is None
    assert provenance._checkout(tmp_path, tracked="a.py") == (commit, False)
    (tmp_path / "a.py").write_text("2")
    assert provenance._checkout(tmp_path) == (commit, True)


def test_outside_of_a_checkout_there_is_no_commit(tmp_path: Path) -> None:
    assert provenance._checkout(tmp_path / "absent") is None


@pytest.mark.parametrize(("given", "state"), [("abc123", ("abc123", None)), ("abc123-dirty", ("abc123", True))])
def test_commit_by_environment_goes_first(
    monkeypatch: pytest.MonkeyPatch, given: str, state: tuple[str, bool | None]
) -> None:
    monkeypatch.setenv("SHOPLENS_GIT_COMMIT", given)
    assert provenance.git_state() == state


def test_submission_id_of_a_ray_job(monkeypatch: pytest.MonkeyPatch) -> None:
    assert provenance.submission_id() is None
    job = {"runtime_env": {}, "metadata": {"job_submission_id": "raysubmit_7"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    assert provenance.submission_id() == "raysubmit_7"


def test_who(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "@" in provenance.who()
    monkeypatch.setenv("SHOPLENS_USER", "김민지")
    assert provenance.who() == "김민지"
