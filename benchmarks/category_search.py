"""Nearest-neighbour search within a category, against Faiss, hnswlib, usearch and LanceDB.

    python benchmarks/category_search.py OUT [--items 1000000] [--work data/category_search] [--rounds 5]
        [--engines faiss_ivf usearch ...]

It measures queries per second of processor time at equal recall, build time and size.

Data: 128-dimensional vectors in a tree of 20 x 10 x 10 categories. Leaves differ in size and some are empty. The centre of
a category lies near its parent's, and every product near the centre of its leaf. A query is another photo of a product. It
asks for the 20 nearest in the product's leaf, the leaf's parent, the top category or the whole shop; alone or in a batch
of 256 queries of one category.

Fairness: every engine runs in a process of its own, with one thread, on the same core. An approximate engine searches with
the least effort (`efSearch`, `nprobe`, results fetched) that reaches 95 % or 99 % recall@20. Time is the processor time of
the engine's process. In every round shoplens and the peer answer the same queries one after the other, so that load on the
machine affects both.

OUT receives `category_search.json` and `category_search.md`. The folder --work keeps vectors and indexes for later calls.

Duration at the default size on 2 cores: about 45 minutes (estimate), 11 of them to build the indexes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from peers import environment
from search_engines import BREADTH, ENGINES, LEVELS, K

ROOT = Path(__file__).parents[1]
PEERS = {
    "hnswlib": ("hnswlib==0.8.0",),
    "usearch": ("usearch==2.26.6", "numkong==7.8.6"),
    "lancedb": (
        "lancedb==0.40.0",
        "lance-namespace==0.13.0",
        "lance-namespace-urllib3-client==0.13.0",
        "deprecation==2.1.0",
        "overrides==7.7.0",
    ),
}
DIMENSION = 128
SPREAD = {"parent": 0.8, "leaf": 0.6, "product": 0.7, "photo": 0.3}
"""Typical distance from the centre, relative to the length of the centre."""
SINGLES, BATCH = 512, 256
CALLS = {"single": (SINGLES, 1), "batch": (8, BATCH)}
"""Mode -> (number of calls, queries of a call)."""
TARGETS = (0.95, 0.99)
PATIENCE = {"seeking": 8.0, "measuring": 2.0}
"""Seconds of processor time after which the rest of the queries is skipped, in each phase."""
TITLES = {
    "shoplens": "shoplens (exact)",
    "shoplens_lists": "shoplens, lists from 20,000 products",
    "faiss_slice": "Faiss `knn` on the slice (exact in float32)",
    "faiss_ivf": "Faiss IVF-Flat, range selector",
    "faiss_hnsw": "Faiss HNSW32, range selector",
    "hnswlib": "hnswlib, filter",
    "usearch": "usearch, post-filtered",
    "lancedb": "LanceDB IVF-Flat, indexed filter",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the results")
    parser.add_argument("--items", type=int, default=1_000_000, help="number of vectors")
    parser.add_argument("--work", type=Path, default=Path("data/category_search"), help="folder of vectors and indexes")
    parser.add_argument("--rounds", type=int, default=5, help="repeated measurements; medians are reported")
    parser.add_argument("--seconds", type=float, default=0.4, help="least processor time of one measurement")
    parser.add_argument(
        "--engines", nargs="+", choices=list(ENGINES)[1:], default=list(ENGINES)[1:], help="compared with shoplens"
    )
    options = parser.parse_args()

    work = options.work / f"{options.items}"
    if not (work / "leaf.npy").exists():
        draw(work, options.items)
    built = {name: build(name, work) for name in ("shoplens", *options.engines)}
    with ExitStack() as stack:
        engines = {name: stack.enter_context(served(name, work)) for name in built}
        measured = [entry for level in LEVELS for mode in CALLS for entry in measure(engines, level, mode, options)]
    result = {
        "command": " ".join(["python", *sys.argv]),
        "items": options.items,
        "queries": json.loads((work / "about.json").read_text()),
        "built": built,
        "measured": measured,
        "machine": {"processor": processor(), "processors": os.cpu_count(), "python": platform.python_version()},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "category_search.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "category_search.md").write_text(page(result))


def draw(work: Path, n: int) -> None:
    """Writes vectors in the order of their leaves, the leaf of each, and for each level queries with their true answers."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((DIMENSION, DIMENSION)))[0].astype(np.float32)
    share = 1 / np.sqrt(np.arange(1, DIMENSION + 1, dtype=np.float32))
    share /= np.linalg.norm(share)

    def around(centres: np.ndarray, spread: float) -> np.ndarray:
        """Unit vectors near `centres`, with a different variance along each axis, as in real models."""
        noise = rng.standard_normal(centres.shape, dtype=np.float32) * share
        return unit(centres + np.float32(spread) * (noise @ axes))

    top = unit(rng.standard_normal((BREADTH["top"], DIMENSION), dtype=np.float32))
    parents = around(np.repeat(top, BREADTH["parent"], axis=0), SPREAD["parent"])
    centres = around(np.repeat(parents, BREADTH["leaf"], axis=0), SPREAD["leaf"])
    sizes = rng.lognormal(sigma=1.0, size=len(centres))
    sizes[rng.random(len(sizes)) < 0.01] = 0
    leaf = np.repeat(np.arange(len(centres)), rng.multinomial(n, sizes / sizes.sum()))
    vectors = np.concatenate([around(centres[some], SPREAD["product"]) for some in np.array_split(leaf, 50)])

    work.mkdir(parents=True, exist_ok=True)
    np.save(work / "vectors.npy", vectors)
    below = {"leaf": 1, "parent": BREADTH["leaf"], "top": BREADTH["leaf"] * BREADTH["parent"], "shop": len(centres)}
    for level in LEVELS:
        bounds = np.searchsorted(leaf // below[level], np.arange(len(centres) // below[level] + 1))
        drawn = {}
        for mode, (calls, each) in CALLS.items():
            number = leaf[rng.integers(n, size=calls)] // below[level]
            low, high = bounds[number], bounds[number + 1]
            seeds = rng.integers(low[:, None], high[:, None], size=(calls, each))
            drawn[f"{mode}_where"] = np.stack([number, low, high], axis=1)
            drawn[f"{mode}_queries"] = queries = around(vectors[seeds], SPREAD["photo"])
            drawn[f"{mode}_truth"] = truth = np.empty((calls, each, K), np.int64)
            for category in np.unique(number):
                of = number == category
                rows = nearest(vectors, queries[of].reshape(-1, DIMENSION), *bounds[category : category + 2])
                truth[of] = rows.reshape(-1, each, K)
        np.savez(work / f"{level}.npz", **drawn)
    query_leaf = leaf[seeds[0]]
    of_neighbours = leaf[drawn["batch_truth"][0]]
    counts = np.bincount(leaf, minlength=len(centres))
    about = {
        "smallest_median_largest_leaf": [int(f(counts[counts > 0])) for f in (np.min, np.median, np.max)],
        "empty_leaves": int((counts == 0).sum()),
        "neighbours_in_own_leaf": round(float((of_neighbours == query_leaf[:, None]).mean()), 3),
    }
    (work / "about.json").write_text(json.dumps(about))
    np.save(work / "leaf.npy", leaf)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def nearest(vectors: np.ndarray, queries: np.ndarray, low: int, high: int) -> np.ndarray:
    """Rows of the K largest inner products among rows low..high-1, computed in float64, int64 [m, K].

    Ties are in the order of the rows. -1 fills the rest if the range has fewer than K rows.
    """
    wide = queries.astype(np.float64)
    best, rows = np.full((len(queries), 0), 0.0), np.zeros((len(queries), 0), np.int64)
    for start in range(low, high, 20_000):
        some = vectors[start : min(start + 20_000, high)].astype(np.float64)
        best = np.concatenate([best, wide @ some.T], axis=1)
        rows = np.concatenate([rows, np.tile(np.arange(start, start + len(some)), (len(queries), 1))], axis=1)
        kept = np.argpartition(-best, K, axis=1)[:, :K] if best.shape[1] > K else np.argsort(best, axis=1)
        best, rows = (np.take_along_axis(of, kept, axis=1) for of in (best, rows))
    first = np.lexsort((rows, -best), axis=1)
    answer = np.full((len(queries), K), -1)
    answer[:, : first.shape[1]] = np.take_along_axis(rows, first, axis=1)
    return answer


def python_of(name: str) -> str:
    return str(environment(f"search_{name}", PEERS[name])) if name in PEERS else sys.executable


def surroundings() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "platform"), "CUDA_VISIBLE_DEVICES": "", "RUST_LOG": "error"}


def build(name: str, work: Path) -> dict[str, Any]:
    """Seconds, bytes on disk and version of the engine's index. An existing index is not built again."""
    report = work / f"{name}.json"
    if not report.exists():
        shutil.rmtree(work / name, ignore_errors=True)
        (work / name).mkdir()
        command = [
            "nice",
            "-n",
            "5",
            python_of(name),
            str(ROOT / "benchmarks/search_engines.py"),
            "build",
            name,
            str(work),
        ]
        done = subprocess.run(command, check=True, env=surroundings(), stdout=subprocess.PIPE, text=True)
        report.write_text(done.stdout.splitlines()[-1])
        print(f"{name}: built", report.read_text().strip(), flush=True)
    return json.loads(report.read_text())


class Engine:
    """A process that holds one engine and answers requests."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.name, self._process = name, process

    def ask(
        self,
        level: str,
        mode: str,
        effort: int,
        calls: int,
        seconds: float,
        patience: float = PATIENCE["measuring"],
    ) -> dict[str, float]:
        """The figures of `search_engines.measured`."""
        assert self._process.stdin and self._process.stdout
        request = {"level": level, "mode": mode, "effort": effort, "calls": calls}
        request |= {"seconds": seconds, "patience": patience}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the process of {self.name} ended without an answer to {request}")
        return json.loads(line)


@contextmanager
def served(name: str, work: Path) -> Iterator[Engine]:
    command = [python_of(name), str(ROOT / "benchmarks/search_engines.py"), "serve", name, str(work)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": surroundings()}
    with subprocess.Popen(command, **pipes) as process:
        yield Engine(name, process)
        process.stdin.close()


def measure(engines: dict[str, Engine], level: str, mode: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Recall and rates of each engine at each recall target for one level and mode, with our rate over its, by round."""
    ours = engines["shoplens"]
    everything = {"level": level, "mode": mode, "effort": 0, "calls": CALLS[mode][0]}
    ours.ask(**everything, seconds=0)
    planned = [plan for name in list(engines)[1:] for plan in plans(engines[name], level, mode, options.seconds)]
    own: list[float] = []
    for _ in range(options.rounds):
        answer = ours.ask(**everything, seconds=options.seconds)
        own.append(answer["rate"])
        for plan in planned:
            if not plan["reached"]:
                continue
            request = {"level": level, "mode": mode, "calls": plan["calls"], "seconds": options.seconds}
            reference = ours.ask(**request, effort=0)
            theirs = engines[plan["engine"]].ask(**request, effort=plan["effort"])
            plan["rates"].append(round(theirs["rate"], 1))
            plan["ours_over_theirs"].append(round(reference["rate"] / theirs["rate"], 3))
            plan["recall"] = round(theirs["recall"], 4)
            plan["resident_bytes"] = theirs["bytes"]
    first = {"engine": "shoplens", "recall": round(answer["recall"], 4), "resident_bytes": answer["bytes"]}
    first |= {"rates": [round(rate, 1) for rate in own], "reached": True}
    entries = [{"level": level, "mode": mode, **entry} for entry in (first, *planned)]
    for entry in entries:
        print({name: value for name, value in entry.items() if name != "sought"}, flush=True)
    return entries


def plans(engine: Engine, level: str, mode: str, seconds: float) -> list[dict[str, Any]]:
    """For each recall target the least effort of an engine that reaches it on the single queries, if any does."""
    trials: list[dict[str, float]] = []
    efforts = ENGINES[engine.name].efforts
    for effort in efforts:
        answer = engine.ask(level, "single", effort, SINGLES, 0, PATIENCE["seeking"])
        trials.append({"effort": effort, "recall": round(answer["recall"], 4), "rate": round(answer["rate"], 1)})
        if answer["recall"] >= TARGETS[-1] or answer["calls"] < SINGLES:
            break
    targets = TARGETS if len(efforts) > 1 else (TARGETS[-1],)
    chosen = []
    for target in targets:
        reached = next((trial for trial in trials if trial["recall"] >= target), None)
        of = reached or trials[-1]
        calls = max(2, min(CALLS[mode][0], round(seconds * of["rate"] / CALLS[mode][1])))
        plan = {"engine": engine.name, "target": target, "reached": bool(reached), "effort": of["effort"]}
        plan |= {"recall": of["recall"], "calls": calls, "sought": trials, "rates": [], "ours_over_theirs": []}
        chosen.append(plan)
    return chosen


def page(result: dict[str, Any]) -> str:
    """The tables as Markdown."""
    about, n = result["queries"], result["items"]
    smallest, median, largest = about["smallest_median_largest_leaf"]
    lines = [
        "# Search within a category",
        "",
        f"`{result['command']}`: {n:,} vectors of {DIMENSION} dimensions, 2,000 leaves of {smallest:,} to {largest:,} "
        f"products (median {median:,}, {about['empty_leaves']} empty); one thread of {result['machine']['processor']}. "
        f"{about['neighbours_in_own_leaf']:.0%} of a query's {K} nearest in the whole shop lie in its own leaf. "
        "Queries per second of processor time; in brackets the rate of shoplens over it, on the same queries (medians over rounds).",
    ]
    for mode, title in (("single", "one query at a time"), ("batch", f"{BATCH} queries of a category at a time")):
        lines += ["", "| " + " | ".join([title, *LEVELS]) + " |", "| --- " * (len(LEVELS) + 1) + "|"]
        of_mode = [entry for entry in result["measured"] if entry["mode"] == mode]
        rows = dict.fromkeys((entry["engine"], entry.get("target")) for entry in of_mode)
        for engine, target in rows:
            cells = [
                cell(entry)
                for level in LEVELS
                for entry in of_mode
                if (entry["level"], entry["engine"], entry.get("target")) == (level, engine, target)
            ]
            at = f", recall {target:.0%}" if len(ENGINES[engine].efforts) > 1 else ""
            lines.append("| " + " | ".join([TITLES[engine] + at, *cells]) + " |")
    lines += ["", "| | version | build, processor time | bytes a product on disk | in memory |", "| --- " * 5 + "|"]
    for name, built in result["built"].items():
        resident = max(entry.get("resident_bytes", 0) for entry in result["measured"] if entry["engine"] == name)
        figures = [built["version"], f"{built['seconds']:,.0f} s", f"{built['bytes'] / n:,.0f}", f"{resident / n:,.0f}"]
        lines.append("| " + " | ".join([TITLES[name], *figures]) + " |")
    return "\n".join(lines) + "\n"


def cell(entry: dict[str, Any]) -> str:
    if not entry["reached"]:
        return f"not reached ({entry['recall']:.0%} at {entry['effort']:,})"
    rate = f"{statistics.median(entry['rates']):,.0f}"
    if "ours_over_theirs" not in entry:
        return f"**{rate}**"
    return f"{rate} ({statistics.median(entry['ours_over_theirs']):.2g})"


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
