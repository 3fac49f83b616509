"""Importer for Luma, the demo shop of Magento: sportswear in colour variants, with several views each."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from shoplens.datasets.importing.photo_lists import photos_of
from shoplens.datasets.importing.product import read_product
from shoplens.datasets.importing.rows import read_rows
from shoplens.datasets.importing.source import PhotoRef, Reject, SourceProduct
from shoplens.datasets.importing.table import table_in


@dataclass
class Luma:
    """Reads `products.jsonl`, and the view of each photo (`main`, `alt`, `back`) from `images.csv`.

    The colour is appended to the title, because Luma's names lack it. A catalog is one design in all its colours.
    """

    path: str
    name: str = field(default="luma", init=False)
    repeats: bool = field(default=False, init=False)

    @property
    def inputs(self) -> list[str]:
        return [table_in(self.path, "products.jsonl"), table_in(self.path, "images.csv")]

    def __iter__(self) -> Iterator[SourceProduct | Reject]:
        products, images = self.inputs
        views: dict[tuple[str, str], str] = {}
        for _, row in read_rows(images):
            if isinstance(row, Reject):
                yield row
            elif row.keys() >= {"product_id", "image", "role"}:
                views[row["product_id"], row["image"]] = row["role"]
        for where, row in read_rows(products):
            if isinstance(row, Reject):
                yield row
                continue
            for field_name in ("name", "description"):
                if isinstance(row.get(field_name), str):
                    row[field_name] = html.unescape(row[field_name])
            attributes = row.get("attributes")
            color = attributes.get("color") if isinstance(attributes, dict) else None
            name = row.get("name")
            if isinstance(color, str) and isinstance(name, str) and color.casefold() not in name.casefold():
                row["name"] = f"{name} {color}"
            row["currency"] = "USD"
            read = read_product(row, where)
            if isinstance(read, Reject):
                yield read
                continue
            photos = [
                PhotoRef(photo.root, photo.path, views.get((read.product.id, photo.path), photo.role))
                if isinstance(photo, PhotoRef)
                else photo
                for photo in photos_of(row, self.path, where)
            ]
            yield replace(read, photos=photos)
