"""The index: the vectors of a shop's photos beside what a search filters by, searched exactly or nearly so.

Products lie in depth-first order of the category tree, those without a category last, and the photos of a
product next to each other: a category with all below it is one slice of the vectors, and the best photo
of each product a maximum over neighbouring scores. What hourly changes add (`deltas`) lies behind, in the
same order: a category is then two slices.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shoplens.datasets.format import Dataset
from shoplens.errors import ShoplensError
from shoplens.schema import Category, CategoryTree
from shoplens.search import scan
from shoplens.search.attributes import attribute_pairs
from shoplens.search.inverted_lists import Approximate, Lists
from shoplens.search.products import Products, run_starts
from shoplens.search.scan import Found, Range
from shoplens.search.storage import STORAGES, Storage, Stored, Vectors, blocks, check_range, encode, longest

FORMAT_VERSION = 2
FILES = ("vectors.npy", "items.parquet", "categories.parquet")
SCALES = "scales.npy"
"""Beside them where the vectors are int8."""

ITEMS = pa.schema(
    [
        ("image_id", pa.string()),
        ("product_id", pa.string()),
        ("catalog_id", pa.string()),
        ("category_id", pa.string()),
        ("price", pa.float64()),
        ("stock", pa.int64()),
        ("component", pa.int64()),
        ("attributes", pa.map_(pa.string(), pa.list_(pa.string()))),
        ("sample", pa.int64()),
    ]
)
"""One row a photo. Null is unknown: `stock` in pieces, `component` a number that products share if they share
a photo. `sample` is the photo's row in `Dataset.images`."""
CATEGORIES = pa.schema(
    [
        ("category_id", pa.string()),
        ("path", pa.list_(pa.string())),
        ("first_product", pa.int64()),
        ("n_products", pa.int64()),
    ]
)
"""The tree, and each category's slice of the products, all below it included."""
AKIN = pa.schema([("category_id", pa.string()), ("akin", pa.list_(pa.string()))])
"""`AKIN_FILE`, which an index may lack: the categories that a search from a category widens to, nearest first."""
AKIN_FILE = "akin.parquet"
LISTS = "lists.faiss"
"""Beside them where large ranges are searched approximately."""

_GREATEST_SCORE = 1e38


class UnknownCategory(ShoplensError):
    """The category asked for is not in the index."""


class UnknownProduct(ShoplensError):
    """The product asked for is not in the index."""


def items(
    dataset: Dataset, samples: np.ndarray, *, stock: pa.Array | None = None, component: pa.Array | None = None
) -> pa.Table:
    """`ITEMS` of the photos `samples` [n] (rows of `Dataset.images`), in that order.

    `stock` and `component` int64 [products] are of the rows of `Dataset.products`; if left out, the stock is the
    dataset's and the component unknown.
    """
    products = dataset.products.select(["product_id", "catalog_id", "category_id", "price", "attributes"])
    products = products.append_column("stock", dataset.products["stock"] if stock is None else stock)
    unknown = pa.nulls(len(products), pa.int64())
    products = products.append_column("component", unknown if component is None else component)
    table = products.take(pa.array(dataset.product_row[samples]))
    table = table.append_column("image_id", dataset.images["image_id"].take(pa.array(samples)))
    return table.append_column("sample", pa.array(samples, pa.int64())).select(ITEMS.names).cast(ITEMS)


class Index:
    """Search over one folder; the vectors stay on disk and are mapped, so replicas share their memory.

    Attributes: `vectors` [n, d], `items` (`ITEMS`, one row a vector), `products` (their columns), `tree`, `about`
    (model name and version, dataset name and digest, whatever the builder said), `akin` (by category, those that
    were learned to be like it, nearest first), `lists` (by which large ranges are searched; None: exactly), `snapshot`
    (an id of the content: who keeps it beside an answer can say what was searched). Searching is safe from many threads.
    """

    def __init__(
        self,
        vectors: Vectors,
        items: pa.Table,
        products: Products,
        slices: Mapping[str | None, Sequence[tuple[int, int]]],
        tree: CategoryTree,
        about: Mapping[str, Any],
        *,
        storage: Storage,
        longest: float,
        snapshot: str,
        akin: Mapping[str, Sequence[str]] = MappingProxyType({}),
        lists: Lists | None = None,
        order: np.ndarray | None = None,
    ) -> None:
        """Use `build`, `load` or `deltas.load`.

        `slices`: each category's ranges of products, in ascending order; under None those of all. `order` int64
        [products]: equal scores stand in this order, of the products where it is None.
        """
        self.vectors, self.items, self.products, self.tree, self.about = vectors, items, products, tree, dict(about)
        self.storage, self.longest, self.snapshot = storage, longest, snapshot
        self.akin, self.lists, self.order, self._slices = akin, lists, order, slices

    @classmethod
    def build(
        cls,
        folder: str | os.PathLike[str],
        vectors: np.ndarray,
        items: pa.Table,
        tree: CategoryTree,
        about: Mapping[str, Any],
        *,
        storage: Storage = "float32",
        akin: Mapping[str, Sequence[str]] = MappingProxyType({}),
        approximate: Approximate | None = None,
    ) -> Index:
        """Writes the index of `vectors` float32 [n, d] aside, moves it to `folder` (replacing what was there), loads it.

        `items` (`ITEMS`) has a row for each vector. `storage`: what a vector is kept as, 4d, 2d or d + 4 bytes of
        it; what is found is exact for the vectors as they are kept. `akin`: as the attribute, see
        `category_similarity.learned`. `approximate`: search large ranges by inverted lists. Raises ShoplensError on
        vectors that are not finite, on items that contradict each other and on categories that are not in the tree.
        """
        if storage not in STORAGES:
            raise ShoplensError(f"vectors cannot be stored as {storage!r}: ask for {', '.join(STORAGES)}")
        vectors = np.asanyarray(vectors)
        if vectors.ndim != 2 or vectors.dtype != np.float32:
            raise ShoplensError(f"vectors must be float32 [n, d], not {vectors.dtype} {list(vectors.shape)}")
        if len(vectors) != items.num_rows or not len(vectors):
            raise ShoplensError(
                f"{len(vectors)} vectors for {items.num_rows} photos: give one for each, and at least one"
            )
        if not all(np.isfinite(vectors[rows]).all() for rows in blocks(*vectors.shape)):
            raise ShoplensError("some vectors are not finite: the model that made them has diverged")
        check_range(vectors, storage)
        items = items.select(ITEMS.names).cast(ITEMS).combine_chunks()
        order = depth_first(items, tree)
        items = items.take(pa.array(order))

        def stored(rows: slice) -> Stored:
            return encode(vectors[order[rows]], storage)

        write(folder, stored, vectors.shape[1], items, tree, about, storage, akin, approximate)
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
            files = _files(summary["storage"], AKIN_FILE in summary["sha256"], "approximate" in summary)
            if verify:
                for name in files:
                    if sha256_of(folder / name) != summary["sha256"][name]:
                        raise ShoplensError(f"{folder}/{name} is damaged: build the index again")
            vectors = _read_vectors(folder, summary["storage"])
            items, categories = (pq.read_table(folder / name).combine_chunks() for name in FILES[1:])
            nodes, counts = categories.to_pylist(), summary["counts"]
            akin = (pq.read_table(folder / AKIN_FILE) if AKIN_FILE in files else AKIN.empty_table()).to_pydict()
            codes = vectors.parts[0].codes
            if codes.shape != (counts["photos"], summary["dimension"]) or codes.dtype != summary["storage"]:
                raise ShoplensError(f"{folder}/vectors.npy does not belong to index.json: build the index again")
            return cls(
                vectors,
                items,
                Products(items, np.append(run_starts(items["product_id"]), items.num_rows)),
                {None: ((0, counts["products"]),)}
                | {row["category_id"]: _slice(row["first_product"], row["n_products"]) for row in nodes},
                CategoryTree.of((row["path"], row["category_id"]) for row in nodes),
                summary["about"],
                storage=summary["storage"],
                longest=summary["longest"],
                snapshot=sha256_of(folder / "index.json")[:16],
                akin=dict(zip(akin["category_id"], akin["akin"], strict=True)),
                lists=Lists(folder / LISTS, summary["approximate"]) if LISTS in files else None,
            )
        except FileNotFoundError as error:
            raise ShoplensError(
                f"{folder} holds no index ({Path(error.filename).name} is missing): build it with workloads.build_index"
            ) from error
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ShoplensError(f"{folder}/index.json is damaged ({error}): build the index again") from error

    @property
    def dim(self) -> int:
        return self.vectors.shape[1]

    def __len__(self) -> int:
        """Number of products that can be found."""
        gone = self.products.gone
        return len(self.products) - (0 if gone is None else int(gone.sum()))

    def __contains__(self, product_id: object) -> bool:
        return self.products.place(product_id) is not None

    def without(self, hidden: np.ndarray) -> Index:
        """This index, in which the products `hidden` bool [products] cannot be found either; the vectors are shared."""
        other = copy(self)
        other.products = self.products.without(hidden)
        return other

    def slices(self, category: str | None) -> Sequence[tuple[int, int]]:
        """The ranges (first, end) of the products in a category and all below it; of None, of all.

        Raises UnknownCategory.
        """
        try:
            return self._slices[category]
        except KeyError:
            raise UnknownCategory(f"category {category!r} is not in the index: ask for one of its categories") from None

    def ring_order(self, category: str | None) -> list[str | None]:
        """Where a search from this category goes: itself, those that are `akin` to it, then its ancestors, nearest first.

        What the tree alone would reach is always reached. Of None the whole shop. Raises UnknownCategory.
        """
        self.slices(category)
        order = [category]
        if category is not None:
            order += self.akin.get(category, ())
        while category is not None and (category := self.tree[category].parent_id) is not None:
            order.append(category)
        return order

    def nearest(self, queries: np.ndarray, k: int, ranges: Sequence[Range]) -> Found:
        """The best k of these disjoint `ranges` of products for each query [m, d], as arrays: see `scan.best`.

        Of ranges of many products nearly the best, if the index was built to be searched so. Raises ShoplensError on
        a k below 1 and on queries of another dimension or not finite, or so long that scores would overflow.
        """
        if k < 1:
            raise ShoplensError(f"k is {k}: ask for at least 1 product")
        queries = np.atleast_2d(np.asarray(queries, dtype=np.float32))
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise ShoplensError(
                f"queries have shape {list(queries.shape)}; the index holds vectors of {self.dim} numbers"
            )
        greatest = float(np.abs(queries).max(initial=0))
        if not np.isfinite(greatest):
            raise ShoplensError("a query vector is not finite")
        if greatest * self.longest * self.dim > _GREATEST_SCORE:
            raise ShoplensError("scores of vectors as long as these overflow: bring queries and vectors to unit length")
        asked = (self.vectors, self.products.start, self.longest, queries, k, ranges, self.order)
        nearly = None if self.lists is None else self.lists.nearest(*asked)
        return scan.best(*asked) if nearly is None else nearly

    def vector_of(self, product_id: str) -> np.ndarray:
        """The product as a query, float32 [d]: the mean of its photos' vectors, at unit length. Raises UnknownProduct."""
        place = self.products.place(product_id)
        if place is None:
            raise UnknownProduct(f"product {product_id!r} is not in the index")
        return self.vector_at(place)

    def vector_at(self, place: int) -> np.ndarray:
        """As `vector_of`, of the product at this place."""
        photos = self.vectors.block(int(self.products.start[place]), int(self.products.start[place + 1]))
        mean = photos.mean(axis=0, dtype=np.float64)
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), dtype=np.float32)


def write(
    folder: str | os.PathLike[str],
    stored: Callable[[slice], Stored],
    dimension: int,
    items: pa.Table,
    tree: CategoryTree,
    about: Mapping[str, Any],
    storage: Storage,
    akin: Mapping[str, Sequence[str]],
    approximate: Approximate | None,
) -> None:
    """Writes an index aside and moves it to `folder`; `items` are in depth-first order, `stored` of some rows of theirs."""
    folder = Path(folder)
    if strange := {*akin, *chain.from_iterable(akin.values())} - {node.id for node in tree}:
        raise ShoplensError(f"category {min(strange)!r} is said to be akin to others and not in the category tree")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        os.chmod(aside, 0o755)
        greatest = _write_vectors(aside, stored, (items.num_rows, dimension), storage)
        products = run_starts(items["product_id"])
        pq.write_table(items, aside / "items.parquet", compression="zstd")
        pq.write_table(_category_table(items, products, tree), aside / "categories.parquet", compression="zstd")
        if akin:
            pq.write_table(pa.table([list(akin), [*akin.values()]], schema=AKIN), aside / AKIN_FILE, compression="zstd")
        lists = None
        if approximate is not None:
            lists = Lists.build(aside / LISTS, _read_vectors(aside, storage), greatest, approximate)
        summary = {
            "format_version": FORMAT_VERSION,
            "dimension": dimension,
            "storage": storage,
            "longest": greatest,
            "counts": {"photos": items.num_rows, "products": len(products)},
            "about": dict(about),
            "sha256": {name: sha256_of(aside / name) for name in _files(storage, bool(akin), lists is not None)},
        } | ({} if lists is None else {"approximate": lists.told})
        (aside / "index.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False))
        _move(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def depth_first(items: pa.Table, tree: CategoryTree) -> np.ndarray:
    """Order of the items [n]: by category, then by first appearance of the product, then as they came."""
    if pc.count_distinct(items["image_id"]).as_py() != items.num_rows:
        raise ShoplensError("an image id stands twice among the items")
    told = ["catalog_id", "category_id", "price", "stock", "component"]
    per_product = items.select(["product_id", *told]).group_by("product_id")
    for column in told:
        counted = per_product.aggregate([(column, "count_distinct", pc.CountOptions(mode="all"))])
        torn = counted.filter(pc.greater(counted[f"{column}_count_distinct"], 1))["product_id"]
        if len(torn):
            raise ShoplensError(f"photos of product {torn[0].as_py()!r} disagree about its {column}")
    for column in ("stock", "component"):
        if (pc.min(items[column]).as_py() or 0) < 0:
            raise ShoplensError(f"a product's {column} is below 0: leave it empty where it is not known")
    category = items["category_id"].combine_chunks().dictionary_encode()
    names = category.dictionary.to_pylist()
    strange = [name for name in names if name not in tree]
    if strange:
        raise ShoplensError(f"category {strange[0]!r} of a product is not in the category tree")
    orders = np.array([*(tree[name].order for name in names), len(tree)], dtype=np.int64)
    place = orders[category.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)]
    product = items["product_id"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    _check_attributes(items, product)
    return np.lexsort((product, place))


def _check_attributes(items: pa.Table, product: np.ndarray) -> None:
    """`product` int [n]: the number of each photo's product."""
    row, code, *_ = attribute_pairs(items["attributes"].combine_chunks())
    photos = np.bincount(product)
    said, times = np.unique(np.stack([product[row], code]), axis=1, return_counts=True)
    torn = np.flatnonzero(times != photos[said[0]])
    if len(torn):
        torn_id = items["product_id"][int(np.flatnonzero(product == said[0, torn[0]])[0])].as_py()
        raise ShoplensError(f"photos of product {torn_id!r} disagree about its attributes")


def category_ranges(items: pa.Table, products: np.ndarray, tree: CategoryTree) -> np.ndarray:
    """int64 [categories, 2]: the first product of each subtree, in the tree's order, and the end.

    `items` are in depth-first order, `products` [p] the rows where each product's photos begin.
    """
    of_product = items["category_id"].take(pa.array(products)).combine_chunks().dictionary_encode()
    orders = np.array([*(tree[name].order for name in of_product.dictionary.to_pylist()), len(tree)], dtype=np.int64)
    order = orders[of_product.indices.fill_null(len(orders) - 1).to_numpy(zero_copy_only=False)]
    nodes = list(tree)
    ends = [np.searchsorted(order, [at(node) for node in nodes]) for at in (_first_of, _end_of)]
    return np.stack(ends, axis=1).astype(np.int64)


def _first_of(node: Category) -> int:
    return node.order


def _end_of(node: Category) -> int:
    return node.last + 1


def _category_table(items: pa.Table, products: np.ndarray, tree: CategoryTree) -> pa.Table:
    nodes, ranges = list(tree), category_ranges(items, products, tree)
    columns = [[node.id for node in nodes], [node.path for node in nodes], ranges[:, 0], ranges[:, 1] - ranges[:, 0]]
    return pa.table(columns, schema=CATEGORIES)


def _slice(first: int, length: int) -> tuple[tuple[int, int], ...]:
    return ((first, first + length),)


def _files(storage: str, akin: bool, lists: bool) -> tuple[str, ...]:
    return (*FILES, *[SCALES] * (storage == "int8"), *[AKIN_FILE] * akin, *[LISTS] * lists)


def _read_vectors(folder: Path, storage: str) -> Vectors:
    files = (FILES[0], *[SCALES] * (storage == "int8"))
    return Vectors(Stored(*(np.asarray(np.load(folder / n, mmap_mode="r", allow_pickle=False)) for n in files)))


def _write_vectors(folder: Path, stored: Callable[[slice], Stored], shape: tuple[int, int], storage: Storage) -> float:
    """Returns the greatest length of a vector as it is stored."""
    codes = np.lib.format.open_memmap(folder / "vectors.npy", mode="w+", dtype=storage, shape=shape)
    scale = np.empty(shape[0], dtype=np.float32)
    greatest = 0.0
    for rows in blocks(*shape):
        block = stored(rows)
        codes[rows] = block.codes
        if block.scale is not None:
            scale[rows] = block.scale
        greatest = max(greatest, longest(block))
    codes.flush()
    if storage == "int8":
        np.save(folder / SCALES, scale)
    return greatest


def sha256_of(path: Path) -> str:
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
