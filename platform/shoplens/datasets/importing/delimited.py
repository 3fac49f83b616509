"""Records of a delimited text. A quote that is never closed costs its own line at most, not the lines behind it."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator

CELL_AT_MOST = 16 * 2**20
"""Characters of one record."""
LINES_AT_MOST = 20_000
"""Lines of one record."""

csv.field_size_limit(CELL_AT_MOST)  # the csv module has one limit for the process, 128 kB if nobody sets it


class Broken(str):
    """Why a line is no record, and what to do."""


class Unquoted(list[str]):
    """The cells of a line whose quotes do not pair, read as they stand, quotes and all."""


def records(lines: Iterator[tuple[int, str | None]], delimiter: str) -> Iterator[tuple[int, list[str] | Broken]]:
    """The cells of each record with the number of its first line. The first record sets the number of cells.

    lines   (number, line with its end); None for a line of more than `CELL_AT_MOST` characters

    A record that does not parse, or that spans lines and has a wrong number of cells, is given up: its first line is read
    without quotes if that gives the right number of cells, and the lines behind it are read anew.
    """
    waiting: deque[tuple[int, str | None]] = deque()
    width = 0
    while (first := waiting.popleft() if waiting else next(lines, None)) is not None:
        number, line = first
        if line is None:
            yield number, Broken(f"the line has more than {CELL_AT_MOST:,} characters: shorten its cells")
            continue
        if not line.strip():
            continue
        taken = [first]
        try:
            cells = next(csv.reader(_feed(taken, waiting, lines), delimiter=delimiter, strict=True))
            fault = "the line has more or fewer cells than the header: put quotes around cells with the separator"
        except csv.Error as error:
            cells, fault = [], f"the line is not CSV ({error}): close each quote, and write a quote within a cell twice"
        while width and len(cells) > width and not cells[-1].strip():
            cells.pop()
        if cells and len(cells) == (width or len(cells)):
            width = len(cells)
            yield number, cells
            continue
        waiting.extendleft(reversed(taken[1:]))
        as_it_stands = line.rstrip("\r\n").split(delimiter)
        quoted = '"' in line and len(as_it_stands) == width
        yield number, Unquoted(as_it_stands) if quoted else Broken(fault)


def _feed(
    taken: list[tuple[int, str | None]], waiting: deque[tuple[int, str | None]], lines: Iterator[tuple[int, str | None]]
) -> Iterator[str]:
    """The lines of one record as the csv module asks for them: the first of `taken`, and then those that it adds."""
    size = 0
    line = taken[0][1]
    while line is not None:
        size += len(line)
        if size > CELL_AT_MOST or len(taken) > LINES_AT_MOST:
            return
        yield line
        more = waiting.popleft() if waiting else next(lines, None)
        if more is None:
            return
        taken.append(more)
        line = more[1]
