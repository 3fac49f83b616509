"""Importer for the Grocery Store Dataset: smartphone photos (split by photo) and studio photos of groceries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from shoplens.datasets.importing.product import read_product
from shoplens.datasets.importing.rows import read_rows
from shoplens.datasets.importing.source import PhotoRef, Reject, SourceProduct
from shoplens.datasets.importing.table import table_in


@dataclass
class Grocery:
    """Reads `products.jsonl` and `images.csv`. Studio photos (role `iconic`) go to the split `iconic`."""

    path: str
    name: str = field(default="grocery", init=False)
    repeats: bool = field(default=False, init=False)

    @property
    def inputs(self) -> list[str]:
        return [table_in(self.path, "products.jsonl"), table_in(self.path, "images.csv")]

    def __iter__(self) -> Iterator[SourceProduct | Reject]:
        products, images = self.inputs
        photos: dict[str, list[PhotoRef | Reject]] = defaultdict(list)
        for where, row in read_rows(images):
            if isinstance(row, Reject):
                yield row
            elif not row.keys() >= {"image", "product_id", "role", "split"}:
                yield Reject(
                    "invalid_row", "image, product_id, role or split is empty: fill in all four columns", where
                )
            else:
                split = "iconic" if row["role"] == "iconic" else row["split"]
                photos[row["product_id"]].append(PhotoRef(self.path, row["image"], row["role"], split))
        for where, row in read_rows(products):
            if isinstance(row, Reject):
                yield row
                continue
            listed = photos.pop(str(row.get("id")), [])
            class_split = row.pop("class_split", None)
            row.pop("iconic_image", None)
            if isinstance(row.get("attributes"), dict):
                row["attributes"]["class_split"] = class_split
            read = read_product(row, where)
            yield read if isinstance(read, Reject) else replace(read, photos=listed)
        for product_id, left in photos.items():
            for photo in left:
                if isinstance(photo, PhotoRef):
                    detail = (
                        "images.csv names a product that is not in products.jsonl: add it there, or remove the photo"
                    )
                    yield Reject("unknown_product", detail, "images.csv", product_id, photo.path)
