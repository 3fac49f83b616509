"""Importer for any table of products: CSV, JSON lines, Parquet or XML, with photos as relative paths, URLs or bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice

from shoplens.datasets.importing.dialect import open_table
from shoplens.datasets.importing.feeds import Columns
from shoplens.datasets.importing.photo_lists import photos_of
from shoplens.datasets.importing.prices import currency_of
from shoplens.datasets.importing.product import read_product
from shoplens.datasets.importing.rows import Placed, Row, RowFile
from shoplens.datasets.importing.source import Reject, SourceProduct, Told
from shoplens.datasets.importing.variants import MERGED, merged
from shoplens.errors import ShoplensError

_LOOKED_AT = 200
"""Rows whose names decide what the columns of a table without a header are taken as"""
_MOST_COLUMNS = 1000
"""Columns beyond these keep their names, or are left out of a feed"""


@dataclass
class Table:
    """Reads the products of one file. Photo paths are relative to the folder `images`, or to the folder of the file.

    kind       what the user called the file: `csv`, `jsonl`, `parquet` or `xml`; its content decides
    currency   the currency of prices that name none
    """

    path: str
    images: str | None = None
    name: str = ""
    kind: str | None = None
    currency: str | None = None
    repeats: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        open_table(self.path).close()
        folder, _, file = self.path.rpartition("/")
        self.root = self.images or folder or "."
        self.name = self.name or file.partition(".")[0]
        if self.currency is not None:
            code = currency_of(self.currency)
            if code is None:
                raise ShoplensError(f"{self.currency!r} is not a currency: give a code of ISO 4217, such as USD")
            self.currency = code

    @property
    def inputs(self) -> list[str]:
        return [self.path]

    @cached_property
    def _rows(self) -> RowFile:
        return RowFile(self.path, self.kind)

    def __iter__(self) -> Iterator[SourceProduct | Reject | Told]:
        rows = iter(self._rows)
        head = list(islice(rows, _LOOKED_AT))
        columns = _Seen(self._rows, [row for _, row in head if not isinstance(row, Reject)])
        yield from map(Told, self._rows.dialect.told)
        for where, row in self._under_our_names(chain(head, rows), columns):
            if isinstance(row, Reject):
                yield row
                continue
            read = read_product(row, where, decimal=self._rows.dialect.decimal, currency=self.currency)
            if isinstance(read, Reject):
                yield read
            else:
                yield replace(read, photos=photos_of({**row, "id": read.product.id}, self.root, where))
        yield Told(columns.taken.told())

    def _under_our_names(self, rows: Iterator[Placed], columns: _Seen) -> Iterator[Placed]:
        if columns.taken.vocabulary in MERGED:
            yield from merged(rows, columns.taken)
            return
        for where, row in rows:
            yield where, row if isinstance(row, Reject) else columns.of(row).row(row)


class _Seen:
    """The columns of a table. A table without a header may show a new one in any row."""

    def __init__(self, file: RowFile, head: list[Row]) -> None:
        """Raises ShoplensError if there is a header, and it lacks what no product can be without."""
        self._names = dict.fromkeys(file.columns or (name for row in head for name in row))
        self.taken = Columns.of(list(self._names))
        if file.columns and self.taken.missing:
            raise ShoplensError(
                f"{file.path} has no column for {' and '.join(self.taken.missing)}: it has "
                f"{', '.join(file.columns)[:500]}; rename columns to id, title and images, or to other names that "
                "docs/importing.md lists"
            )

    def of(self, row: Row) -> Columns:
        """What the columns are taken as, those of `row` among them."""
        if not row.keys() <= self._names.keys() and len(self._names) < _MOST_COLUMNS:
            self._names |= dict.fromkeys(row)
            self.taken = Columns.of(list(self._names))
        return self.taken


def table_in(folder: str, file: str) -> str:
    """The path of a file in a source folder, local or remote."""
    return f"{folder.rstrip('/')}/{file}" if "://" in folder else os.path.join(folder, file)
