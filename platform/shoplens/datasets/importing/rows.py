"""Rows of a table (JSON lines, a JSON array, CSV, Parquet or an XML feed), read one by one in bounded memory."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from shoplens.datasets.importing.delimited import CELL_AT_MOST, Broken, Unquoted, records
from shoplens.datasets.importing.dialect import Dialect, dialect_of, open_table
from shoplens.datasets.importing.source import Reject
from shoplens.datasets.importing.xml_feed import items_of
from shoplens.errors import ShoplensError

Row = dict[str, Any]
Placed = tuple[str, Row | Reject]
"""A row with its place, `products.jsonl:12`: the line, or in Parquet, XML and a JSON array the number of the row."""

TEXT_ROW = CELL_AT_MOST
"""Characters of one row of JSON or CSV."""
PARQUET_ROW = 64 * 2**20
"""Bytes of one row of Parquet, which may hold photos."""
_BATCH = 64
_BLOCK = 1 << 16


class RowFile:
    """The rows of one table. Its content decides how it is read; see `dialect_of`.

    An unreadable row is yielded as a Reject. Iterating raises ShoplensError if the whole file cannot be read.
    """

    def __init__(self, path: str, asked: str | None = None) -> None:
        self.path, self._asked = path, asked
        self.name = path.rstrip("/").rpartition("/")[2]
        self.columns: list[str] | None = None
        """The header of CSV and Parquet, once the first row was read"""

    @cached_property
    def dialect(self) -> Dialect:
        with self._damage():
            return dialect_of(self.path, self._asked)

    def __iter__(self) -> Iterator[Placed]:
        dialect = self.dialect
        with self._damage():
            match dialect.kind:
                case "parquet":
                    yield from self._parquet()
                case "xml":
                    with open_table(self.path) as file:
                        yield from items_of(file, self.name)
                case "csv":
                    yield from self._csv(dialect)
                case "jsonl":
                    yield from self._json(dialect)

    def _damage(self) -> _Damage:
        return _Damage(self.path)

    def _text(self, dialect: Dialect) -> io.TextIOWrapper:
        return io.TextIOWrapper(open_table(self.path), dialect.encoding, dialect.errors, newline="")

    def _json(self, dialect: Dialect) -> Iterator[Placed]:
        with self._text(dialect) as file:
            start = file.read(_BLOCK).lstrip("\ufeff").lstrip()
        with self._text(dialect) as file:
            if start.startswith("["):
                yield from _array(file, self.name)
                return
            for number, line in _lines(file):
                where = f"{self.name}:{number}"
                if line is None:
                    yield _malformed(where, f"the line has more than {TEXT_ROW:,} characters: shorten its texts")
                    continue
                if number == 1:
                    line = line.lstrip("\ufeff")
                if line.strip():
                    yield where, _object(line, where)

    def _csv(self, dialect: Dialect) -> Iterator[Placed]:
        with self._text(dialect) as file:
            found = records((line for line in _lines(file) if line[0] > dialect.skip), dialect.delimiter)
            header = next(found, (0, []))[1]
            if isinstance(header, Broken):
                raise ShoplensError(f"{self.path} has no readable header: {header}")
            self.columns = columns = _names(header)
            for number, cells in found:
                where = f"{self.name}:{number}"
                if isinstance(cells, Broken):
                    yield _malformed(where, cells)
                    continue
                if isinstance(cells, Unquoted):
                    detail = "a quote of the line is not closed, so the line was read as it stands: write it twice"
                    yield where, Reject("quotes", detail, where)
                yield where, {column: cell for column, cell in zip(columns, cells, strict=True) if cell.strip()}

    def _parquet(self) -> Iterator[Placed]:
        with open_table(self.path) as file, pq.ParquetFile(file, pre_buffer=False) as table:
            self.columns = list(table.schema_arrow.names)
            number = 0
            for group in range(table.num_row_groups):
                meta = table.metadata.row_group(group)
                for column in map(meta.column, range(meta.num_columns)):
                    if column.total_uncompressed_size > PARQUET_ROW * max(1, column.num_values):
                        where = f"{self.name}:{number + 1}"
                        detail = f"the values of {column.path_in_schema} have more than {PARQUET_ROW:,} bytes each"
                        yield _malformed(where, f"{detail}, so {meta.num_rows} rows are left out: shorten them")
                        number += meta.num_rows
                        break
                else:
                    average = meta.total_byte_size / max(1, meta.num_rows)
                    rows = max(1, min(_BATCH, int(PARQUET_ROW / max(1, average))))
                    for batch in table.iter_batches(batch_size=rows, row_groups=[group], use_threads=False):
                        for where, row in _of_batch(batch, self.name, number):
                            yield where, row
                        number += batch.num_rows


def read_rows(path: str, asked: str | None = None) -> Iterator[Placed]:
    """The rows of `RowFile`."""
    yield from RowFile(path, asked)


class _Damage:
    """Turns the errors of damaged files into one sentence."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UnicodeDecodeError):
            raise ShoplensError(f"{self._path} is not {error.encoding} ({error.reason}): save it as UTF-8") from error
        if isinstance(error, EOFError | gzip.BadGzipFile | zlib.error | pa.ArrowException):
            raise ShoplensError(
                f"{self._path} is cut short or damaged ({error}): create or download it again"
            ) from error


def _lines(file: IO[str]) -> Iterator[tuple[int, str | None]]:
    """(number, line), None for a line beyond `TEXT_ROW`, of which no more than that is ever held."""
    number = 0
    while line := file.readline(TEXT_ROW + 1):
        number += 1
        if len(line) <= TEXT_ROW:
            yield number, line
            continue
        while line and not line.endswith(("\n", "\r")):
            line = file.readline(_BLOCK)
        yield number, None


def _names(header: Sequence[str]) -> list[str]:
    """The names of columns. Empty and equal ones are named as pandas does: `Unnamed: 0`, `image.1`."""
    names: list[str] = []
    for n, cell in enumerate(header):
        name = cell.strip().strip("\ufeff") or f"Unnamed: {n}"
        names.append(name if name not in names else _another(name, names))
    return names


def _another(name: str, taken: Sequence[str] | Row) -> str:
    n = 1
    while f"{name}.{n}" in taken:
        n += 1
    return f"{name}.{n}"


def _pairs(pairs: list[tuple[str, Any]]) -> Row:
    """A JSON object in which no key hides an equal one: they become `image` and `image.1`."""
    row = dict(pairs)
    if len(row) == len(pairs):
        return row
    row = {}
    for key, value in pairs:
        row[key if key not in row else _another(key, row)] = value
    return row


_decoder = json.JSONDecoder(object_pairs_hook=_pairs)


def _object(text: str, where: str) -> Row | Reject:
    try:
        row = _decoder.decode(text)
    except (ValueError, RecursionError) as error:
        return _malformed(where, f"the line is not JSON ({error}): write one JSON object a line")[1]
    if isinstance(row, dict):
        return row
    return _malformed(where, "the line is JSON but not an object: write one JSON object a line")[1]


def _array(file: IO[str], name: str) -> Iterator[Placed]:
    """The objects of a JSON array, read in blocks."""
    buffer, at, number = "", 0, 0
    opened = False
    while True:
        while at < len(buffer) and (buffer[at] in " \t\r\n\ufeff," or (buffer[at] == "[" and not opened)):
            opened = opened or buffer[at] == "["
            at += 1
        if buffer[at : at + 1] == "]":
            return
        where = f"{name}:{number + 1}"
        try:
            row, at = _decoder.raw_decode(buffer, at)
        except (ValueError, RecursionError) as error:
            more = file.read(max(_BLOCK, len(buffer) - at)) if isinstance(error, ValueError) else ""
            buffer, at = buffer[at:] + more, 0
            if not more or len(buffer) > 2 * TEXT_ROW:
                detail = f"the array is not JSON from here on ({error}), so its rest is left out"
                yield _malformed(where, f"{detail}: close it, or write one JSON object a line")
                return
            continue
        number += 1
        if isinstance(row, dict):
            yield where, row
        else:
            yield _malformed(where, "the item of the array is not an object: write one JSON object a product")


def _of_batch(batch: pa.RecordBatch, name: str, before: int) -> Iterator[Placed]:
    if batch.nbytes <= PARQUET_ROW:
        for number, row in enumerate(batch.to_pylist(), before + 1):
            yield f"{name}:{number}", row
        return
    for n in range(batch.num_rows):
        where, one = f"{name}:{before + n + 1}", batch.slice(n, 1)
        if one.nbytes > PARQUET_ROW:
            yield _malformed(where, f"the row has more than {PARQUET_ROW:,} bytes: shorten it")
        else:
            yield where, one.to_pylist()[0]


def _malformed(where: str, detail: str) -> tuple[str, Reject]:
    return where, Reject("malformed_row", detail, where)
