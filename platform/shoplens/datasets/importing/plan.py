"""Planning of an import, its first half: rows are checked, and photos are divided into chunks before any is read."""

from __future__ import annotations

import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from shoplens.datasets.importing.shoppers import ShopperTables
from shoplens.datasets.importing.source import PhotoBytes, PhotoRef, Reject, Source, SourceProduct, Told, webdataset_key
from shoplens.datasets.importing.splits import DRAWN, catalog_key, draw_splits, split_name
from shoplens.datasets.parquet import read_parquet
from shoplens.datasets.photo_files import is_url, locate
from shoplens.datasets.staging import Staging
from shoplens.schema import Product, Split, category_id_of

PLANNED = pa.schema(
    [
        ("image_id", pa.string()),
        ("product_id", pa.string()),
        ("product_json", pa.string()),
        ("role", pa.string()),
        ("split", pa.string()),
        ("root", pa.string()),
        ("path", pa.string()),
        ("uri", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("source", pa.string()),
    ]
)
"""One row a photo to be imported. `path` is as in the source; `uri` is the file: `root` and `path` joined, or a file of
the plan if the photo lies in a table."""

_ROWS_A_PART = 10_000
_BLOB = 64 * 2**20
"""Bytes of photos from tables in one file of the plan, unless one photo has more"""
_WINDOWS_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_split = TypeAdapter(Split)


def plan_import(
    source: Source,
    staging: Staging,
    photos_per_shard: int,
    on_row: Callable[[int], None] = lambda rows: None,
    shoppers: ShopperTables = ShopperTables(),
) -> dict[str, int]:
    """Writes the rows of all tables, the rejects and the photo chunks. Returns the number of photos in each chunk.

    Rows are streamed; only the ids of products and photos stay in memory. A complete plan is not made again. If the
    source names no split, parts for validation and test are drawn; the rows are then read twice.

    on_row   called with the number of rows read so far
    """
    done = f"{staging.root}/parts/plan/complete.json"
    if staging.fs.exists(done):
        return dict(json.loads(staging.fs.cat_file(done))["chunks"])
    staging.fs.makedirs(f"{staging.root}/parts/plan", exist_ok=True)
    drawn = draw_splits(source)
    plan = _Plan(staging, photos_per_shard)
    check = _Check(source.repeats, drawn)
    for rows, item in enumerate(source, 1):
        if isinstance(item, Told):
            plan.told.append(item.sentence)
        else:
            plan.add(*check(item))
        on_row(rows)
    if drawn:
        plan.told.append(DRAWN)
    for row in shoppers.topic_rows():
        plan.add_row("topics", row)
    for row in shoppers.interaction_rows(check.products):
        plan.add_row("interactions", row)
    plan.close()
    staging.fs.pipe_file(f"{done}.part", json.dumps({"chunks": plan.chunks, "told": plan.told}).encode())
    staging.fs.mv(f"{done}.part", done)
    return plan.chunks


def told(staging: Staging) -> list[str]:
    """Sentences about how the source of a complete plan was read."""
    return list(json.loads(staging.fs.cat_file(f"{staging.root}/parts/plan/complete.json"))["told"])


class _Check:
    """Checks across rows: duplicate ids, and categories that do not form a tree."""

    def __init__(self, repeats: bool, drawn: Mapping[str, str] | None) -> None:
        self._repeats, self._drawn = repeats, drawn or {}
        self.products: dict[str, int | None] = {}
        self._image_ids: set[str] = set()
        self._id_of_path: dict[tuple[str, ...], str] = {}
        self._path_of_id: dict[str, tuple[str, ...]] = {}

    def __call__(
        self, item: SourceProduct | Reject
    ) -> tuple[Product | None, list[dict[str, Any]], list[dict[str, Any]]]:
        """The product if it is new and valid, its valid photos as rows of PLANNED, and reject rows."""
        if isinstance(item, Reject):
            return None, [], [_reject_row(item)]
        product, where = item.product, item.where
        known = product.id in self.products
        content = hash(product.model_copy(update={"split": "train"}).to_json()) if self._repeats else None
        if known and not (self._repeats and self.products[product.id] == content):
            detail = (
                "an earlier product has this id; this one and its photos are left out: give each product its own id"
            )
            return None, [], [_reject_row(Reject("duplicate_product", detail, where, product.id))]
        if split := self._drawn.get(catalog_key(product)):
            product = product.model_copy(update={"split": split})
        product, conflict = self._placed(product)
        notes = [*item.notes, *([Reject("field", conflict, where, product.id)] if conflict else [])]
        self.products[product.id] = content
        photos, rejects, product_json = [], [] if known else [_reject_row(note) for note in notes], product.to_json()
        key = webdataset_key(product.id)
        for number, photo in enumerate(item.photos):
            if not isinstance(photo, Reject):
                row = self._photo(photo, product, photo.image_id or f"{key}_{number}", where)
                if not isinstance(row, Reject):
                    photos.append({**row, "product_json": product_json})
                    continue
                photo = row
            rejects.append({**_reject_row(photo), "product_id": product.id})
        return None if known else product, photos, rejects

    def _placed(self, product: Product) -> tuple[Product, str]:
        """The product with the id of its category, and what is wrong with the id it gives, if anything.

        The path decides: it keeps the id that it had first. An id that another path has is replaced by one of the path.
        """
        path, given, conflict = product.category_path, product.category_id, ""
        if not path:
            return product, conflict
        category_id = self._id_of_path.get(path)
        if category_id is None:
            other = self._path_of_id.get(given, path) if given else path
            if other != path:
                conflict = f"category_id: {given!r} names two places, {' > '.join(other)} and {' > '.join(path)}"
            taken = self._path_of_id.keys()
            category_id = given if given and not conflict else category_id_of(path, taken)
        elif given and given != category_id:
            conflict = f"category_id: category {' > '.join(path)} has two ids, {category_id!r} and {given!r}"
        self._path_of_id[category_id] = path
        self._id_of_path[path] = category_id
        return (
            product.model_copy(update={"category_id": category_id}),
            conflict and f"{conflict}; {category_id!r} is used: give each category one id",
        )

    def _photo(
        self, photo: PhotoRef | PhotoBytes, product: Product, image_id: str, where: str
    ) -> dict[str, Any] | Reject:
        split = split_name(photo.split) if photo.split else product.split
        try:
            _split.validate_python(split)
            photo.path.encode()
            photo.role.encode()
        except (ValidationError, UnicodeEncodeError):
            detail = (
                f"the split {split!r} may only have a-z, 0-9 and _, at most 40 characters"
                if photo.split
                else "the path is not valid Unicode text: rename the file"
            )
            return Reject("invalid_photo", detail, where, product.id, photo.path)
        located = self._located(photo, product, where)
        if isinstance(located, Reject):
            return located
        if image_id in self._image_ids:
            detail = f"an earlier photo has the image id {image_id!r}: give each photo its own id"
            return Reject("duplicate_image", detail, where, product.id, photo.path)
        self._image_ids.add(image_id)
        return {
            "image_id": image_id,
            "product_id": product.id,
            "role": photo.role,
            "split": split,
            "path": photo.path,
            "source": where,
            **located,
        }

    def _located(self, photo: PhotoRef | PhotoBytes, product: Product, where: str) -> dict[str, Any] | Reject:
        if isinstance(photo, PhotoBytes):
            return {"data": photo.data}
        if "://" in photo.path and not is_url(photo.path) and not photo.path.startswith(f"{photo.root}/"):
            detail = "only http and https URLs, and paths in the source folder, are supported"
            return Reject("url_scheme", detail, where, product.id, photo.path)
        if _WINDOWS_DRIVE.match(photo.path):
            detail = "the path names a drive of Windows: write it relative to the folder of the photos"
            return Reject("outside_source", detail, where, product.id, photo.path)
        uri = locate(photo.root, photo.path)
        if uri is None:
            detail = "the path is empty or leads out of the source folder: move the photo into the folder"
            return Reject("outside_source", detail, where, product.id, photo.path)
        return {"root": photo.root, "uri": uri, "offset": photo.offset, "length": photo.length}


class _Plan:
    """Collects rows and writes them in parts. A chunk of photos has the name of its shard, `train-000000`."""

    def __init__(self, staging: Staging, photos_per_shard: int) -> None:
        self._staging, self._photos_per_shard = staging, photos_per_shard
        self._open: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._next: defaultdict[str, int] = defaultdict(int)
        self._rows: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._parts = 0
        self._blobs = 0
        self._blob: list[bytes] = []
        self._blob_size = 0
        self.chunks: dict[str, int] = {}
        self.told: list[str] = []

    def add(self, product: Product | None, photos: Sequence[dict[str, Any]], rejects: Sequence[dict[str, Any]]) -> None:
        if product is not None:
            self._rows["products"].append(product_row(product))
        self._rows["rejects"].extend(rejects)
        for photo in photos:
            if (data := photo.pop("data", None)) is not None:
                photo |= self._kept(data)
            waiting = self._open[photo["split"]]
            waiting.append(photo)
            if len(waiting) == self._photos_per_shard:
                self._write_photos(photo["split"])
        self._write_rows_of(_ROWS_A_PART)

    def add_row(self, table: str, row: dict[str, Any] | Reject) -> None:
        if isinstance(row, Reject):
            self._rows["rejects"].append(_reject_row(row))
        else:
            self._rows[table].append(row)
        self._write_rows_of(_ROWS_A_PART)

    def close(self) -> None:
        for split in sorted(split for split, waiting in self._open.items() if waiting):
            self._write_photos(split)
        self._write_blob()
        self._write_rows_of(1)

    def _kept(self, data: bytes) -> dict[str, Any]:
        """The place of a photo that lies in a table, in a file of the plan."""
        if self._blob_size + len(data) > _BLOB:
            self._write_blob()
        root, offset = f"{self._staging.root}/parts/plan", self._blob_size
        self._blob.append(data)
        self._blob_size += len(data)
        uri = f"{root}/{self._blobs:06d}.photos"
        if "://" in self._staging.out:
            uri = self._staging.fs.unstrip_protocol(uri)
        return {"root": root, "uri": uri, "offset": offset, "length": len(data)}

    def _write_blob(self) -> None:
        if self._blob:
            path = f"{self._staging.root}/parts/plan/{self._blobs:06d}.photos"
            self._staging.fs.pipe_file(path, b"".join(self._blob))
            self._blobs, self._blob, self._blob_size = self._blobs + 1, [], 0

    def _write_photos(self, split: str) -> None:
        chunk = f"{split}-{self._next[split]:06d}"
        self._next[split] += 1
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(self._open[split], schema=PLANNED), buffer, compression="zstd")
        self._staging.fs.pipe_file(f"{self._staging.root}/parts/plan/{chunk}.parquet", buffer.getvalue())
        self.chunks[chunk] = len(self._open.pop(split))

    def _write_rows_of(self, least: int) -> None:
        if sum(map(len, self._rows.values())) < least:
            return
        # No split name has a dot, so this name is unique.
        self._staging.write_chunk(f"rows.{self._parts:06d}", self._rows)
        self._parts += 1
        self._rows.clear()


def planned_photos(staging: Staging, chunk: str) -> Iterator[dict[str, Any]]:
    """The rows of PLANNED of one chunk, in the order of its shard."""
    with staging.fs.open(f"{staging.root}/parts/plan/{chunk}.parquet", "rb") as file:
        yield from read_parquet(file).to_pylist()


def product_row(product: Product) -> dict[str, Any]:
    """The product as a row of `products.parquet`."""
    row = product.model_dump(mode="python")
    row["product_id"] = row.pop("id")
    row["texts"] = sorted(product.texts.items())
    row["attributes"] = sorted(product.attributes.items())
    return row


def _reject_row(reject: Reject) -> dict[str, Any]:
    return reject_row(reject.where, reject.product_id, reject.image, reject.reason, reject.detail)


def reject_row(source: str, product_id: str | None, image: str | None, reason: str, detail: str) -> dict[str, Any]:
    """A row of `rejects.parquet`. Texts are made valid Unicode and cut to 500 characters."""

    def printable(text: str | None) -> str | None:
        return None if text is None else text.encode(errors="replace").decode()[:500]

    return {
        "source": printable(source),
        "product_id": printable(product_id),
        "image": printable(image),
        "reason": reason,
        "detail": printable(detail),
    }
