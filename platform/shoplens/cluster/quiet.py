"""Silences the progress output of Ray Data, Ray Train and MLflow, so that a command's own lines stay readable."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


def quieten() -> None:
    """Imports Ray. Progress bars stay if stderr is a terminal."""
    from ray.data import DataContext

    if not sys.stderr.isatty():
        DataContext.get_current().enable_progress_bars = False
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for chatty in ("ray.data", "ray.train", "httpx", "mlflow.store"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it would say that bars are off


@contextmanager
def quiet_start() -> Iterator[bool]:
    """Around `ray.init`. Yields whether workers may write to the output of this process: only with SHOPLENS_DEBUG=1.

    Without it, Ray's core in this process keeps its errors for itself, since it writes some that are none. What goes
    wrong still raises, and the logs of the workers hold the rest.
    """
    level = "RAY_BACKEND_LOG_LEVEL"
    if os.environ.get("SHOPLENS_DEBUG") or level in os.environ:
        yield bool(os.environ.get("SHOPLENS_DEBUG"))
        return
    os.environ[level] = "fatal"
    try:
        with _without("ray log level from environment"):  # Ray's core announces that it was told to be quiet
            yield False
    finally:
        del os.environ[level]


@contextmanager
def _without(words: str) -> Iterator[None]:
    """Keeps lines with these words out of stderr, also lines of C++. What else is written comes at the end of the block."""
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(shown, 2)
            os.close(shown)
            kept.seek(0)
            os.write(2, b"".join(line for line in kept if words.encode() not in line))
