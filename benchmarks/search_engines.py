"""Search engines that `category_search.py` compares, each in a process of its own.

    python benchmarks/search_engines.py build NAME WORK
    python benchmarks/search_engines.py serve NAME WORK

WORK holds the vectors and queries that `category_search.py` draws. `build` writes the index to WORK/NAME and prints one
line of JSON. `serve` reads requests as lines of JSON from standard input and prints one line of JSON for each.

A process holds one engine on one core with one thread. LanceDB hangs with one thread, so it has several on that core.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
os.environ |= dict.fromkeys(THREADS, "1")
if "avx512bw" in Path("/proc/cpuinfo").read_text():
    os.environ["OPENBLAS_CORETYPE"] = "SKYLAKEX"  # Faiss's OpenBLAS takes processors newer than itself for old ones

import numpy as np  # noqa: E402  after the number of threads is set

K = 20
LEVELS = ("leaf", "parent", "top", "shop")
BREADTH = {"top": 20, "parent": 10, "leaf": 10}
"""Number of top categories, then of children of each category of the level above."""
POWERS = tuple(sorted({round(scale * 2**power) for power in range(14) for scale in (1, 1.5)}))


class Where(NamedTuple):
    """A category: its level, its number within the level, and the rows low..high-1 of its products."""

    level: str
    number: int
    low: int
    high: int


class Shoplens:
    """shoplens: exact search of the category's slice."""

    efforts = (0,)
    modules: tuple[str, ...] = ("shoplens.search.index", "torch", "faiss")
    package = "numpy"

    def build(self, vectors: np.ndarray, leaf: np.ndarray, folder: Path) -> None:
        self.build_index(vectors, leaf, folder, None)

    def build_index(self, vectors: np.ndarray, leaf: np.ndarray, folder: Path, approximate: Any) -> None:
        import pyarrow as pa

        from shoplens.search.index import Index
        from shoplens.search.items import ITEMS

        n = len(vectors)
        ids = pa.array(np.char.add("p", np.char.zfill(np.arange(n).astype(str), 8)))
        leaves = pa.array(["/".join(path) for path in paths()])
        columns = {"image_id": ids, "product_id": ids, "category_id": leaves.take(pa.array(leaf))}
        columns |= {"price": pa.array(np.arange(n) % 1000 / 1.0), "sample": pa.array(np.arange(n))}
        table = pa.table([columns.get(field.name, pa.nulls(n, field.type)) for field in ITEMS], schema=ITEMS)
        Index.build(folder / "index", vectors, table, tree(), {}, approximate=approximate)

    def open(self, folder: Path) -> None:
        from shoplens.search.index import Index
        from shoplens.search.scan import Range

        self.index, self.range = Index.load(folder / "index", verify=False), Range
        ids = {node.path: node.id for node in self.index.tree}
        self.ids: dict[tuple[str, int], str | None] = {("shop", 0): None}
        for depth, level in enumerate(BREADTH, start=1):
            categories = dict.fromkeys(path[:depth] for path in paths())
            self.ids |= {(level, number): ids[path] for number, path in enumerate(categories)}

    def search(self, queries: np.ndarray, where: Where, effort: int) -> np.ndarray:
        slices = self.index.slices(self.ids[where.level, where.number])
        return self.index.nearest(queries, K, [self.range(low, high) for low, high in slices]).products


class Faiss:
    """Faiss with matrix products from 20 queries on. The default of Faiss 1.15, 128,000 queries, makes batches slow."""

    package = "faiss-gpu"
    modules: tuple[str, ...] = ("faiss",)

    def __init__(self) -> None:
        import faiss

        faiss.cvar.distance_compute_blas_threshold = 20
        self.faiss = faiss


class ShoplensLists(Shoplens):
    """shoplens with inverted lists for large ranges."""

    efforts = tuple(K * power for power in POWERS)

    def build(self, vectors: np.ndarray, leaf: np.ndarray, folder: Path) -> None:
        from shoplens.search.inverted_lists import Approximate

        self.build_index(vectors, leaf, folder, Approximate())

    def search(self, queries: np.ndarray, where: Where, effort: int) -> np.ndarray:
        self.index.inverted_lists.max_codes = effort
        return super().search(queries, where, effort)


class FaissSlice(Faiss):
    """Exact Faiss search in float32 over the rows of the category: the gain from the order of the rows alone."""

    efforts = (0,)

    def build(self, vectors: np.ndarray, leaf: np.ndarray, folder: Path) -> None:
        np.save(folder / "vectors.npy", vectors)

    def open(self, folder: Path) -> None:
        self.vectors = np.asarray(np.load(folder / "vectors.npy", mmap_mode="r"))

    def search(self, queries: np.ndarray, where: Where, effort: int) -> np.ndarray:
        _, rows = self.faiss.knn(queries, self.vectors[where.low : where.high], K, self.faiss.METRIC_INNER_PRODUCT)
        return np.where(rows < 0, rows, rows + where.low)


class FaissIVF(Faiss):
    """Inverted lists of float32 vectors. Rows are sorted by category, so the range selector bisects every list."""

    efforts = POWERS

    def build(self, vectors: np.ndarray, leaf: np.ndarray, folder: Path) -> None:
        lists = 1 << round(np.log2(4 * len(vectors) ** 0.5))
        index = self.faiss.index_factory(vectors.shape[1], f"IVF{lists},Flat", self.faiss.METRIC_INNER_PRODUCT)
        index.cp.max_points_per_centroid = 64
        index.train(vectors)
        index.add(vectors)
        self.faiss.write_index(index, str(folder / "index"))

    def open(self, folder: Path) -> None:
        self.index = self.faiss.read_index(str(folder / "index"))

    def search(self, queries: np.ndarray, where: Where, effort: int) -> np.ndarray:
        chosen = None if where.level == "shop" else self.faiss.IDSelectorRange(where.low, where.high, True)
        parameters = self.faiss.SearchParametersIVF(sel=chosen, nprobe=min(effort, self.index.nlist))
        return self.index.search(queries, K, params=parameters)[1]


class FaissHNSW(Faiss):
    efforts = tuple(power for power in POWERS if power >= K)

    def build(self, vectors: np.ndarray, leaf: np.ndarray, folder: Path) -> None:
        index = self.faiss.index_factory(vectors.shape[1], "HNSW32,Flat", self.faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 100
        index.add(vectors)
        self.faiss.write_index(index, str(folder / "index"))

    def open(self, folder: Path) -> None:
        self.index = self.faiss.read_index(str(folder / "index"))

    def search(self, queries: np.ndarray, where: Where, effort: int) -> np.ndarray:
        chosen = None if where.level == "shop" else self.faiss.IDSelectorRange(where.low, where.high)
        parameters = self.faiss.SearchParametersHNSW(sel=chosen, efSearch=effort)
        return self.index.search(queries, K, params=parameters)[1]


class Hnswlib:
    """hnswlib. Its filter is a Python function that is called for every visited vector."""

    efforts = FaissHNSW.efforts
    modules: tuple[str, ...] = ("hnswlib",)
    package = "hnswlib"

    def build(self, vectors: np.ndarray, leaf: np.ndarray, folder: Path) -> None:
        import hnswlib

        index = hnswlib.Index("ip", vectors.shape[1])
        index.init_index(len(vectors), M=16, ef_construction=100)
        index.add_items(vectors, num_threads=1)
        index.save_index(str(folder / "index"))

    def open(self, folder: Path) -> None:
        import hnswlib

        self.index = hnswlib.Index("ip", dimension(folder))
        self.index.load_index(str(folder / "index"))

    def search(self, queries: np.ndarray, where: Where, effort: int) -> np.ndarray:
        self.index.set_ef(effort)
        low, high = where.low, where.high
        within = None if where.level == "shop" else lambda label: low <= label < high
        try:
            return self.index.knn_query(queries, K, num_threads=1, filter=within)[0].astype(np.int64)
        except RuntimeError:  # fewer than K results for one query; hnswlib then returns no result at all
            if len(queries) == 1:
                return np.full((1, K), -1)
            return np.concatenate([self.search(query[None], where, effort) for query in queries])


class Usearch:
    """usearch with post-filtering: it fetches `effort` results, and the first 20 of the category are kept."""

    efforts = FaissHNSW.efforts
    modules: tuple[str, ...] = ("usearch.index",)
    package = "usearch"

    def build(self, vectors: np.ndarray, leaf: np.ndarray, folder: Path) -> None:
        from usearch.index import Index

        index = Index(ndim=vectors.shape[1], metric="ip", dtype="f32", connectivity=16, expansion_add=100)
        index.add(np.arange(len(vectors), dtype=np.uint64), vectors, threads=1)
        index.save(str(folder / "index"))

    def open(self, folder: Path) -> None:
        from usearch.index import Index

        self.index = Index(ndim=dimension(folder), metric="ip", dtype="f32")
        self.index.load(str(folder / "index"))

    def search(self, queries: np.ndarray, where: Where, effort: int) -> np.ndarray:
        self.index.expansion_search = effort
        count = K if where.level == "shop" else effort
        keys = self.index.search(queries, count, threads=1).keys.astype(np.int64).reshape(len(queries), -1)
        if where.level == "shop":
            return keys
        outside = (keys < where.low) | (keys >= where.high)
        first = np.argsort(outside, axis=1, kind="stable")[:, :K]
        nearest = np.take_along_axis(keys, first, axis=1)
        return np.where(np.take_along_axis(outside, first, axis=1), -1, nearest)


class Lance:
    """Embedded LanceDB: inverted lists of float32 vectors and a B-tree on the category number of each level."""

    efforts = POWERS
    modules: tuple[str, ...] = ("lancedb",)
    package = "lancedb"

    def build(self, vectors: np.ndarray, leaf: np.ndarray, folder: Path) -> None:
        import lancedb
        import pyarrow as pa
        from lancedb.index import BTree, IvfFlat

        numbers = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        columns = {"place": pa.array(np.arange(len(vectors))), "vector": numbers}
        below = 1
        for level in reversed(BREADTH):
            columns[level] = pa.array((leaf // below).astype(np.int32))
            below *= BREADTH[level]
        table = lancedb.connect(folder).create_table("products", pa.table(columns))
        lists = 1 << round(np.log2(4 * len(vectors) ** 0.5))
        table.create_index("vector", config=IvfFlat(distance_type="dot", num_partitions=lists))
        for level in BREADTH:
            table.create_index(level, config=BTree())

    def open(self, folder: Path) -> None:
        import lancedb

        self.table = lancedb.connect(folder).open_table("products")

    def search(self, queries: np.ndarray, where: Where, effort: int) -> np.ndarray:
        search = self.table.search(queries if len(queries) > 1 else queries[0], vector_column_name="vector")
        search = search.select(["place", "_distance"]).limit(K).nprobes(effort)
        if where.level != "shop":
            search = search.where(f"{where.level} = {where.number}", prefilter=True)
        answer = search.to_arrow()
        query = answer["query_index"].to_numpy() if len(queries) > 1 else np.zeros(len(answer), np.int64)
        order = np.lexsort((answer["_distance"].to_numpy(), query))
        query, place = query[order], answer["place"].to_numpy()[order]
        rows = np.full((len(queries), K), -1)
        rows[query, np.arange(len(query)) - np.searchsorted(query, query)] = place
        return rows


ENGINES: dict[str, Any] = {
    "shoplens": Shoplens,
    "shoplens_lists": ShoplensLists,
    "faiss_slice": FaissSlice,
    "faiss_ivf": FaissIVF,
    "faiss_hnsw": FaissHNSW,
    "hnswlib": Hnswlib,
    "usearch": Usearch,
    "lancedb": Lance,
}


def paths() -> Iterator[tuple[str, ...]]:
    """Paths of the leaves in depth-first order."""
    for place in np.ndindex(*BREADTH.values()):
        yield tuple(f"{level}{number:02d}" for level, number in zip(BREADTH, place, strict=True))


def tree() -> Any:
    from shoplens.schema import CategoryTree

    return CategoryTree.of((path, "/".join(path)) for path in paths())


def dimension(folder: Path) -> int:
    return int(np.load(folder.parent / "vectors.npy", mmap_mode="r").shape[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["build", "serve"])
    parser.add_argument("name", choices=ENGINES, metavar="NAME", help=", ".join(ENGINES))
    parser.add_argument("work", type=Path, metavar="WORK", help="folder of vectors, queries and indexes")
    options = parser.parse_args()
    engine, work = ENGINES[options.name](), options.work
    folder = work / options.name
    if options.action == "build":
        vectors, leaf = np.load(work / "vectors.npy"), np.load(work / "leaf.npy")
        began = time.process_time()
        engine.build(vectors, leaf, folder)
        reply({"seconds": time.process_time() - began, "bytes": size(folder), "version": version(engine.package)})
        return
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    queries = {level: dict(np.load(work / f"{level}.npz")) for level in LEVELS}
    for module in engine.modules:
        import_module(module)
    before = resident()
    engine.open(folder)
    for line in sys.stdin:
        request = json.loads(line)
        reply(measured(engine, queries[request["level"]], **request) | {"bytes": resident() - before})


def measured(
    engine: Any,
    drawn: dict[str, np.ndarray],
    level: str,
    mode: str,
    effort: int,
    calls: int,
    seconds: float,
    patience: float,
) -> dict[str, float]:
    """Queries per second (`rate`), recall@K, and calls of the first pass over the first `calls` calls of a mode.

    Passes repeat until `seconds` are spent. A first pass stops after `patience` seconds. Time is the processor time of this
    process.
    """
    queries, truths = (drawn[f"{mode}_{what}"][:calls] for what in ("queries", "truth"))
    places = [Where(level, *where) for where in drawn[f"{mode}_where"][:calls].tolist()]
    answers: list[np.ndarray] = []
    done, began = 0, time.process_time()
    for query, place in zip(queries, places, strict=True):
        answers.append(engine.search(query, place, effort))
        if time.process_time() - began > patience:
            break
    done = len(answers)
    while done % len(queries) == 0 and time.process_time() - began < seconds:
        for query, place in zip(queries, places, strict=True):
            engine.search(query, place, effort)
        done += len(queries)
    took = time.process_time() - began
    recalls = [recall(answer, truth) for answer, truth in zip(answers, truths, strict=False)]
    return {
        "calls": len(answers),
        "rate": done * queries.shape[1] / took,
        "recall": float(np.mean(np.concatenate(recalls))),
    }


def recall(rows: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """recall@K of each query, float64 [m]; `rows` and `truth` int64 [m, K], padded with -1."""
    there = (truth[:, :, None] == rows[:, None, :]).any(axis=2) & (truth >= 0)
    return there.sum(axis=1) / (truth >= 0).sum(axis=1)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def resident() -> int:
    """Resident bytes of this process, with mapped files."""
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def reply(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
