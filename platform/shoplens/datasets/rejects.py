"""What an import left out: `rejects.parquet` of a dataset, or of an import that found no photo."""

from __future__ import annotations

from collections import Counter
from typing import Any

import fsspec

from shoplens.datasets.parquet import read_parquet
from shoplens.errors import ShoplensError

NOTES = frozenset({"field", "quotes"})
"""Reasons that cost no product, photo or event: a field was left empty, or a line was read as it stands."""


def read_rejects(folder: str) -> list[dict[str, Any]]:
    """The rows of `datasets.format.REJECTS`. Raises ShoplensError if the folder has none."""
    try:
        with fsspec.open(f"{folder.rstrip('/')}/rejects.parquet", "rb") as file:
            rows: list[dict[str, Any]] = read_parquet(file).to_pylist()
    except (FileNotFoundError, NotADirectoryError):
        raise ShoplensError(
            f"{folder} has no rejects.parquet: give the folder of a dataset, or the OUT.partial of an import"
        ) from None
    return rows


def by_reason(rows: list[dict[str, Any]], notes: bool) -> list[tuple[str, int]]:
    """(reason, number of rows), the most frequent first: of notes, or of what was kept out."""
    counts = Counter(row["reason"] for row in rows if (row["reason"] in NOTES) == notes)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
