"""What the jobs share: their command line, and the cluster they run on."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from shoplens.cluster.quiet import quieten
from shoplens.errors import ShoplensError


def parser(module: str, description: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Reads the command line; `key=value` settings may stand anywhere and come back as `assignments`."""
    parser.add_argument("assignments", nargs="*", metavar="key=value", help="settings, such as dataset=DIR")
    return parser.parse_intermixed_args()


def storage() -> Path:
    """The folder that runs, packages, indexes and caches lie in, seen by every node."""
    return Path(os.environ.get("SHOPLENS_STORAGE", ".shoplens")).absolute()


def connect() -> None:
    """Joins the cluster the job was submitted to, else the one that runs here, else starts one of its own."""
    from shoplens.cluster.loopback import start_own_ray_on_loopback

    start_own_ray_on_loopback()
    import ray

    from shoplens.cluster.file import attach

    attach()
    quieten()
    if not ray.is_initialized():
        ray.init(logging_level="WARNING")


def lines(what: str, unit: str, total: int, every_s: float = 10) -> Callable[[int], None]:
    """To be called with how many of `total` are done; says so now and then, and in the end."""
    last = time.monotonic()

    def told(done: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last > every_s:
            last = time.monotonic()
            print(f"{what}  {done:>{len(str(total))}}/{total} {unit}  {100 * done / total:3.0f} %", flush=True)

    return told


def run(job: Callable[[], None]) -> None:
    """A user's mistake is one sentence and exit code 2; SHOPLENS_DEBUG=1 shows where it arose."""
    try:
        job()
    except ShoplensError as error:
        if os.environ.get("SHOPLENS_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
