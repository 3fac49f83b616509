"""The raw tables of a curation: read once, checked, and numbered.

Rows without what they need are kept out and written to the ledger. Photos keep the order of their table; queries are
the distinct texts of the clicks, in order of their code points.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from shoplens.curation.pipeline.config import CurationConfig
from shoplens.curation.pipeline.files import aside, write_groups
from shoplens.curation.pipeline.ledger import LEDGER
from shoplens.errors import ShoplensError, did_you_mean

try:
    import duckdb
except ImportError as error:
    raise ShoplensError('curation needs the extra: pip install "shoplens[curation]"') from error

PHOTOS = pa.schema(
    [
        ("number", pa.int64()),
        ("image", pa.string()),
        ("document_id", pa.string()),
        ("position", pa.int64()),
        ("url", pa.string()),
    ]
)
DOCUMENTS = pa.schema(
    [("number", pa.int64()), ("document_id", pa.string()), ("text", pa.string()), ("source", pa.string())]
)
QUERIES = pa.schema([("number", pa.int64()), ("text", pa.string())])
CLICKS = pa.schema(
    [("text", pa.string()), ("document_id", pa.string()), ("image", pa.string()), ("clicks", pa.int64())]
)

_COLUMNS: dict[str, dict[str, str | None]] = {
    "photos": {"image": None, "document_id": None, "position": "0", "url": "''"},
    "documents": {"document_id": None, "title": None, "source": "''"},
    "clicks": {"query": None, "document_id": None, "image": "NULL", "clicks": "1"},
}
"""Columns of each raw table, and what stands for one that is not there; None: it must be there."""


@contextmanager
def connect(folder: Path, memory: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory that sorts and joins in `folder` where `memory` is too small.

    Raises ShoplensError if that does not help.
    """
    spill = folder / "spill"
    spill.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(config={"memory_limit": memory, "temp_directory": str(spill)}) as database:
        database.execute("SET enable_progress_bar = false")
        try:
            yield database
        except duckdb.OutOfMemoryException as error:
            raise ShoplensError(f"a join needs more memory than memory={memory}: raise it, and go on") from error


def view(database: duckdb.DuckDBPyConnection, name: str, files: Path, schema: pa.Schema) -> None:
    """Makes a view of the Parquet files of a pattern; an empty one where there is no file."""
    if any(files.parent.glob(files.name)):
        database.read_parquet(str(files)).create_view(name)
    else:
        database.register(name, schema.empty_table())


RANGE = 1 << 18
"""Numbers of photos whose texts are gathered in lists at a time. DuckDB holds lists in memory: they do not spill."""


def ranges(database: duckdb.DuckDBPyConnection, table: str) -> Iterator[dict[str, int]]:
    """`low` and `high`, both included, of ranges that hold all values of the column `number`."""
    last = database.sql(f"SELECT max(number) FROM {table}").fetchall()[0][0]
    for low in range(0, -1 if last is None else last + 1, RANGE):
        yield {"low": low, "high": low + RANGE - 1}


def number_tables(config: CurationConfig, folder: Path) -> dict[str, int]:
    """Writes `photos`, `documents`, `queries` and `clicks` to the folder, and returns their numbers of rows.

    Raises ShoplensError if a table is missing, cannot be read, or lacks a column.
    """
    done = folder / "tables.json"
    if done.exists():
        counts: dict[str, int] = json.loads(done.read_text())
        return counts
    folder.mkdir(parents=True, exist_ok=True)
    with connect(folder, config.memory) as database:
        for name in _COLUMNS:
            _view(database, name, getattr(config.raw, name))
        sizes = config.parts
        with _told(config):
            counts = {
                "photos": write_groups(folder / "photos.parquet", _photos(database), PHOTOS, sizes.photos),
                "documents": write_groups(folder / "documents.parquet", _documents(database), DOCUMENTS, sizes.texts),
                "queries": write_groups(folder / "queries.parquet", _queries(database), QUERIES, sizes.texts),
                "clicks": write_groups(folder / "clicks.parquet", _clicks(database), CLICKS, 1 << 17),
            }
            write_groups(folder / "tables.ledger.parquet", _invalid(database), LEDGER, 1 << 16)
    if not counts["photos"]:
        raise ShoplensError(f"{config.raw.photos} has no photo: give rows with `image` and `document_id`")
    with aside(done) as file:
        file.write_text(json.dumps(counts))
    return counts


@contextmanager
def _told(config: CurationConfig) -> Iterator[None]:
    """Turns faults in the middle of a raw table, which only reading it all brings out, into a sentence."""
    try:
        yield
    except (duckdb.Error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the machine's fault, such as a full disk
        reason = str(error).splitlines()[0]
        tables = ", ".join(path for path in (config.raw.photos, config.raw.documents, config.raw.clicks) if path)
        raise ShoplensError(f"one of {tables} cannot be read to its end ({reason}): mend the file") from error


def _view(database: duckdb.DuckDBPyConnection, name: str, path: str | None) -> None:
    """Makes a view with the columns of the raw table, in their types."""
    columns = _COLUMNS[name]
    if path is None:
        empty = ", ".join(f"{_typed('NULL', column, '')} AS {column}" for column in columns)
        database.execute(f"CREATE VIEW raw_{name} AS SELECT {empty} WHERE false")
        return
    try:
        file = os.path.basename(path).lower()
        if ".parquet" in file:
            table = database.read_parquet(path)
        elif ".json" in file:
            table = database.read_json(path, maximum_depth=1)  # else ids that look like dates or numbers change
        elif ".csv" in file:
            table = database.read_csv(path, all_varchar=True)
        else:
            raise ShoplensError(f"{path} is no table that is read here: give .parquet, .csv or .jsonl")
        there = table.columns
        table.create_view(f"file_{name}")
        for column, otherwise in columns.items():
            if otherwise is None and column not in there:
                near = did_you_mean(column, there)
                raise ShoplensError(f"{path} has no column {column}; it has {', '.join(there)}{near}")
        kinds = dict(zip(there, map(str, table.types), strict=True))
        chosen = ", ".join(
            f"{_typed(_quoted(column) if column in there else str(otherwise), column, kinds.get(column, ''))} AS {column}"
            for column, otherwise in columns.items()
        )
        database.execute(f"CREATE VIEW raw_{name} AS SELECT {chosen} FROM file_{name}")
        database.execute(f"SELECT * FROM raw_{name} LIMIT 1").fetchall()
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        raise ShoplensError(f"the table {path} cannot be read ({reason}): check the path and the file") from error


def _typed(value: str, column: str, kind: str) -> str:
    """The value as the type of the column. Ids have one form: 7.0 of pandas is "7", and "e" with an accent one letter."""
    if kind == "JSON":  # numbers and texts in one column
        value = f"({value} ->> '$')"
    if column in ("position", "clicks"):
        number = f"TRY_CAST({value} AS DOUBLE)"
        return f"CASE WHEN {number} = floor({number}) THEN TRY_CAST({number} AS BIGINT) END"
    if column == "document_id" and kind in ("DOUBLE", "FLOAT"):
        value = f"coalesce(CASE WHEN {value} = floor({value}) THEN TRY_CAST(TRY_CAST({value} AS BIGINT) AS VARCHAR) END, {value}::VARCHAR)"
    text = f"TRY_CAST({value} AS VARCHAR)"
    if column != "document_id":
        return text
    return f"regexp_replace(nfc_normalize(trim({text})), '^(-?[0-9]+)[.]0+$', '\\1')"


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _photos(database: duckdb.DuckDBPyConnection) -> Iterator[pa.RecordBatch]:
    rows = "SELECT image, document_id, coalesce(position, 0) AS position, coalesce(url, '') AS url FROM raw_photos"
    return _numbered(database, f"{rows} WHERE image <> '' AND document_id <> ''", PHOTOS)


def _documents(database: duckdb.DuckDBPyConnection) -> Iterator[pa.RecordBatch]:
    rows = "SELECT document_id, coalesce(title, '') AS text, coalesce(source, '') AS source FROM raw_documents"
    return _numbered(database, f"{rows} WHERE document_id <> ''", DOCUMENTS)


def _queries(database: duckdb.DuckDBPyConnection) -> Iterator[pa.RecordBatch]:
    rows = f"SELECT DISTINCT query AS text FROM raw_clicks WHERE {_CLICK} ORDER BY text"
    return _numbered(database, rows, QUERIES)


_CLICK = "query <> '' AND document_id <> '' AND clicks >= 1"


def _clicks(database: duckdb.DuckDBPyConnection) -> Iterator[pa.RecordBatch]:
    rows = (
        "SELECT query AS text, document_id, nullif(image, '') AS image, sum(clicks)::BIGINT AS clicks "
        f"FROM raw_clicks WHERE {_CLICK} GROUP BY ALL ORDER BY ALL"
    )
    yield from database.sql(rows).to_arrow_reader(1 << 16)


def _numbered(database: duckdb.DuckDBPyConnection, rows: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    first = 0
    for batch in database.sql(rows).to_arrow_reader(1 << 14):
        number = pa.array(range(first, first + len(batch)), pa.int64())
        first += len(batch)
        yield pa.RecordBatch.from_arrays([number, *batch.columns], schema=schema)


def _invalid(database: duckdb.DuckDBPyConnection) -> Iterator[pa.RecordBatch]:
    """Rows of the ledger for rows without what they need."""
    wanted = (
        ("photo", "photos", "image", "NULL", "image <> '' AND document_id <> ''", "image and document_id are needed"),
        ("title", "documents", "NULL", "title", "document_id <> ''", "document_id is needed"),
        ("click", "clicks", "NULL", "query", _CLICK, "query, document_id and a whole number from 1 are needed"),
    )
    for kind, table, image, text, valid, needed in wanted:
        rows = (
            f"SELECT '{kind}' AS kind, NULL::BIGINT AS number, {image}::VARCHAR AS id, document_id, {text}::VARCHAR AS text,"
            f" 'tables' AS stage, 'invalid_row' AS reason, '{needed}' AS detail, 0::DOUBLE AS value,"
            f" 1::DOUBLE AS threshold FROM raw_{table} WHERE NOT coalesce({valid}, false)"
        )
        yield from database.sql(rows).to_arrow_reader(1 << 14)
