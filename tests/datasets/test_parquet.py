"""Reading Parquet through Python file objects."""

from __future__ import annotations

import io
import weakref
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shoplens.datasets.parquet import read_parquet


class File(io.FileIO):
    """A file that can be weakly referenced."""


def test_nothing_holds_the_file_after_the_read(tmp_path: Path) -> None:
    """A thread that lets go of a Python file while the process ends aborts it: `pq.read_table` fails this test."""
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({f"c{column}": list(range(1000)) for column in range(8)}), path)
    late = 0
    for _ in range(500):
        file = File(path)
        gone = weakref.ref(file)
        read_parquet(file)
        del file
        late += gone() is not None
    assert late == 0


def test_a_schema_gives_types_order_and_the_columns_that_the_file_lacks(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"b": pa.array([1, 2], pa.int32()), "a": ["x", "y"], "unknown": [0, 0]}), path)
    schema = pa.schema([("a", pa.string()), ("b", pa.int64()), ("c", pa.map_(pa.string(), pa.string()))])
    with path.open("rb") as file:
        assert read_parquet(file, schema=schema).equals(
            pa.table({"a": ["x", "y"], "b": [1, 2], "c": [None, None]}, schema=schema)
        )
    with path.open("rb") as file:
        assert read_parquet(file, ["c", "b"], schema).to_pydict() == {"c": [None, None], "b": [1, 2]}
    with path.open("rb") as file:
        assert read_parquet(file, ["b"]).to_pydict() == {"b": [1, 2]}
