"""Deltas: changes of an index without a rebuild (products added or removed, prices, stock), as files in its folder.

`FOLDER/deltas/000001.parquet`, ... are numbered. Each is complete or absent, and never changes. An index with its deltas
answers as an index built from scratch would: removed products are skipped, added products follow the base in an order of
their own. `compact` merges both into a new base. A rebuild of the index replaces base and deltas.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock

from shoplens.errors import ShoplensError
from shoplens.search import files
from shoplens.search.index import Index
from shoplens.search.items import ITEMS, category_ranges, conform, depth_first
from shoplens.search.products import Products, run_starts
from shoplens.search.storage import check_range, encode, longest

DELTA = pa.schema([("what", pa.string()), *ITEMS, ("vector", pa.list_(pa.float32()))])
"""One row a change, applied in this order. `what` is `remove`, `add` (one row a photo), `price` or `stock`. Deltas of
older versions have no currency."""
_WITHOUT_CURRENCY = DELTA.remove(DELTA.get_field_index("currency"))


@dataclass(frozen=True)
class Changes:
    """Changes of a shop's products, applied in this order. Products that are not in the index are ignored.

    removed         product ids
    items           `ITEMS` of new products, or of products that replace those of the same id, one row a photo
    vectors         float32 [photos, d] of `items`
    prices, stocks  by product id; None: no longer known. A price is in the currency that the product has.
    """

    removed: Sequence[str] = ()
    items: pa.Table = field(default_factory=ITEMS.empty_table)
    vectors: np.ndarray | None = None
    prices: Mapping[str, float | None] = field(default_factory=dict)
    stocks: Mapping[str, int | None] = field(default_factory=dict)


def append(folder: str | os.PathLike[str], changes: Changes) -> Path:
    """Writes the changes as the next delta of the index in `folder`. Every later `load` applies them.

    One process writes at a time; others wait. Raises ShoplensError if there is no index, or if `Index.build` would refuse
    the vectors and items beside the existing ones; then nothing is written.
    """
    folder = Path(folder)
    with _write_lock(folder):
        index = load(folder, verify=False)
        table = _table(changes, index)
        numbered = folder / "deltas" / f"{len(_delta_files(folder)) + 1:06d}.parquet"
        numbered.parent.mkdir(exist_ok=True)
        handle, aside = tempfile.mkstemp(prefix=".", suffix=".partial", dir=numbered.parent)
        os.close(handle)
        try:
            pq.write_table(table.replace_schema_metadata({"base": _base_of(folder)}), aside, compression="zstd")
            os.chmod(aside, 0o644)
            os.rename(aside, numbered)
        finally:
            Path(aside).unlink(missing_ok=True)
    return numbered


def load(folder: str | os.PathLike[str], *, verify: bool = True) -> Index:
    """Opens an index with its deltas applied; `snapshot` names base and deltas.

    `items` and `vectors` still hold removed products (`products.gone`). Raises ShoplensError as `Index.load` does, and if
    a delta is missing, damaged, or belongs to another base.
    """
    folder = Path(folder)
    base = Index.load(folder, verify=verify)
    paths = _delta_files(folder)
    if not paths:
        return base
    return _with_changes(base, _read(paths, base.snapshot), _snapshot(base.snapshot, paths))


def stamp(folder: str | os.PathLike[str]) -> str:
    """An id that changes when the index is rebuilt or a delta is appended. Reads `index.json` alone.

    Raises OSError if it cannot be read.
    """
    folder = Path(folder)
    digest = sha256((folder / "index.json").read_bytes())
    for path in _delta_files(folder):
        written = path.stat()
        digest.update(f"{path.name} {written.st_size} {written.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]


def compact(folder: str | os.PathLike[str]) -> Index:
    """Merges index and deltas into a new base with the same answers, and replaces both.

    Stored vectors are copied as they are. `about` gains `compacted_from`, the snapshot. Raises as `load` does, and
    ShoplensError if no product is left.
    """
    folder = Path(folder)
    with _write_lock(folder):
        index = load(folder)
        rows = _live_rows(index)
        if not len(rows):
            raise ShoplensError(f"no product of {folder} is left: build the index again")
        files.write(
            folder,
            lambda some: index.vectors.pick(rows[some]),
            index.dim,
            index.items.take(pa.array(rows)).combine_chunks(),
            index.tree,
            {**index.about, "compacted_from": index.snapshot},
            index.storage,
            index.similar_categories,
            None if index.inverted_lists is None else index.inverted_lists.config,
        )
        return Index.load(folder, verify=False)


def _table(changes: Changes, index: Index) -> pa.Table:
    items = conform(changes.items)
    vectors = np.empty((0, index.dim), np.float32) if changes.vectors is None else np.asarray(changes.vectors)
    if vectors.dtype != np.float32 or vectors.shape != (items.num_rows, index.dim):
        raise ShoplensError(
            f"vectors must be float32 [{items.num_rows}, {index.dim}], one for each photo that is added, "
            f"not {vectors.dtype} {list(vectors.shape)}"
        )
    if not np.isfinite(vectors).all():
        raise ShoplensError("some vectors are not finite: the model has diverged, embed with another version")
    check_range(vectors, index.storage)
    depth_first(items, index.tree)
    _check_image_ids(items, changes.removed, index)
    wrong = [name for name, price in changes.prices.items() if price is not None and not 0 <= price < float("inf")]
    wrong += [name for name, stock in changes.stocks.items() if stock is not None and stock < 0]
    if wrong:
        raise ShoplensError(f"the price or stock of product {wrong[0]!r} is not a number from 0: give None if unknown")
    added = items.append_column("what", pa.repeat("add", len(items)))
    numbers = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), index.dim)
    added = added.append_column("vector", numbers.cast(DELTA.field("vector").type))
    values = [
        *({"what": "price", "product_id": product_id, "price": price} for product_id, price in changes.prices.items()),
        *({"what": "stock", "product_id": product_id, "stock": stock} for product_id, stock in changes.stocks.items()),
    ]
    removed = [{"what": "remove", "product_id": product_id} for product_id in changes.removed]
    return pa.concat_tables(
        [
            pa.Table.from_pylist(removed, schema=DELTA),
            added.select(DELTA.names).cast(DELTA),
            pa.Table.from_pylist(values, schema=DELTA),
        ]
    )


def _check_image_ids(items: pa.Table, removed: Sequence[str], index: Index) -> None:
    """Raises ShoplensError if an added photo has the image id of a product that stays."""
    known = pc.index_in(index.items["image_id"].combine_chunks(), value_set=items["image_id"].combine_chunks())
    rows = np.flatnonzero(pc.is_valid(known).to_numpy(zero_copy_only=False))
    leaving = {*items["product_id"].to_pylist(), *removed}
    places = index.products.of_photos(rows)
    for place, product_id in zip(places.tolist(), index.products.ids(places), strict=True):
        if product_id not in leaving and not (index.products.gone is not None and index.products.gone[place]):
            raise ShoplensError(
                f"an added photo has the image id of a photo of product {product_id!r}: give it another"
            )


def _read(paths: Sequence[Path], base: str) -> list[pa.Table]:
    tables = []
    for number, path in enumerate(paths, start=1):
        if path.name != f"{number:06d}.parquet":
            raise ShoplensError(f"delta {number} of {path.parent} is missing: build the index again")
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise ShoplensError(f"{path} is damaged ({error}): build the index again") from error
        if table.schema.equals(_WITHOUT_CURRENCY):
            unknown = pa.nulls(len(table), pa.string())
            table = table.append_column("currency", unknown).select(DELTA.names)
        if not table.schema.equals(DELTA):
            raise ShoplensError(f"{path} is of another format: build the index again")
        if (table.schema.metadata or {}).get(b"base", b"").decode() != base:
            raise ShoplensError(f"{path} is a delta of another index: build the index again")
        tables.append(table)
    return tables


class _State:
    """The final state of each product that the deltas name.

    gone            ids of products of the base that were removed or replaced
    added           rows of the concatenated deltas by product id, in the order of the latest addition
    prices, stocks  the latest values by product id
    """

    def __init__(self, tables: Sequence[pa.Table]) -> None:
        self.gone: set[str] = set()
        self.added: dict[str, list[int]] = {}
        self.prices: dict[str, float | None] = {}
        self.stocks: dict[str, int | None] = {}
        row = 0
        for table in tables:
            new: set[str] = set()
            columns = (table[name].to_pylist() for name in ("what", "product_id", "price", "stock"))
            for what, product_id, price, stock in zip(*columns, strict=True):
                if what == "price":
                    self.prices[product_id] = price
                elif what == "stock":
                    self.stocks[product_id] = stock
                else:
                    if product_id not in new:
                        self._forget(product_id)
                    if what == "add":
                        new.add(product_id)
                        self.added.setdefault(product_id, []).append(row)
                row += 1

    def _forget(self, product_id: str) -> None:
        self.gone.add(product_id)
        for known in (self.added, self.prices, self.stocks):
            known.pop(product_id, None)


def _with_changes(base: Index, tables: Sequence[pa.Table], snapshot: str) -> Index:
    state = _State(tables)
    changes = pa.concat_tables(tables).combine_chunks()
    items = changes.take(pa.array([row for rows in state.added.values() for row in rows], pa.int64()))
    items = items.take(pa.array(depth_first(items.select(ITEMS.names), base.tree)))
    vectors = items["vector"].combine_chunks().flatten().to_numpy().reshape(items.num_rows, base.dim)
    items = items.select(ITEMS.names)
    first = run_starts(items["product_id"])
    behind = len(base.products)
    whole = _with_prices(pa.concat_tables([base.items, items]), state)
    products = Products(
        whole,
        np.concatenate([base.products.start[:-1], base.items.num_rows + first, [whole.num_rows]]),
        np.append(_is_in(base.products.all_ids, state.gone), np.zeros(len(first), dtype=bool)),
    )
    slices: dict[str | None, Sequence[tuple[int, int]]] = {None: ((0, behind), (behind, len(products)))}
    order = np.full(len(products), len(base.tree), dtype=np.int64)
    for node, (low, high) in zip(base.tree, (category_ranges(items, first, base.tree) + behind).tolist(), strict=True):
        slices[node.id] = (*base.slices(node.id), (low, high))
        for start, end in slices[node.id]:
            order[start:end] = node.order
    rank = np.empty(len(products), dtype=np.int64)
    rank[np.argsort(order, kind="stable")] = np.arange(len(products))
    added = encode(vectors, base.storage)
    return Index(
        base.vectors.followed_by(added),
        whole,
        products,
        slices,
        base.tree,
        base.about,
        storage=base.storage,
        longest=max(base.longest, longest(added)),
        snapshot=snapshot,
        similar_categories=base.similar_categories,
        inverted_lists=base.inverted_lists,
        order=rank,
    )


def _with_prices(items: pa.Table, state: _State) -> pa.Table:
    """The items with the prices and stocks of the latest delta that names their product."""
    for name, values in (("price", state.prices), ("stock", state.stocks)):
        names = pa.array(values.keys(), pa.string())
        which = pc.index_in(items["product_id"].combine_chunks(), value_set=names)
        given = pa.array(values.values(), ITEMS.field(name).type).take(which)
        column = pc.if_else(pc.is_valid(which), given, items[name].combine_chunks())
        items = items.set_column(items.column_names.index(name), ITEMS.field(name), column)
    return items


def _is_in(ids: pa.Array, some: set[str]) -> np.ndarray:
    return pc.is_in(ids, value_set=pa.array(some, pa.string())).to_numpy(zero_copy_only=False)


def _live_rows(index: Index) -> np.ndarray:
    """The photo rows of the products that are not gone, in the order of an index built from scratch."""
    products = index.products
    places = np.arange(len(products)) if index.order is None else np.argsort(index.order)
    if products.gone is not None:
        places = places[~products.gone[places]]
    photos = np.diff(products.start)[places]
    begin = np.cumsum(photos) - photos
    return np.arange(int(photos.sum())) + np.repeat(products.start[places] - begin, photos)


def _delta_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("deltas/[0-9]*.parquet"))


def _base_of(folder: Path) -> str:
    return files.sha256_of(folder / "index.json")[:16]


def _snapshot(base: str, paths: Sequence[Path]) -> str:
    """`BASE+NUMBER.DIGEST`; the digest covers all deltas."""
    digest = sha256(json.dumps([files.sha256_of(path) for path in paths]).encode())
    return f"{base}+{len(paths)}.{digest.hexdigest()[:8]}"


def _write_lock(folder: Path) -> FileLock:
    """The write lock of an index. It lies beside the folder, because the folder is replaced."""
    return FileLock(folder.parent / f".{folder.name}.lock")
