"""Reads Parquet through Python file objects, which any fsspec URI gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq


def read_parquet(file: IO[bytes], columns: Sequence[str] | None = None, schema: pa.Schema | None = None) -> pa.Table:
    """The whole table, or the given columns of it.

    schema   types of the columns; a column that the file lacks is null

    Arrow's threads may hold a Python file for a moment after a read has returned. A process that ends in that moment
    is aborted (https://github.com/apache/arrow/issues/33975), so this reads in the calling thread alone.
    """
    with pq.ParquetFile(file, pre_buffer=False) as parquet:
        schema = schema or parquet.schema_arrow
        wanted = pa.schema([schema.field(name) for name in columns]) if columns else schema
        table = parquet.read(wanted.names, use_threads=False)
    for field in wanted:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(wanted.names).cast(wanted)
