"""Importer for any table of products: JSON lines, CSV or Parquet, with photos as relative paths or URLs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from shoplens.datasets.importing.rows import open_table, photos_of, product_of, read_rows
from shoplens.datasets.importing.source import Reject, SourceProduct


@dataclass
class Table:
    """Reads the products of one file. Photo paths are relative to the folder `images`, or to the folder of the file."""

    path: str
    images: str | None = None
    name: str = ""
    repeats: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        open_table(self.path).close()
        folder, _, file = self.path.rpartition("/")
        self.root = self.images or folder or "."
        self.name = self.name or file.partition(".")[0]

    @property
    def inputs(self) -> list[str]:
        return [self.path]

    def __iter__(self) -> Iterator[SourceProduct | Reject]:
        for where, row in read_rows(self.path):
            if isinstance(row, Reject):
                yield row
                continue
            product = product_of(row, where)
            if isinstance(product, Reject):
                yield product
            else:
                yield SourceProduct(product, photos_of(row, self.root, where), where)


def table_in(folder: str, file: str) -> str:
    """The path of a file in a source folder, local or remote."""
    return f"{folder.rstrip('/')}/{file}" if "://" in folder else os.path.join(folder, file)
