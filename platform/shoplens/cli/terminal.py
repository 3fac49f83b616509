"""The console that every command prints to, and its progress line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

console = Console(soft_wrap=True)


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Yields a function that shows one line of progress.

    A terminal shows the latest line beside a spinner. Other outputs (a log file, a pipe) get every new line.
    """
    with console.status("") as spinner:
        before = ""

        def report(line: str) -> None:
            nonlocal before
            spinner.update(Text(line))
            if line != before and not console.is_terminal:
                console.print(Text(line))
            before = line

        yield report
