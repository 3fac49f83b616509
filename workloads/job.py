"""Command line, connection to the cluster, and progress lines of the jobs.

The parameters of a job's `main` are its command line:

    def main(settings: Settings, model: Annotated[str, typer.Option(help="Version to judge.")]) -> None: ...

    if __name__ == "__main__":
        run(main, __doc__)
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from shoplens.cluster.quiet import quiet_start, quieten
from shoplens.errors import ShoplensError

Settings = Annotated[
    list[str],
    typer.Argument(
        default_factory=list,
        metavar="key=value",
        help="Settings, such as dataset=DIR. They may stand before, between or after the options.",
        show_default=False,
    ),
]
"""The `key=value` arguments, in order; `shoplens.config.override` reads them."""


def storage() -> Path:
    """Folder of runs, packages, indexes and caches, which every node reaches: SHOPLENS_STORAGE, else `.shoplens`."""
    return Path(os.environ.get("SHOPLENS_STORAGE", ".shoplens")).absolute()


def connect() -> None:
    """Connects to the Ray cluster that the job was submitted to, else to one on this machine, else starts one.

    The output of workers is in Ray's logs. SHOPLENS_DEBUG=1 shows it in the output of the job too.
    """
    from shoplens.cluster.loopback import start_own_ray_on_loopback

    start_own_ray_on_loopback()
    import ray

    from shoplens.cluster.file import attach

    attach()
    quieten()
    if not ray.is_initialized():
        with quiet_start() as shown:
            ray.init(logging_level="WARNING", log_to_driver=shown)


def lines(what: str, unit: str, total: int, every_s: float = 10) -> Callable[[int], None]:
    """Returns a function that takes the number done so far, and prints it every `every_s` seconds and at the end.

    Example of a line: `embedding  100/200 photos   50 %  250/s, 2 min left`. What an earlier run did counts as done at once.
    """
    begun = last = time.monotonic()

    def report(done: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last > every_s:
            last = time.monotonic()
            rate = done / max(last - begun, 1e-3)
            left = f", {_minutes((total - done) / rate)} left" if 0 < done < total else ""
            share = f"{100 * done / total:3.0f} %" if total else "100 %"
            print(f"{what}  {done:>{len(str(total))}}/{total} {unit}  {share}  {rate:,.0f}/s{left}", flush=True)

    return report


def _minutes(seconds: float) -> str:
    """`40 s`, `3 min`, `2 h 5 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def run(job: Callable[..., None], about: str | None) -> None:
    """Reads the command line by the parameters of `job`, and calls it. `about` is the text of `--help`.

    A ShoplensError becomes one sentence on stderr and exit code 2. With SHOPLENS_DEBUG=1 it is raised, with its
    stack trace.
    """
    app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
    app.command(help=about, context_settings={"help_option_names": ["-h", "--help"]})(job)
    try:
        app()
    except ShoplensError as error:
        if os.environ.get("SHOPLENS_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
