"""The items table of an index: one row a photo, in depth-first order of the category tree."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shoplens.datasets.format import Dataset
from shoplens.errors import ShoplensError
from shoplens.schema import CategoryTree
from shoplens.search.attributes import attribute_pairs

ITEMS = pa.schema(
    [
        ("image_id", pa.string()),
        ("product_id", pa.string()),
        ("catalog_id", pa.string()),
        ("category_id", pa.string()),
        ("price", pa.float64()),
        ("currency", pa.string()),
        ("stock", pa.int64()),
        ("component", pa.int64()),
        ("attributes", pa.map_(pa.string(), pa.list_(pa.string()))),
        ("sample", pa.int64()),
    ]
)
"""One row a photo; null is unknown. `price` is in `currency`, an ISO 4217 code. `stock` is in pieces. `component` is the number of the product's photo group: products
of one group share a photo. `sample` is the photo's row in `Dataset.images`."""


def items(
    dataset: Dataset, samples: np.ndarray, *, stock: pa.Array | None = None, photo_group: pa.Array | None = None
) -> pa.Table:
    """`ITEMS` of the photos `samples` [n] (rows of `Dataset.images`), in that order.

    `stock` and `photo_group` are int64 [products], one value for each row of `Dataset.products`. Default: the dataset's
    stock, and no photo group.
    """
    products = dataset.products.select(["product_id", "catalog_id", "category_id", "price", "currency", "attributes"])
    products = products.append_column("stock", dataset.products["stock"] if stock is None else stock)
    unknown = pa.nulls(len(products), pa.int64())
    products = products.append_column("component", unknown if photo_group is None else photo_group)
    table = products.take(pa.array(dataset.product_row[samples]))
    table = table.append_column("image_id", dataset.images["image_id"].take(pa.array(samples)))
    return conform(table.append_column("sample", pa.array(samples, pa.int64())))


def conform(table: pa.Table) -> pa.Table:
    """The columns of `ITEMS`, in their types and in one chunk. A table of an older index has no currency: all unknown.

    Currencies are upper-case, and an empty one is unknown.
    """
    if "currency" not in table.column_names:
        table = table.append_column("currency", pa.nulls(len(table), pa.string()))
    table = table.select(ITEMS.names).cast(ITEMS).combine_chunks()
    code = pc.utf8_upper(pc.utf8_trim_whitespace(table["currency"]))
    code = pc.if_else(pc.equal(code, ""), None, code)
    return table.set_column(ITEMS.get_field_index("currency"), ITEMS.field("currency"), code).combine_chunks()


def depth_first(items: pa.Table, tree: CategoryTree) -> np.ndarray:
    """int64 [n]: the items ordered by category (depth-first), then by first appearance of the product, then as given.

    Raises ShoplensError if an image id repeats, if photos of one product disagree about a column, if a price, a stock or
    a photo group is negative, if a price is not finite, or if a category is not in the tree.
    """
    if pc.count_distinct(items["image_id"]).as_py() != items.num_rows:
        raise ShoplensError("an image id stands twice among the items: give each photo an id of its own")
    columns = ["catalog_id", "category_id", "price", "currency", "stock", "component"]
    per_product = items.select(["product_id", *columns]).group_by("product_id")
    for column in columns:
        counted = per_product.aggregate([(column, "count_distinct", pc.CountOptions(mode="all"))])
        torn = counted.filter(pc.greater(counted[f"{column}_count_distinct"], 1))["product_id"]
        if len(torn):
            raise ShoplensError(f"photos of product {torn[0].as_py()!r} disagree about its {column}: give all the same")
    price = items["price"].to_numpy()
    wrong = np.flatnonzero(pc.is_valid(items["price"]).to_numpy() & ~((price >= 0) & (price < np.inf)))
    if len(wrong):
        product_id = items["product_id"][int(wrong[0])].as_py()
        raise ShoplensError(
            f"the price of product {product_id!r} is {price[wrong[0]]:g}: give a number from 0, or leave it empty if it "
            "is not known"
        )
    for column in ("stock", "component"):
        if (pc.min(items[column]).as_py() or 0) < 0:
            raise ShoplensError(f"a product's {column} is below 0: leave it empty if it is not known")
    category = items["category_id"].combine_chunks().dictionary_encode()
    names = category.dictionary.to_pylist()
    unknown = [name for name in names if name not in tree]
    if unknown:
        raise ShoplensError(
            f"category {unknown[0]!r} of a product is not in the category tree: add it, or leave it empty"
        )
    orders = np.array([*(tree[name].order for name in names), len(tree)], dtype=np.int64)
    order = orders[category.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)]
    product = items["product_id"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    _check_attributes(items, product)
    return np.lexsort((product, order))


def category_ranges(items: pa.Table, starts: np.ndarray, tree: CategoryTree) -> np.ndarray:
    """int64 [categories, 2]: the first product of each subtree and its end (exclusive), in the tree's order.

    `items` are in depth-first order; `starts` [p] are the rows where each product's photos begin.
    """
    of_product = items["category_id"].take(pa.array(starts)).combine_chunks().dictionary_encode()
    orders = np.array([*(tree[name].order for name in of_product.dictionary.to_pylist()), len(tree)], dtype=np.int64)
    order = orders[of_product.indices.fill_null(len(orders) - 1).to_numpy(zero_copy_only=False)]
    subtrees = np.array([(node.order, node.last + 1) for node in tree], dtype=np.int64).reshape(-1, 2)
    return np.searchsorted(order, subtrees).astype(np.int64)


def _check_attributes(items: pa.Table, product: np.ndarray) -> None:
    """Raises ShoplensError if photos of one product have different attributes; `product` int [n] numbers the products."""
    row, code, *_ = attribute_pairs(items["attributes"].combine_chunks())
    if not len(row):
        return
    rank = np.cumsum(np.diff(code, prepend=code[:1]) > 0)
    pairs, times = np.unique(product[row].astype(np.int64) * (rank[-1] + 1) + rank, return_counts=True)
    owner = pairs // (rank[-1] + 1)
    torn = owner[times != np.bincount(product)[owner]]
    if len(torn):
        product_id = items["product_id"][int(np.flatnonzero(product == torn[0])[0])].as_py()
        raise ShoplensError(f"photos of product {product_id!r} disagree about its attributes: give all the same")
