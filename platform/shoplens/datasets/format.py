"""The on-disk dataset: Parquet tables, WebDataset shards and a manifest.

A folder is a dataset if it has a `manifest.json`, which is written last. Photos are members of
`shards/SPLIT-000000.tar`: `IMAGE_ID.jpg` and `IMAGE_ID.json`. `images.parquet` has the byte offset of each photo, so a
single photo is one ranged read.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shoplens.datasets.parquet import read_parquet
from shoplens.errors import ShoplensError
from shoplens.schema import CategoryTree

FORMAT_VERSION = 1
_SHARD = re.compile(r"[\w-]+\.tar")

PRODUCTS = pa.schema(
    [
        ("product_id", pa.string()),
        ("catalog_id", pa.string()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("texts", pa.map_(pa.string(), pa.string())),
        ("category_id", pa.string()),
        ("category_path", pa.list_(pa.string())),
        ("attributes", pa.map_(pa.string(), pa.list_(pa.string()))),
        ("price", pa.float64()),
        ("currency", pa.string()),
        ("seller", pa.string()),
        ("review_count", pa.int64()),
        ("stock", pa.int64()),
        ("split", pa.string()),
    ]
)
IMAGES = pa.schema(
    [
        ("image_id", pa.string()),
        ("product_id", pa.string()),
        ("role", pa.string()),
        ("split", pa.string()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("sha256", pa.string()),
        ("phash", pa.uint64()),
    ]
)
CATEGORIES = pa.schema(
    [
        ("category_id", pa.string()),
        ("parent_id", pa.string()),
        ("level", pa.int32()),
        ("name", pa.string()),
        ("path", pa.list_(pa.string())),
        ("order", pa.int32()),
        ("last", pa.int32()),
        ("n_products", pa.int64()),
    ]
)
TOPICS = pa.schema(
    [
        ("topic_id", pa.string()),
        ("name", pa.string()),
        ("desc", pa.string()),
        ("date", pa.string()),
        ("cat1", pa.string()),
        ("cat2", pa.string()),
        ("cat3", pa.string()),
        ("cat4", pa.string()),
        ("kwds", pa.list_(pa.string())),
        ("product_ids", pa.list_(pa.string())),
    ]
)
INTERACTIONS = pa.schema(
    [
        ("time", pa.string()),
        ("user_id", pa.string()),
        ("product_id", pa.string()),
        ("kind", pa.string()),
        ("surface", pa.string()),
        ("topic_id", pa.string()),
        ("position", pa.int32()),
        ("propensity", pa.float64()),
    ]
)
REJECTS = pa.schema(
    [
        ("source", pa.string()),
        ("product_id", pa.string()),
        ("image", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
IMAGE_TEXTS = pa.schema(
    [
        ("image_id", pa.string()),
        ("source", pa.string()),
        ("text", pa.string()),
        ("language", pa.string()),
        ("count", pa.int64()),
        ("score", pa.float64()),
    ]
)
QUERIES = pa.schema(
    [("query", pa.string()), ("product_id", pa.string()), ("image_id", pa.string()), ("clicks", pa.int64())]
)
SIDE_TABLES: dict[str, pa.Schema] = {"image_texts": IMAGE_TEXTS, "queries": QUERIES}
"""Tables that a dataset may lack.

image_texts   texts of photos: source `title`, `query`, `caption` or `product`, language, clicks, and the score with the
              photo that a cut is made on
queries       a search log: the query, what it led to, and how often
"""
TABLES: dict[str, pa.Schema] = {
    "products": PRODUCTS,
    "images": IMAGES,
    "categories": CATEGORIES,
    "topics": TOPICS,
    "interactions": INTERACTIONS,
    "rejects": REJECTS,
}


class Manifest(BaseModel):
    """The content of `manifest.json`."""

    model_config = ConfigDict(extra="forbid")

    format_version: int
    name: str
    digest: str = Field(description="identifies the content: SHA-256 over the sorted `files`")
    counts: dict[str, int] = Field(description="rows of each table")
    photos_by_split: dict[str, int]
    rejects_by_reason: dict[str, int]
    files: dict[str, str] = Field(description="SHA-256 of every file, by its path in the folder")
    provenance: dict[str, Any] = Field(description="where the data came from, and the versions that made the dataset")


class Dataset:
    """Read access to a dataset folder, local or on any fsspec filesystem (`s3://`, `gs://`, ...).

    An instance pickles as its path. Photos can be read from several threads at once.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises ShoplensError if the folder has no complete dataset, or one of another format version."""
        self.path = os.path.abspath(path) if "://" not in str(path) else str(path).rstrip("/")
        self._fs, self._root = fsspec.core.url_to_fs(self.path)
        try:
            raw = json.loads(self._fs.cat_file(f"{self._root}/manifest.json"))
            if raw.get("format_version") != FORMAT_VERSION:
                raise ShoplensError(
                    f"{self.path} is of dataset format {raw.get('format_version')}; "
                    f"this shoplens reads format {FORMAT_VERSION}: import it again"
                )
            self.manifest = Manifest.model_validate(raw)
        except FileNotFoundError:
            raise ShoplensError(
                f"{self.path} is not a dataset (no manifest.json): make one with "
                "`shoplens dataset import` or `shoplens dataset synthesize`"
            ) from None
        except (json.JSONDecodeError, ValidationError, AttributeError) as error:
            raise ShoplensError(f"{self.path}/manifest.json is damaged ({error}): import the dataset again") from error
        self._local = self._fs.protocol in ("file", ("file", "local"))
        self._descriptors: dict[str, int] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Dataset], tuple[str]]:
        return Dataset, (self.path,)

    def __del__(self) -> None:
        for descriptor in getattr(self, "_descriptors", {}).values():
            os.close(descriptor)

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def digest(self) -> str:
        return self.manifest.digest

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A table, or the given columns of it. A column of `TABLES` that the file lacks is null."""
        with self._fs.open(f"{self._root}/{name}.parquet") as file:
            return read_parquet(file, columns, TABLES.get(name))

    @cached_property
    def products(self) -> pa.Table:
        return self.table("products")

    @cached_property
    def images(self) -> pa.Table:
        """One row a photo, grouped by split, in the order of the shards. The row number is the photo's *sample id*."""
        return self.table("images")

    @cached_property
    def product_row(self) -> np.ndarray:
        """int64 [photos]: the row in `products` of each photo's product."""
        row_of = {product: row for row, product in enumerate(self.products["product_id"].to_pylist())}
        return np.array([row_of[product] for product in self.images["product_id"].to_pylist()], dtype=np.int64)

    def texts(self, fields: Sequence[str]) -> list[str]:
        """One text a product: its non-empty fields joined by spaces, or its title if all are empty.

        A field is `title`, `description`, `category` (the names of the path) or a key of `texts`.
        """
        products = self.products
        titles = products["title"].to_pylist()
        columns: list[list[str]] = []
        for field in fields:
            if field in ("title", "description"):
                columns.append(products[field].to_pylist())
            elif field == "category":
                columns.append([" ".join(path or []) for path in products["category_path"].to_pylist()])
            else:
                columns.append([dict(texts or []).get(field, "") for texts in products["texts"].to_pylist()])
        joined = (" ".join(filter(None, parts)) for parts in zip(*columns, strict=True))
        return [text or title for text, title in zip(joined, titles, strict=True)]

    @cached_property
    def categories(self) -> CategoryTree:
        table = self.table("categories", ["category_id", "path", "order"]).sort_by("order")
        return CategoryTree.of(zip(table["path"].to_pylist(), table["category_id"].to_pylist(), strict=True))

    @cached_property
    def _places(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        images = self.images
        for shard in images["shard"].unique().to_pylist():
            if not _SHARD.fullmatch(shard or ""):
                raise ShoplensError(f"{self.path}/images.parquet names the shard {shard!r}: import the dataset again")
        return images["shard"].to_pylist(), images["offset"].to_numpy(), images["length"].to_numpy()

    def read_image(self, sample: int) -> bytes:
        """The encoded bytes of the photo with sample id `sample`, by one ranged read."""
        shards, offsets, lengths = self._places
        shard, offset, length = shards[sample], int(offsets[sample]), int(lengths[sample])
        if not self._local:
            return bytes(self._fs.cat_file(f"{self._root}/shards/{shard}", start=offset, end=offset + length))
        descriptor = self._descriptors.get(shard)
        if descriptor is None:
            with self._lock:
                descriptor = self._descriptors.get(shard)
                if descriptor is None:
                    descriptor = os.open(f"{self._root}/shards/{shard}", os.O_RDONLY)
                    self._descriptors[shard] = descriptor
        return os.pread(descriptor, length, offset)
