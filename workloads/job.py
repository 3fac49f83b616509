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

    Example of a line: `embedding  100/200 photos   50 %`.
    """
    last = time.monotonic()

    def report(done: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last > every_s:
            last = time.monotonic()
            print(f"{what}  {done:>{len(str(total))}}/{total} {unit}  {100 * done / total:3.0f} %", flush=True)

    return report


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
