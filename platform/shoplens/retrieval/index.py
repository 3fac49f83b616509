"""The index: the vectors of a shop's photos beside what a search filters by, searched exactly.

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
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shoplens.datasets.format import Dataset
from shoplens.errors import ShoplensError
from shoplens.schema import CategoryTree

FORMAT_VERSION = 1
MAX_K = 1000
FILES = ("vectors.npy", "items.parquet", "categories.parquet")

ITEMS = pa.schema(
    [
        ("image_id", pa.string()),
        ("product_id", pa.string()),
        ("catalog_id", pa.string()),
        ("category_id", pa.string()),
        ("price", pa.float64()),
        ("sample", pa.int64()),
    ]
)
"""One row a photo; `sample` is its row in `Dataset.images`."""
CATEGORIES = pa.schema([("category_id", pa.string()), ("first_product", pa.int64()), ("n_products", pa.int64())])
"""Each category's slice of the products, all below it included."""

_SCORES_AT_ONCE = 1 << 23


class UnknownCategory(ShoplensError):
    """The category asked for is not in the index."""


class UnknownProduct(ShoplensError):
    """The product asked for is not in the index."""


@dataclass(frozen=True)
class Hit:
    """A product found: `score` is the inner product of its best photo, `row` that photo's row in the index."""

    product_id: str
    row: int
    score: float


def items(dataset: Dataset, samples: np.ndarray) -> pa.Table:
    """`ITEMS` of the photos `samples` [n] (rows of `Dataset.images`), in that order."""
    rows = pa.array(dataset.product_row[samples])
    products = dataset.products.select(["product_id", "catalog_id", "category_id", "price"]).take(rows)
    columns = [dataset.images["image_id"].take(pa.array(samples)), *products.columns, pa.array(samples, pa.int64())]
    return pa.table(columns, names=["image_id", *products.column_names, "sample"]).select(ITEMS.names).cast(ITEMS)


class Index:
    """Exact search over one folder; the vectors stay on disk and are mapped, so replicas share their memory.

    Attributes: `vectors` float32 [n, d], `items` (`ITEMS`, one row a vector), `about` (model name and version,
    dataset name and digest, whatever the builder said). Searching is safe from many threads.
    """

    def __init__(self, vectors: np.ndarray, items: pa.Table, categories: pa.Table, about: Mapping[str, Any]) -> None:
        self.vectors, self.items, self.about = vectors, items, dict(about)
        first = _run_starts(items["product_id"])
        self._start = np.append(first, items.num_rows)
        self._products: list[str] = items["product_id"].take(pa.array(first)).to_pylist()
        self._place = {product_id: place for place, product_id in enumerate(self._products)}
        self._price = items["price"].to_numpy()[first]
        catalogs = items["catalog_id"].take(pa.array(first)).combine_chunks().dictionary_encode()
        self._catalog_code = {catalog_id: code for code, catalog_id in enumerate(catalogs.dictionary.to_pylist())}
        self._catalog = catalogs.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        self._slices = {
            row["category_id"]: (row["first_product"], row["first_product"] + row["n_products"])
            for row in categories.to_pylist()
        }
        self._longest = max((float(np.linalg.norm(block, axis=1).max()) for block in _blocks(vectors)), default=0.0)

    @classmethod
    def build(
        cls,
        folder: str | os.PathLike[str],
        vectors: np.ndarray,
        items: pa.Table,
        tree: CategoryTree,
        about: Mapping[str, Any],
    ) -> Index:
        """Writes the index of `vectors` float32 [n, d] aside, moves it to `folder` (replacing what was there), loads it.

        `items` (`ITEMS`) has a row for each vector. Raises ShoplensError on vectors that are not finite, on
        items that contradict each other and on categories that are not in the tree.
        """
        folder = Path(folder)
        vectors = np.asanyarray(vectors)
        if vectors.ndim != 2 or vectors.dtype != np.float32:
            raise ShoplensError(f"vectors must be float32 [n, d], not {vectors.dtype} {list(vectors.shape)}")
        if len(vectors) != items.num_rows or not len(vectors):
            raise ShoplensError(
                f"{len(vectors)} vectors for {items.num_rows} photos: give one for each, and at least one"
            )
        if not all(np.isfinite(block).all() for block in _blocks(vectors)):
            raise ShoplensError("some vectors are not finite: the model that made them has diverged")
        items = items.select(ITEMS.names).cast(ITEMS).combine_chunks()
        order = _depth_first(items, tree)
        items = items.take(pa.array(order))
        categories = _category_slices(items, tree)
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
        try:
            os.chmod(aside, 0o755)
            written = np.lib.format.open_memmap(aside / "vectors.npy", mode="w+", dtype=np.float32, shape=vectors.shape)
            for start in range(0, len(order), step := _rows_at_once(vectors.shape[1])):
                written[start : start + step] = vectors[order[start : start + step]]
            written.flush()
            del written
            pq.write_table(items, aside / "items.parquet", compression="zstd")
            pq.write_table(categories, aside / "categories.parquet", compression="zstd")
            summary = {
                "format_version": FORMAT_VERSION,
                "dimension": vectors.shape[1],
                "counts": {"photos": len(vectors), "products": len(_run_starts(items["product_id"]))},
                "about": dict(about),
                "sha256": {name: _sha256(aside / name) for name in FILES},
            }
            (aside / "index.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False))
            _move(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
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
            items, categories = (pq.read_table(folder / name).combine_chunks() for name in FILES[1:])
        except FileNotFoundError as error:
            raise ShoplensError(
                f"{folder} holds no index ({Path(error.filename).name} is missing): build it with workloads.build_index"
            ) from error
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ShoplensError(f"{folder}/index.json is damaged ({error}): build the index again") from error
        if vectors.shape != (summary["counts"]["photos"], summary["dimension"]):
            raise ShoplensError(f"{folder}/vectors.npy does not belong to index.json: build the index again")
        return cls(vectors, items, categories, summary["about"])

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def __len__(self) -> int:
        """Number of products."""
        return len(self._products)

    def __contains__(self, product_id: object) -> bool:
        return product_id in self._place

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
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise ShoplensError(
                f"queries have shape {list(queries.shape)}; the index holds vectors of {self.dim} numbers"
            )
        if not np.isfinite(queries).all():
            raise ShoplensError("a query vector is not finite")
        low, high = self._slice(category)
        allowed = low + np.flatnonzero(
            self._allowed(low, high, price_min, price_max, exclude_products, exclude_catalogs)
        )
        if not len(allowed):
            return [[] for _ in queries]
        step = max(1, _SCORES_AT_ONCE // (high - low))
        return [
            [Hit(self._products[product], row, score) for product, row, score in found]
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
            rounding = self.dim * np.finfo(np.float32).eps * float(np.linalg.norm(query)) * self._longest
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
            raise UnknownCategory(f"category {category!r} is not in the index: ask for one of its categories") from None

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
            place = self._place.get(product_id, -1)
            if low <= place < high:
                allowed[place - low] = False
        codes = [self._catalog_code[catalog_id] for catalog_id in exclude_catalogs if catalog_id in self._catalog_code]
        if codes:
            allowed &= ~np.isin(self._catalog[low:high], codes)
        return allowed

    def vector_of(self, product_id: str) -> np.ndarray:
        """The product as a query, float32 [d]: the mean of its photos' vectors, at unit length. Raises UnknownProduct."""
        place = self._place.get(product_id)
        if place is None:
            raise UnknownProduct(f"product {product_id!r} is not in the index")
        mean = self.vectors[self._start[place] : self._start[place + 1]].mean(axis=0, dtype=np.float64)
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), dtype=np.float32)


def _depth_first(items: pa.Table, tree: CategoryTree) -> np.ndarray:
    """Order of the items [n]: by category, then by first appearance of the product, then as they came."""
    if pc.count_distinct(items["image_id"]).as_py() != items.num_rows:
        raise ShoplensError("an image id stands twice among the items")
    per_product = items.select(["product_id", "catalog_id", "category_id", "price"]).group_by("product_id")
    for column in ("catalog_id", "category_id", "price"):
        counted = per_product.aggregate([(column, "count_distinct", pc.CountOptions(mode="all"))])
        torn = counted.filter(pc.greater(counted[f"{column}_count_distinct"], 1))["product_id"]
        if len(torn):
            raise ShoplensError(f"photos of product {torn[0].as_py()!r} disagree about its {column}")
    category = items["category_id"].combine_chunks().dictionary_encode()
    names = category.dictionary.to_pylist()
    strange = [name for name in names if name not in tree]
    if strange:
        raise ShoplensError(f"category {strange[0]!r} of a product is not in the category tree")
    orders = np.array([*(tree[name].order for name in names), len(tree)], dtype=np.int64)
    place = orders[category.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)]
    product = items["product_id"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    return np.lexsort((product, place))


def _run_starts(ids: pa.ChunkedArray) -> np.ndarray:
    """Where each run of equal neighbours begins."""
    codes = ids.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    return np.flatnonzero(np.append(True, codes[1:] != codes[:-1]))


def _category_slices(items: pa.Table, tree: CategoryTree) -> pa.Table:
    of_product = items["category_id"].take(pa.array(_run_starts(items["product_id"]))).to_pylist()
    orders = [len(tree) if category is None else tree[category].order for category in of_product]
    nodes = list(tree)
    low = np.searchsorted(orders, [node.order for node in nodes])
    high = np.searchsorted(orders, [node.last + 1 for node in nodes])
    return pa.table([[node.id for node in nodes], low, high - low], schema=CATEGORIES)


def _rows_at_once(dimension: int) -> int:
    return max(1, _SCORES_AT_ONCE // max(1, dimension))


def _blocks(vectors: np.ndarray) -> Iterator[np.ndarray]:
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
