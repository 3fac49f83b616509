"""The index: the vectors of a shop's photos beside what is shown of its products, searched exactly.

Products lie in depth-first order of the category tree, those without a category last, and the photos of a
product next to each other: a category with all below it is one slice of the vectors, and the best photo
of each product a maximum over neighbouring scores.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shoplens.errors import ShoplensError
from shoplens.schema import CategoryTree

FORMAT_VERSION = 1
MAX_K = 1000
FILES = ("vectors.npy", "photos.parquet", "products.parquet", "categories.parquet")

PHOTOS = pa.schema([("image_id", pa.string()), ("product_id", pa.string()), ("sample", pa.int64())])
CARD = (
    "product_id",
    "catalog_id",
    "title",
    "category_id",
    "category_path",
    "price",
    "currency",
    "seller",
    "image_id",
)
"""What a list of products shows of each; `image_id` is its first photo."""
PRODUCTS = pa.schema(
    [
        ("product_id", pa.string()),
        ("catalog_id", pa.string()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("category_id", pa.string()),
        ("category_path", pa.list_(pa.string())),
        ("attributes", pa.map_(pa.string(), pa.list_(pa.string()))),
        ("price", pa.float64()),
        ("currency", pa.string()),
        ("seller", pa.string()),
        ("review_count", pa.int64()),
        ("image_id", pa.string()),
        ("first_photo", pa.int64()),
        ("n_photos", pa.int64()),
    ]
)
_FROM_DATASET = [name for name in PRODUCTS.names if name not in ("image_id", "first_photo", "n_photos")]
CATEGORIES = pa.schema(
    [
        ("category_id", pa.string()),
        ("parent_id", pa.string()),
        ("level", pa.int32()),
        ("name", pa.string()),
        ("path", pa.list_(pa.string())),
        ("first_product", pa.int64()),
        ("n_products", pa.int64()),
    ]
)

_SCORES_AT_ONCE = 1 << 23


class UnknownCategory(ShoplensError):
    """The category asked for is not in the index."""


class UnknownProduct(ShoplensError):
    """The product asked for is not in the index."""


class UnknownImage(ShoplensError):
    """The photo asked for is not in the index."""


@dataclass(frozen=True)
class Hit:
    """A product found: `score` is the inner product of its best photo, `row` that photo's row in the index."""

    product_id: str
    row: int
    score: float


class Index:
    """Exact search over one folder; the vectors stay on disk and are mapped, so replicas share their memory.

    Attributes: `vectors` float32 [n, d], `photos` (`PHOTOS`, one row a vector), `products` (`PRODUCTS`),
    `about` (model name and version, dataset name and digest, whatever the builder said).
    Reading and searching are safe from many threads.
    """

    def __init__(
        self, vectors: np.ndarray, photos: pa.Table, products: pa.Table, categories: pa.Table, about: Mapping[str, Any]
    ) -> None:
        self.vectors, self.photos, self.products, self.about = vectors, photos, products, dict(about)
        self._categories = categories
        self._slices = {
            row["category_id"]: (row["first_product"], row["first_product"] + row["n_products"])
            for row in categories.select(["category_id", "first_product", "n_products"]).to_pylist()
        }
        self._row_of = {product_id: row for row, product_id in enumerate(products["product_id"].to_pylist())}
        self._price = products["price"].to_numpy()
        catalogs = products["catalog_id"].combine_chunks().dictionary_encode()
        self._catalog_code = {catalog_id: code for code, catalog_id in enumerate(catalogs.dictionary.to_pylist())}
        self._catalog = catalogs.indices.fill_null(-1).to_numpy()
        self._start = np.append(products["first_photo"].to_numpy(), len(vectors))
        self._longest = float(max((np.linalg.norm(block, axis=1).max() for block in _rows(vectors)), default=0.0))

    @classmethod
    def build(
        cls,
        folder: str | os.PathLike[str],
        vectors: np.ndarray,
        photos: pa.Table,
        products: pa.Table,
        tree: CategoryTree,
        about: Mapping[str, Any],
    ) -> Index:
        """Writes the index of `vectors` float32 [n, d] aside, moves it to `folder` (replacing what was there), loads it.

        `photos` has a row for each vector: `image_id`, `product_id`, `sample` (row of `Dataset.images`, from which
        the photo is read). `products` is the dataset's table; products without a photo here are left out.
        Raises ShoplensError on vectors that are not finite and on tables that do not fit together.
        """
        folder = Path(folder)
        vectors = np.asanyarray(vectors)
        if vectors.ndim != 2 or vectors.dtype != np.float32:
            raise ShoplensError(f"vectors must be float32 [n, d], not {vectors.dtype} {list(vectors.shape)}")
        if len(vectors) != photos.num_rows or not len(vectors):
            raise ShoplensError(f"{len(vectors)} vectors for {photos.num_rows} photos: give one for each, and at least one")
        if not all(np.isfinite(block).all() for block in _rows(vectors)):
            raise ShoplensError("some vectors are not finite: the model that made them has diverged")
        photos = photos.select(PHOTOS.names).cast(PHOTOS)
        order, listed = _arrange(photos, products.select(_FROM_DATASET), tree)
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
        try:
            os.chmod(aside, 0o755)
            written = np.lib.format.open_memmap(aside / "vectors.npy", mode="w+", dtype=np.float32, shape=vectors.shape)
            for start in range(0, len(order), step := _rows_at_once(vectors.shape[1])):
                written[start : start + step] = vectors[order[start : start + step]]
            written.flush()
            del written
            pq.write_table(photos.take(order), aside / "photos.parquet", compression="zstd")
            pq.write_table(listed, aside / "products.parquet", compression="zstd")
            pq.write_table(_category_table(tree, listed), aside / "categories.parquet", compression="zstd")
            summary = {
                "format_version": FORMAT_VERSION,
                "dimension": vectors.shape[1],
                "counts": {
                    "photos": len(vectors),
                    "products": listed.num_rows,
                    "products_without_photo": products.num_rows - listed.num_rows,
                },
                "about": dict(about),
                "sha256": {name: _sha256(aside / name) for name in FILES},
            }
            (aside / "index.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False))
            _move(aside, folder)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        return cls.load(folder, verify=False)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, verify: bool = True) -> Index:
        """Opens an index; `verify` reads every file once and compares its SHA-256.

        Raises ShoplensError if the folder holds no index, or one that is damaged or of another format.
        """
        folder = Path(folder)
        try:
            summary = json.loads((folder / "index.json").read_text())
            if summary["format_version"] != FORMAT_VERSION:
                raise ShoplensError(f"{folder} is of index format {summary['format_version']}: build the index again")
            if verify:
                for name in FILES:
                    if _sha256(folder / name) != summary["sha256"][name]:
                        raise ShoplensError(f"{folder}/{name} is damaged: build the index again")
            vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
            tables = [pq.read_table(folder / name).combine_chunks() for name in FILES[1:]]
        except FileNotFoundError as error:
            raise ShoplensError(
                f"{folder} holds no index ({Path(error.filename).name} is missing): build it with workloads.build_index"
            ) from error
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ShoplensError(f"{folder}/index.json is damaged ({error}): build the index again") from error
        if vectors.shape != (summary["counts"]["photos"], summary["dimension"]):
            raise ShoplensError(f"{folder}/vectors.npy does not belong to index.json: build the index again")
        return cls(vectors, *tables, summary["about"])

    @property
    def dimension(self) -> int:
        return int(self.vectors.shape[1])

    def __len__(self) -> int:
        """Number of products."""
        return int(self.products.num_rows)

    def __contains__(self, product_id: object) -> bool:
        return product_id in self._row_of

    def search(
        self,
        queries: np.ndarray,
        k: int,
        *,
        category: str | None = None,
        price_min: float | None = None,
        price_max: float | None = None,
        exclude_products: Collection[str] = (),
        exclude_catalogs: Collection[str] = (),
    ) -> list[list[Hit]]:
        """The k products whose best photo has the greatest inner product with each query [m, d], best first.

        `category` takes the category and all below it; a price bound (inclusive) leaves out products without a
        price; excluding an id that is not here excludes nothing. Equal scores stand in row order. Scores are
        of float64 and do not depend on what else is asked. Fewer than k are returned where fewer exist.
        Raises ShoplensError on a k outside 1..1000, queries of another dimension or not finite, an unknown
        category (UnknownCategory), a price range that is empty.
        """
        if not 1 <= k <= MAX_K:
            raise ShoplensError(f"k is {k}: ask for 1 to {MAX_K} products")
        queries = np.atleast_2d(np.asarray(queries, dtype=np.float32))
        if queries.ndim != 2 or queries.shape[1] != self.dimension:
            raise ShoplensError(f"queries have shape {list(queries.shape)}; the index holds vectors of {self.dimension} numbers")
        if not np.isfinite(queries).all():
            raise ShoplensError("a query vector is not finite")
        low, high = self._slice(category)
        allowed = low + np.flatnonzero(self._allowed(low, high, price_min, price_max, exclude_products, exclude_catalogs))
        if not len(allowed):
            return [[] for _ in queries]
        ids = self.products["product_id"]
        step = max(1, _SCORES_AT_ONCE // (high - low))
        return [
            [Hit(ids[int(product)].as_py(), int(row), float(score)) for product, row, score in found]
            for start in range(0, len(queries), step)
            for found in self._best(queries[start : start + step], k, low, high, allowed)
        ]

    def _best(
        self, queries: np.ndarray, k: int, low: int, high: int, allowed: np.ndarray
    ) -> Iterator[list[tuple[int, int, float]]]:
        """(product, photo row, score) of the k best of `allowed` [a], which lie in products low..high, for each query."""
        scores = np.concatenate(
            [
                np.maximum.reduceat(
                    queries @ self.vectors[self._start[a] : self._start[b]].T, self._start[a:b] - self._start[a], axis=1
                )
                for a, b in self._product_blocks(low, high, len(queries))
            ],
            axis=1,
        )[:, allowed - low]
        k = min(k, len(allowed))
        kth = -np.partition(-scores, k - 1, axis=1)[:, k - 1]
        for query, row, least in zip(queries, scores, kth, strict=True):
            rounding = self.dimension * np.finfo(np.float32).eps * float(np.linalg.norm(query)) * self._longest
            candidates = allowed[row >= least - 2 * rounding]
            exact = sorted(self._exact(query, candidates), key=lambda found: (-found[2], found[1]))
            yield exact[:k]

    def _exact(self, query: np.ndarray, products: np.ndarray) -> Iterator[tuple[int, int, float]]:
        """Each product's best photo by float64 sums, which are the same whatever is computed beside them."""
        wide = query.astype(np.float64)
        for product in products.tolist():
            start, end = self._start[product], self._start[product + 1]
            scores = (self.vectors[start:end] * wide).sum(axis=1)
            best = int(np.argmax(scores))
            yield product, int(start) + best, float(scores[best])

    def _product_blocks(self, low: int, high: int, n_queries: int) -> Iterator[tuple[int, int]]:
        """Consecutive product ranges (a, b) of low..high whose photos make at most `_SCORES_AT_ONCE` scores."""
        while low < high:
            room = self._start[low] + max(1, _SCORES_AT_ONCE // n_queries)
            end = min(high, max(low + 1, int(np.searchsorted(self._start, room, side="right")) - 1))
            yield low, end
            low = end

    def _slice(self, category: str | None) -> tuple[int, int]:
        if category is None:
            return 0, len(self)
        try:
            return self._slices[category]
        except KeyError:
            raise UnknownCategory(f"category {category!r} is not in the index: see the list of categories") from None

    def _allowed(
        self,
        low: int,
        high: int,
        price_min: float | None,
        price_max: float | None,
        exclude_products: Collection[str],
        exclude_catalogs: Collection[str],
    ) -> np.ndarray:
        if price_min is not None and price_max is not None and price_min > price_max:
            raise ShoplensError(f"the price range {price_min:g} to {price_max:g} is empty: swap its ends")
        allowed = np.ones(high - low, dtype=bool)
        price = self._price[low:high]
        if price_min is not None:
            allowed &= price >= price_min
        if price_max is not None:
            allowed &= price <= price_max
        for product_id in exclude_products:
            row = self._row_of.get(product_id, -1)
            if low <= row < high:
                allowed[row - low] = False
        codes = [self._catalog_code[catalog_id] for catalog_id in exclude_catalogs if catalog_id in self._catalog_code]
        if codes:
            allowed &= ~np.isin(self._catalog[low:high], codes)
        return allowed

    def row(self, product_id: str) -> int:
        """Row of the product in `products`. Raises UnknownProduct."""
        try:
            return self._row_of[product_id]
        except KeyError:
            raise UnknownProduct(f"product {product_id!r} is not in the index") from None

    def vector_of(self, product_id: str) -> np.ndarray:
        """The product as a query, float32 [d]: the mean of its photos' vectors, at unit length. Raises UnknownProduct."""
        row = self.row(product_id)
        mean = self.vectors[self._start[row] : self._start[row + 1]].mean(axis=0, dtype=np.float64)
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), dtype=np.float32)

    def cards(self, product_ids: Iterable[str]) -> list[dict[str, Any]]:
        """`CARD` of each product, as asked. Raises UnknownProduct."""
        rows = pa.array([self.row(product_id) for product_id in product_ids], pa.int64())
        return list(self.products.select(CARD).take(rows).to_pylist())

    def page(self, category: str | None = None, offset: int = 0, limit: int = 60) -> tuple[int, list[dict[str, Any]]]:
        """How many products the category holds with all below it, and the `CARD`s of `limit` of them from `offset`."""
        low, high = self._slice(category)
        if offset < 0 or limit < 0:
            raise ShoplensError("offset and limit must not be negative")
        rows = self.products.select(CARD).slice(low + min(offset, high - low), max(0, min(limit, high - low - offset)))
        return high - low, list(rows.to_pylist())

    def product(self, product_id: str) -> dict[str, Any]:
        """All that the index knows of a product: its card, description, attributes, review count, `image_ids`."""
        row = self.row(product_id)
        found: dict[str, Any] = self.products.slice(row, 1).to_pylist(maps_as_pydicts="strict")[0]
        first, n_photos = found.pop("first_photo"), found.pop("n_photos")
        return {**found, "image_ids": self.photos["image_id"].slice(first, n_photos).to_pylist()}

    def categories(self) -> list[dict[str, Any]]:
        """The tree in depth-first order; `n_products` counts the products of a category and of all below it."""
        return list(self._categories.drop_columns(["first_product"]).to_pylist())

    def sample_of(self, image_id: str) -> int:
        """Row of the photo in the images of the dataset. Raises UnknownImage."""
        row = self._photo_row.get(image_id)
        if row is None:
            raise UnknownImage(f"photo {image_id!r} is not in the index")
        return int(self.photos["sample"][row].as_py())

    @cached_property
    def _photo_row(self) -> dict[str, int]:
        return {image_id: row for row, image_id in enumerate(self.photos["image_id"].to_pylist())}


def _arrange(photos: pa.Table, products: pa.Table, tree: CategoryTree) -> tuple[np.ndarray, pa.Table]:
    """Order of the photos [n], and the products that have any, both in depth-first order of the tree."""
    ids = products["product_id"].to_pylist()
    row_of = {product_id: row for row, product_id in enumerate(ids)}
    if len(row_of) != len(ids):
        raise ShoplensError("a product id stands twice in the products table")
    image_ids = photos["image_id"]
    if pc.count_distinct(image_ids).as_py() != len(image_ids):
        raise ShoplensError("an image id stands twice in the photos table")
    of_photo = photos["product_id"].to_pylist()
    unknown = [product_id for product_id in of_photo if product_id not in row_of]
    if unknown:
        raise ShoplensError(f"{len(unknown)} photos are of products that are not in the products table, such as {unknown[0]!r}")
    category = products["category_id"].to_pylist()
    strange = next((c for c in category if c is not None and c not in tree), None)
    if strange is not None:
        raise ShoplensError(f"category {strange!r} of a product is not in the category tree")
    place = np.array([len(tree) if c is None else tree[c].order for c in category], dtype=np.int64)
    product = np.array([row_of[product_id] for product_id in of_photo], dtype=np.int64)
    order = np.lexsort((product, place[product]))
    pictured, first, count = _runs(product[order])
    listed = products.take(pictured)
    for name, column in (
        ("image_id", image_ids.take(order[first])),
        ("first_photo", pa.array(first, pa.int64())),
        ("n_photos", pa.array(count, pa.int64())),
    ):
        listed = listed.append_column(name, column)
    return order, listed.cast(PRODUCTS)


def _runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value, first place and length of every run of equal neighbours."""
    first = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
    return values[first], first, np.diff(np.append(first, len(values)))


def _category_table(tree: CategoryTree, listed: pa.Table) -> pa.Table:
    orders = [len(tree) if c is None else tree[c].order for c in listed["category_id"].to_pylist()]
    rows = []
    for node in tree:
        low, high = np.searchsorted(orders, [node.order, node.last + 1], side="left").tolist()
        rows.append(
            {
                "category_id": node.id,
                "parent_id": node.parent_id,
                "level": node.level,
                "name": node.name,
                "path": list(node.path),
                "first_product": low,
                "n_products": high - low,
            }
        )
    return pa.Table.from_pylist(rows, schema=CATEGORIES)


def _rows_at_once(dimension: int) -> int:
    return max(1, _SCORES_AT_ONCE // max(1, dimension))


def _rows(vectors: np.ndarray) -> Iterator[np.ndarray]:
    step = _rows_at_once(vectors.shape[1])
    for start in range(0, len(vectors), step):
        yield vectors[start : start + step]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _move(aside: Path, folder: Path) -> None:
    """Puts `aside` in the place of `folder`; who has the old files open keeps them."""
    if not folder.exists():
        os.rename(aside, folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".old", dir=folder.parent))
    os.rename(folder, old / "index")
    os.rename(aside, folder)
    shutil.rmtree(old)
