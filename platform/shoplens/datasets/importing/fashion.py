"""Importer for Myntra studio photos with titles and attributes. The low-resolution photos lie in tars."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from shoplens.datasets.importing.photo_lists import photos_of
from shoplens.datasets.importing.product import read_product
from shoplens.datasets.importing.rows import read_rows
from shoplens.datasets.importing.source import PhotoBytes, PhotoRef, Reject, SourceProduct, Told
from shoplens.datasets.importing.table import Table, table_in
from shoplens.datasets.importing.tars import BrokenTar, members


@dataclass
class LowResolution:
    """Reads `products.jsonl`. Each row names the tar (`shard`) that has its photo as a member."""

    path: str
    name: str = field(default="fashion_lowres", init=False)
    repeats: bool = field(default=False, init=False)

    @property
    def inputs(self) -> list[str]:
        return [table_in(self.path, "products.jsonl")]

    def __iter__(self) -> Iterator[SourceProduct | Reject]:
        places: dict[str, dict[str, tuple[int, int]]] = {}
        for where, row in read_rows(self.inputs[0]):
            if isinstance(row, Reject):
                yield row
                continue
            shard = str(row.pop("shard", ""))
            if shard not in places:
                places[shard] = {}
                try:
                    for member in members(table_in(self.path, os.path.basename(shard))):
                        places[shard][member.name] = (member.offset, member.length)
                except BrokenTar as error:
                    yield Reject("broken_shard", str(error), where, image=shard)
            read = read_product(row, where)
            if isinstance(read, Reject):
                yield read
                continue
            photos: list[PhotoRef | PhotoBytes | Reject] = []
            for photo in photos_of(row, self.path, where):
                if isinstance(photo, PhotoRef) and photo.path in places[shard]:
                    offset, length = places[shard][photo.path]
                    photo = PhotoRef(self.path, shard, photo.role, photo.split, None, offset, length)
                elif isinstance(photo, PhotoRef):
                    detail = f"{shard} has no such member: correct the path, or add the photo to the tar"
                    photo = Reject("missing_file", detail, where, read.product.id, photo.path)
                photos.append(photo)
            yield replace(read, photos=photos)


@dataclass
class Fashion:
    """Reads photos of up to 256 pixels and then, if the folder `lowres` is given, photos of 60x80 pixels."""

    path: str
    lowres: str | None = None
    name: str = field(default="fashion", init=False)
    repeats: bool = field(default=False, init=False)

    @property
    def parts(self) -> list[Table | LowResolution]:
        high = Table(table_in(self.path, "products.jsonl"))
        return [high] if self.lowres is None else [high, LowResolution(self.lowres)]

    @property
    def inputs(self) -> list[str]:
        return [path for part in self.parts for path in part.inputs]

    def __iter__(self) -> Iterator[SourceProduct | Reject | Told]:
        for part in self.parts:
            yield from part
