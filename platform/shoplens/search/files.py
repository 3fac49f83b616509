"""The folder of an index: its format, written aside and moved into place whole, and read back with checksums."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shoplens.errors import ShoplensError
from shoplens.schema import CategoryTree
from shoplens.search.codes import Coded, Codes
from shoplens.search.inverted_lists import Approximate, InvertedLists
from shoplens.search.items import category_ranges
from shoplens.search.products import run_starts
from shoplens.search.storage import Storage, Stored, Vectors, blocks, longest

FORMAT_VERSION = 2
FILES = ("vectors.npy", "items.parquet", "categories.parquet")
SCALES = "scales.npy"
"""Present if the vectors are int8."""
CODES = ("codes.npy", "code_scales.npy", "code_bounds.npy", "code_center.npy")
"""Present if the vectors have one-byte codes of their own. Indexes of earlier versions are coded when they are read."""
CATEGORIES = pa.schema(
    [
        ("category_id", pa.string()),
        ("path", pa.list_(pa.string())),
        ("first_product", pa.int64()),
        ("n_products", pa.int64()),
    ]
)
"""The category tree. Each category is a slice of the products, which holds its whole subtree."""
AKIN = pa.schema([("category_id", pa.string()), ("akin", pa.list_(pa.string()))])
"""Schema of `AKIN_FILE`: for each category its similar categories, nearest first."""
AKIN_FILE = "akin.parquet"
"""Present if similar categories were learned."""
INVERTED_LISTS = "lists.faiss"
"""Present if large ranges are searched approximately."""
LIST_ROWS = "list_rows.npy"
"""Present if each inverted list holds photos of one category. Those of earlier versions do not."""


class Contents(NamedTuple):
    """The files of an index, opened. `slices` are the products (first, end) of each category's subtree; None: of all."""

    vectors: Vectors
    items: pa.Table
    tree: CategoryTree
    slices: dict[str | None, Sequence[tuple[int, int]]]
    about: Mapping[str, Any]
    storage: Storage
    longest: float
    snapshot: str
    similar_categories: dict[str, list[str]]
    inverted_lists: InvertedLists | None


def read(folder: str | os.PathLike[str], *, verify: bool = True) -> Contents:
    """Opens the files of an index; vectors are mapped. `verify` reads every file once and compares its SHA-256.

    Raises ShoplensError if the folder holds no index, or one that is damaged or of another format.
    """
    folder = Path(folder)
    try:
        summary = json.loads((folder / "index.json").read_text())
        if summary["format_version"] != FORMAT_VERSION:
            raise ShoplensError(f"{folder} is of index format {summary['format_version']}: build the index again")
        names = summary["sha256"]
        if verify:
            for name, digest in names.items():
                if sha256_of(folder / name) != digest:
                    raise ShoplensError(f"{folder}/{name} is damaged: build the index again")
        vectors = _read_vectors(folder, summary["storage"])
        items, categories = (pq.read_table(folder / name).combine_chunks() for name in FILES[1:])
        nodes, counts = categories.to_pylist(), summary["counts"]
        similar = (pq.read_table(folder / AKIN_FILE) if AKIN_FILE in names else AKIN.empty_table()).to_pydict()
        codes = vectors.parts[0].codes
        if codes.shape != (counts["photos"], summary["dimension"]) or codes.dtype != summary["storage"]:
            raise ShoplensError(f"{folder}/vectors.npy does not belong to index.json: build the index again")
        lists = None
        if INVERTED_LISTS in names:
            rows = np.load(folder / LIST_ROWS, allow_pickle=False) if LIST_ROWS in names else None
            lists = InvertedLists(folder / INVERTED_LISTS, summary["approximate"], rows)
        return Contents(
            Vectors(*vectors.parts, codes=_read_codes(folder, vectors, CODES[0] in names)),
            items,
            CategoryTree.of((row["path"], row["category_id"]) for row in nodes),
            {None: ((0, counts["products"]),)}
            | {row["category_id"]: _slice(row["first_product"], row["n_products"]) for row in nodes},
            summary["about"],
            summary["storage"],
            summary["longest"],
            sha256_of(folder / "index.json")[:16],
            dict(zip(similar["category_id"], similar["akin"], strict=True)),
            lists,
        )
    except FileNotFoundError as error:
        raise ShoplensError(
            f"{folder} holds no index ({Path(error.filename).name} is missing): build it with workloads.build_index"
        ) from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ShoplensError(f"{folder}/index.json is damaged ({error}): build the index again") from error


def write(
    folder: str | os.PathLike[str],
    stored: Callable[[slice], Stored],
    dimension: int,
    items: pa.Table,
    tree: CategoryTree,
    about: Mapping[str, Any],
    storage: Storage,
    similar_categories: Mapping[str, Sequence[str]],
    approximate: Approximate | None,
) -> None:
    """Writes an index aside and moves it to `folder`.

    `items` (`ITEMS`) are in depth-first order; `stored` gives the vectors of a slice of them. Raises ShoplensError if
    similar categories are not in the tree.
    """
    folder = Path(folder)
    named = {*similar_categories, *chain.from_iterable(similar_categories.values())}
    if unknown := named - {node.id for node in tree}:
        raise ShoplensError(
            f"category {min(unknown)!r} of the similar categories is not in the category tree: leave it out"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        os.chmod(aside, 0o755)
        greatest = _write_vectors(aside, stored, (items.num_rows, dimension), storage)
        starts = run_starts(items["product_id"])
        pq.write_table(items, aside / "items.parquet", compression="zstd")
        pq.write_table(_category_table(items, starts, tree), aside / "categories.parquet", compression="zstd")
        if similar_categories:
            columns = [list(similar_categories), [*similar_categories.values()]]
            pq.write_table(pa.table(columns, schema=AKIN), aside / AKIN_FILE, compression="zstd")
        vectors = _read_vectors(aside, storage)
        codes = Codes.of(vectors)
        vectors = Vectors(*vectors.parts, codes=codes)
        if storage != "int8":
            _write_codes(aside, codes)
        lists = None
        if approximate is not None:
            path, categories = aside / INVERTED_LISTS, _category_starts(items)
            lists, rows = InvertedLists.build(path, vectors, greatest, approximate, categories)
            np.save(aside / LIST_ROWS, rows)
        summary = {
            "format_version": FORMAT_VERSION,
            "dimension": dimension,
            "storage": storage,
            "longest": greatest,
            "counts": {"photos": items.num_rows, "products": len(starts)},
            "about": dict(about),
            "sha256": {path.name: sha256_of(path) for path in sorted(aside.iterdir())},
        }
        summary |= {} if lists is None else {"approximate": lists.parameters}
        (aside / "index.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False))
        _move(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _category_starts(items: pa.Table) -> np.ndarray:
    """int64: the rows where the photos of each category begin, and their number."""
    return np.append(run_starts(pc.fill_null(items["category_id"], "")), items.num_rows)


def _slice(first: int, length: int) -> tuple[tuple[int, int], ...]:
    return ((first, first + length),)


def _category_table(items: pa.Table, starts: np.ndarray, tree: CategoryTree) -> pa.Table:
    nodes, ranges = list(tree), category_ranges(items, starts, tree)
    columns = [[node.id for node in nodes], [node.path for node in nodes], ranges[:, 0], ranges[:, 1] - ranges[:, 0]]
    return pa.table(columns, schema=CATEGORIES)


def _read_vectors(folder: Path, storage: str) -> Vectors:
    names = (FILES[0], *[SCALES] * (storage == "int8"))
    return Vectors(Stored(*(np.asarray(np.load(folder / n, mmap_mode="c", allow_pickle=False)) for n in names)))


def _read_codes(folder: Path, vectors: Vectors, stored: bool) -> Codes:
    if not stored:
        return Codes.of(vectors)
    *part, center = (np.asarray(np.load(folder / name, mmap_mode="c", allow_pickle=False)) for name in CODES)
    return Codes([Coded(*part)], center)


def _write_codes(folder: Path, codes: Codes) -> None:
    for name, array in zip(CODES, (*codes.parts[0], codes.center), strict=True):
        np.save(folder / name, array)


def _write_vectors(folder: Path, stored: Callable[[slice], Stored], shape: tuple[int, int], storage: Storage) -> float:
    """Returns the greatest length of a stored vector."""
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


def _move(aside: Path, folder: Path) -> None:
    """Replaces `folder` by `aside`. A process that has the old files open keeps them."""
    if not folder.exists():
        os.rename(aside, folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".old", dir=folder.parent))
    os.rename(folder, old / "index")
    os.rename(aside, folder)
    shutil.rmtree(old)
