"""Silences the progress output of Ray Data, Ray Train and MLflow, so that a command's own lines stay readable."""

from __future__ import annotations

import logging
import os
import sys


def quieten() -> None:
    """Imports Ray. Progress bars stay if stderr is a terminal."""
    from ray.data import DataContext

    if not sys.stderr.isatty():
        DataContext.get_current().enable_progress_bars = False
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for chatty in ("ray.data", "ray.train", "httpx", "mlflow.store"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
