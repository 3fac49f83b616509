"""Importer for snapshots of clothes that have only a category. Each photo becomes a product."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from shoplens.datasets.importing.product import read_product
from shoplens.datasets.importing.rows import read_rows
from shoplens.datasets.importing.source import PhotoRef, Reject, SourceProduct
from shoplens.datasets.importing.table import table_in


@dataclass
class Clothing:
    """Reads `images.csv` with columns image, label and split. The label becomes the title and the leaf category."""

    path: str
    name: str = field(default="clothing", init=False)
    repeats: bool = field(default=False, init=False)

    @property
    def inputs(self) -> list[str]:
        return [table_in(self.path, "images.csv")]

    def __iter__(self) -> Iterator[SourceProduct | Reject]:
        for where, row in read_rows(self.inputs[0]):
            if isinstance(row, Reject):
                yield row
                continue
            image, label = row.get("image", ""), row.get("label")
            fields = {
                "id": f"clothing-{PurePosixPath(image).stem}",
                "title": label,
                "category_path": ["Clothing", label],
                "split": row.get("split"),
            }
            read = read_product(fields, where)
            yield read if isinstance(read, Reject) else replace(read, photos=[PhotoRef(self.path, image)])
