"""Leaves a command's own lines readable: no progress of every dataset, download and registration beside them."""

from __future__ import annotations

import logging
import os
import sys


def quieten() -> None:
    """Call it once `ray` may be imported; on a terminal the bars of long work stay."""
    from ray.data import DataContext

    if not sys.stderr.isatty():
        DataContext.get_current().enable_progress_bars = False
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for chatty in ("ray.data", "ray.train", "httpx", "mlflow.store"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
