"""Parquet files of a curation. A file appears when it is whole, so one that exists is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A path to write to. The file gets the name `path` at the end, and is removed after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{uuid4().hex[:12]}.part")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_table(path: Path, rows: pa.Table | Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Writes a table or rows. Equal content gives equal bytes."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=schema)
    with aside(path) as file:
        pq.write_table(table.cast(schema), file, compression="zstd")


def write_groups(path: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema, rows: int) -> int:
    """Writes batches as row groups of `rows` rows, which are the parts of later work. Returns the number of rows.

    At most `rows` rows and one batch are in memory.
    """
    written = 0
    with aside(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        waiting = pa.Table.from_batches([], schema)
        for batch in batches:
            waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch]).cast(schema)])
            while len(waiting) >= rows:
                writer.write_table(waiting.slice(0, rows).combine_chunks(), row_group_size=rows)
                written += rows
                waiting = waiting.slice(rows)
        if len(waiting):
            writer.write_table(waiting.combine_chunks(), row_group_size=rows)
            written += len(waiting)
    return written


def groups(path: Path) -> int:
    """The number of row groups."""
    with pq.ParquetFile(path) as file:
        return int(file.num_row_groups)


def read_group(path: Path, group: int, columns: Sequence[str] | None = None) -> pa.Table:
    with pq.ParquetFile(path) as file:
        return file.read_row_group(group, columns=columns)


def each_group(path: Path) -> Iterator[pa.Table]:
    """The row groups in order, one in memory at a time."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


def part(folder: Path, number: int, name: str = "") -> Path:
    """The file of a part, such as `000012.parquet` or `000012.ledger.parquet`."""
    return folder / f"{number:06d}{'.' if name else ''}{name}.parquet"
