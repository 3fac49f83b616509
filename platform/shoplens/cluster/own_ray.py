"""A Ray of this process alone, for commands that need no cluster."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from shoplens.cluster.quiet import quiet_start, quieten


@contextmanager
def own_ray() -> Iterator[None]:
    """Uses the running Ray, or starts one in this process and stops it at the end."""
    import ray

    quieten()
    ours = not ray.is_initialized()
    if ours:
        with quiet_start() as shown:
            ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR, log_to_driver=shown)
    try:
        yield
    finally:
        if ours:
            ray.shutdown()
