"""The job behind `shoplens dataset import`: the driver checks the rows, Ray tasks the photos, chunk by chunk."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import fsspec
import PIL
import ray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shoplens.datasets.format import Dataset
from shoplens.datasets.importing.clothing import Clothing
from shoplens.datasets.importing.fashion import Fashion, LowResolution
from shoplens.datasets.importing.grocery import Grocery
from shoplens.datasets.importing.luma import Luma
from shoplens.datasets.importing.plan import plan_import, told
from shoplens.datasets.importing.shards import reopen_repeated, write_shard
from shoplens.datasets.importing.shoppers import ShopperTables
from shoplens.datasets.importing.source import Source
from shoplens.datasets.importing.table import Table, table_in
from shoplens.datasets.importing.webdataset import WebDataset
from shoplens.datasets.photo_files import PhotoRules
from shoplens.datasets.rejects import NOTES
from shoplens.datasets.staging import Staging
from shoplens.errors import ShoplensError

SOURCES = (
    "grocery",
    "fashion",
    "fashion_lowres",
    "luma",
    "clothing",
    "jsonl",
    "parquet",
    "csv",
    "xml",
    "webdataset",
)
"""Kinds of sources. TABLES share one importer, which goes by the content of the file."""
TABLES = ("jsonl", "parquet", "csv", "xml")


def import_dataset(
    source: str,
    src: str,
    out: str,
    *,
    name: str | None = None,
    lowres: str | bool = False,
    images: str | None = None,
    currency: str | None = None,
    topics: str | None = None,
    interactions: str | None = None,
    photos_per_shard: int = 1000,
    rules: PhotoRules | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Imports `src`, a source of a kind in SOURCES, as a dataset at `out`.

    Everything unusable is left out and listed with its reason in `rejects`. If an import is killed, the same call
    resumes it; `out` appears only when it is complete. The same input gives the same digest, on any number of CPUs.

    name                   name of the dataset
    lowres                 for `fashion`: the folder of the 60x80 photos, or True for `fashion_lowres` beside `src`
    images                 for tables: the folder of relative photo paths, if it is not the folder of the table
    currency               for tables: the currency of prices that name none
    topics, interactions   tables of exhibitions and of the shoppers' log (`ShopperTables`)
    rules                  which photos are accepted, and from which hosts

    The Ray cluster is the one that this process is connected to, else that of RAY_ADDRESS, else one that runs on this
    machine, else a new one. Every node must be able to read `src` and write `out`.

    Raises ShoplensError if the source is missing or damaged as a whole, if `out` exists and `overwrite` is not set, or
    if no photo can be used.
    """
    rules = rules or PhotoRules()
    if photos_per_shard < 1:
        raise ShoplensError(f"photos_per_shard is {photos_per_shard}: give at least 1")
    opened = _open(source, src, name, lowres, images, currency)
    shoppers = ShopperTables(*(path and _absolute(path) for path in (topics, interactions)))
    inputs = [*opened.inputs, *shoppers.inputs]
    staging = Staging(out, _fingerprint(source, src, inputs, [images, currency], photos_per_shard, rules))
    staging.begin(overwrite)
    with _Bar(disable=not progress) as bar:
        chunks = plan_import(opened, staging, photos_per_shard, bar.rows, shoppers)
        bar.photos(sum(chunks.values()), sum(n for chunk, n in chunks.items() if staging.is_done(chunk)))
        waiting = [chunk for chunk in chunks if not staging.is_done(chunk)]
        if waiting := waiting or reopen_repeated(staging, chunks):
            with _ray():
                while waiting:
                    for chunk in _run(staging, waiting, rules):
                        bar.advance(chunks[chunk])
                    waiting = reopen_repeated(staging, chunks)
    read = told(staging)
    return staging.finish(name or opened.name, {**_provenance(source, src, inputs), "read": read})


def summary(dataset: Dataset) -> str:
    """A report for the terminal: counts, rejects by reason, and the next command."""
    manifest = dataset.manifest
    counts = manifest.counts
    splits = ", ".join(f"{split} {photos:,}" for split, photos in manifest.photos_by_split.items())
    lines = [
        f"{manifest.name}: {counts['products']:,} products, {counts['images']:,} photos ({splits}), "
        f"{counts['categories']:,} categories",
        f"digest {manifest.digest[:12]}, in {dataset.path}",
    ]
    if counts["topics"] or counts["interactions"]:
        lines.insert(1, f"{counts['topics']:,} topics, {counts['interactions']:,} events in the shoppers' log")
    lines += manifest.provenance.get("read", [])
    by_count = sorted(manifest.rejects_by_reason.items(), key=lambda item: (-item[1], item[0]))
    for what, notes in (("kept out", False), ("noted", True)):
        reasons = [(reason, count) for reason, count in by_count if (reason in NOTES) == notes]
        if reasons or not notes:
            total = sum(count for _, count in reasons)
            lines.append(f"{what}: {total:,}" if total else f"{what}: nothing")
        lines += [f"  {reason:<20} {count:>9,}" for reason, count in reasons]
    if by_count:
        lines.append(f"each with its sentence: shoplens dataset rejects {dataset.path}")
    train = "python -m workloads.train workloads/configs/eclip.yaml"
    lines.append(f"next: ray job submit --working-dir . -- {train} dataset={dataset.path}")
    return "\n".join(lines)


def _open(
    source: str, src: str, name: str | None, lowres: str | bool, images: str | None, currency: str | None
) -> Source:
    if lowres and source != "fashion":
        raise ShoplensError(f"lowres is for the source fashion, not {source}: leave out lowres")
    if images and source not in TABLES:
        raise ShoplensError(f"a folder of images is for tables, not for {source}: leave out images")
    if currency and source not in TABLES:
        raise ShoplensError(f"a currency is for tables, not for {source}: leave out currency")
    src = _absolute(src)
    images = _absolute(images) if images else None
    match source:
        case "grocery":
            return Grocery(src)
        case "fashion":
            beside = table_in(os.path.dirname(src.rstrip("/")), "fashion_lowres")
            return Fashion(src, beside if lowres is True else _absolute(lowres) if lowres else None)
        case "fashion_lowres":
            return LowResolution(src)
        case "luma":
            return Luma(src)
        case "clothing":
            return Clothing(src)
        case "jsonl" | "parquet" | "csv" | "xml":
            return Table(src, images, name or "", source, currency)
        case "webdataset":
            return WebDataset(src, name or "")
    raise ShoplensError(f"there is no importer {source!r}; choose one of {', '.join(SOURCES)}")


def _absolute(path: str) -> str:
    """The absolute path. It is resolved here, because nodes of the cluster have other working folders."""
    return path if "://" in path else os.path.abspath(path)


def _fingerprint(
    source: str,
    src: str,
    inputs: Sequence[str],
    options: Sequence[str | None],
    photos_per_shard: int,
    rules: PhotoRules,
) -> dict[str, Any]:
    return {
        "source": source,
        "src": _absolute(src),
        "options": list(options),
        "inputs": {path: _state(path) for path in inputs},
        "photos_per_shard": photos_per_shard,
        "rules": asdict(rules),
        "versions": {"shoplens": version("shoplens"), "pillow": PIL.__version__},
    }


def _state(path: str) -> str:
    """A checksum that changes when the file changes. Raises ShoplensError if the file is missing."""
    fs, inner = fsspec.core.url_to_fs(path)
    try:
        return str(fs.checksum(inner))
    except OSError as error:
        raise ShoplensError(f"{path} is missing: the source needs this file ({error.strerror or error})") from error


def _provenance(source: str, src: str, inputs: Sequence[str]) -> dict[str, Any]:
    provenance: dict[str, Any] = {
        "made_by": f"shoplens dataset import {source}",
        "source": src,
        "inputs": list(inputs),
        "versions": {"shoplens": version("shoplens"), "pillow": PIL.__version__},
    }
    fs, note = fsspec.core.url_to_fs(table_in(src, "SOURCE.md"))
    if fs.exists(note):
        provenance["note"] = fs.cat_file(note).decode(errors="replace")[:20_000]
    return provenance


def _run(staging: Staging, chunks: Sequence[str], rules: PhotoRules) -> Iterator[str]:
    """Writes each chunk in a task, and yields the name of each as it is finished.

    The tasks of the last round decode in several threads, because some CPUs have no task then, or a shorter one.
    """
    write = ray.remote(num_cpus=1)(write_shard)
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    last = len(chunks) % cpus or cpus
    threads = min(cpus, max(2, cpus // last))
    running = {
        write.remote(staging, chunk, rules, decoders=1 if place < len(chunks) - last else threads): chunk
        for place, chunk in enumerate(chunks)
    }
    try:
        while running:
            [done], _ = ray.wait(list(running))
            ray.get(done)
            yield running.pop(done)
    finally:
        for task in running:
            ray.cancel(task)


@contextmanager
def _ray() -> Iterator[None]:
    """A connection to Ray. Closed at the end if it was opened here."""
    connected = ray.is_initialized()
    if not connected:
        _connect()
    try:
        yield
    finally:
        if not connected:
            ray.shutdown()


def _connect() -> None:
    """Connects to the cluster of RAY_ADDRESS, else to one on this machine, else starts one for this process."""
    address = os.environ.get("RAY_ADDRESS")
    if address != "local":
        try:
            ray.init(address=address or "auto", logging_level=logging.WARNING, log_to_driver=False)
            return
        except ConnectionError as error:
            if address:
                raise ShoplensError(
                    f"no Ray cluster answers at RAY_ADDRESS={address}: start it, or unset RAY_ADDRESS"
                ) from error
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(address="local", include_dashboard=False, logging_level=logging.WARNING, log_to_driver=False)


class _Bar:
    """Progress bars for the rows read and the photos done."""

    def __init__(self, disable: bool) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, disable=disable)
        self._rows = self._progress.add_task("rows", total=None, speed="")
        self._photos = self._progress.add_task("photos", total=None, speed="", visible=False)
        self._read = 0

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def rows(self, read: int) -> None:
        self._read = read
        if read % 100 == 0:
            self._progress.update(self._rows, completed=read)

    def photos(self, total: int, done: int) -> None:
        self._started, self._done = time.monotonic(), 0
        self._progress.update(self._rows, total=self._read, completed=self._read)
        self._progress.update(self._photos, total=total, completed=done, visible=True)

    def advance(self, photos: int) -> None:
        self._done += photos
        speed = self._done / max(1e-3, time.monotonic() - self._started)
        self._progress.update(self._photos, advance=photos, speed=f"{speed:,.0f} photos/s")
