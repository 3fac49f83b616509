"""Writing of raw records in parallel processes: tars of photos, tables, and tables of the truth."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shoplens.errors import ShoplensError
from shoplens.synthetic.processes import in_parallel
from shoplens.synthetic.raw_records import texts
from shoplens.synthetic.raw_records.photo_files import photo_files
from shoplens.synthetic.raw_records.plan import DOCUMENT, Plan, plan_of, stream, tar_name
from shoplens.synthetic.raw_records.settings import RawRecords
from shoplens.synthetic.raw_records.text_flaws import Text, useless

DOCUMENTS_PER_PART = 2000
MOST_CLICKS = 50_000
_ZIPF = 1.9
"""Exponent of the numbers of clicks."""
_CLICKED_PHOTO = 0.2
"""Share of clicks of which the photo is known."""

TABLES = {
    "photos": pa.schema(
        [("image", pa.string()), ("document_id", pa.string()), ("position", pa.int64()), ("url", pa.string())]
    ),
    "documents": pa.schema([("document_id", pa.string()), ("title", pa.string()), ("source", pa.string())]),
    "clicks": pa.schema(
        [("query", pa.string()), ("document_id", pa.string()), ("image", pa.string()), ("clicks", pa.int64())]
    ),
    "truth_photos": pa.schema(
        [
            ("image", pa.string()),
            ("flaw", pa.string()),
            ("duplicate_of", pa.string()),
            ("product", pa.int64()),
            ("detail", pa.string()),
            ("boxes", pa.int64()),
            ("boxes_area", pa.float64()),
        ]
    ),
    "truth_texts": pa.schema(
        [
            ("kind", pa.string()),
            ("id", pa.string()),
            ("flaw", pa.string()),
            ("detail", pa.string()),
            ("dropped", pa.bool_()),
        ]
    ),
    "truth_pairs": pa.schema(
        [("document_id", pa.string()), ("image", pa.string()), ("query", pa.string()), ("match", pa.bool_())]
    ),
}
"""The tables, each NAME.parquet.

photos        `image` is a path that goes through a tar; `position` in the document from 0
clicks        `image` is null if only the document is known
truth_photos  `flaw`: one of `plan.PHOTO_FLAWS`, `duplicate`, or null; `product`: number of the product, null if there is no
              picture; `boxes`, `boxes_area`: lines of text that were drawn, and the share of the photo that they cover
truth_texts   `kind`: title or query; `id`: the document, or the query itself; `flaw`, `detail`, `dropped`: see `text_flaws.Text`
truth_pairs   `image` is set if the pair is a photo and its document's title, `query` if it is a query and the document's
              photos; `match`: whether both are about the same product
"""


class Made(NamedTuple):
    """What was written: documents, photos, clicks (rows), and bytes of all files."""

    documents: int
    photos: int
    clicks: int
    bytes: int


def synthesize_raw(
    out: str | os.PathLike[str],
    settings: RawRecords | None = None,
    *,
    workers: int | None = None,
    progress: bool = True,
    overwrite: bool = False,
) -> Made:
    """Makes raw records in folder `out`. Equal settings give equal bytes, with any number of workers.

    workers   processes to spawn; default: the number of CPUs. 1 works in this process

    The folder appears when it is complete; until then it is OUT.partial, which is removed first if it exists.
    Raises ShoplensError if `out` exists and `overwrite` is not set, or if a worker process dies.
    """
    settings = settings or RawRecords()
    final = Path(out)
    if final.exists() and not overwrite:
        raise ShoplensError(f"{final} exists: choose another folder, or replace it with --overwrite")
    unfinished = final.with_name(f"{final.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "parts").mkdir(parents=True)
    plan = plan_of(settings)
    parts = -(-settings.records // DOCUMENTS_PER_PART)
    tasks = [partial(_write_tar, str(unfinished), settings, tar) for tar in range(plan.tars)]
    tasks += [partial(_write_texts, str(unfinished), settings, part) for part in range(parts)]
    with Progress(
        TextColumn("drawing the records"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("photos"),
        TimeRemainingColumn(),
        disable=not progress,
    ) as bar:
        task = bar.add_task("", total=plan.photos)
        for photos in in_parallel(tasks, min(workers or os.cpu_count() or 1, len(tasks)), "the records"):
            bar.advance(task, photos)
    counts = {
        "photos": _merge(unfinished, "photos", plan.tars),
        "truth_photos": _merge(unfinished, "truth_photos", plan.tars),
        "documents": _merge(unfinished, "documents", parts),
        "clicks": _merge(unfinished, "clicks", parts),
        "truth_texts": _merge(unfinished, "truth_texts", parts, distinct=True),
        "truth_pairs": _merge(unfinished, "truth_pairs", parts),
    }
    shutil.rmtree(unfinished / "parts")
    size = sum(file.stat().st_size for file in unfinished.iterdir())
    if final.exists():
        shutil.rmtree(final)
    unfinished.rename(final)
    return Made(counts["documents"], counts["photos"], counts["clicks"], size)


def _write_part(folder: str, table: str, number: int, rows: list[dict[str, Any]]) -> None:
    made = pa.Table.from_pylist(rows, schema=TABLES[table])
    pq.write_table(made, f"{folder}/parts/{table}-{number:06d}.parquet")


def _merge(folder: Path, table: str, parts: int, distinct: bool = False) -> int:
    """Joins the parts of a table and returns its rows. `distinct`: of equal rows the first stays."""
    rows, seen = 0, set()
    with pq.ParquetWriter(folder / f"{table}.parquet", TABLES[table], compression="zstd") as writer:
        for number in range(parts):
            part = pq.read_table(folder / "parts" / f"{table}-{number:06d}.parquet")
            if distinct:
                keep = []
                for key in zip(part["kind"].to_pylist(), part["id"].to_pylist(), strict=True):
                    keep.append(key not in seen)
                    seen.add(key)
                part = part.filter(pa.array(keep, pa.bool_()))
            writer.write_table(part)
            rows += part.num_rows
    return rows


def _write_tar(folder: str, settings: RawRecords, tar: int) -> int:
    """Writes a tar and the rows of its photos. Returns the number of photos."""
    plan = plan_of(settings)
    photos = plan.in_tar(tar)
    files = dict(photo_files(plan, photos))
    rows, truth = [], []
    with tarfile.open(f"{folder}/{tar_name(tar)}", "w", format=tarfile.USTAR_FORMAT) as archive:
        for photo in photos:
            made, document, flaw = files[photo], int(plan.document[photo]), plan.flaw_of(photo)
            member = tarfile.TarInfo(plan.member(photo))
            member.size = len(made.data)
            archive.addfile(member, io.BytesIO(made.data))
            original = int(plan.original[photo])
            rows.append(
                {
                    "image": plan.image(photo),
                    "document_id": plan.document_id(document),
                    "position": photo - int(plan.first_photo[document]),
                    "url": f"https://img.example.com/{plan.document_id(document)}/{plan.member(photo)}",
                }
            )
            truth.append(
                {
                    "image": plan.image(photo),
                    "flaw": flaw,
                    "duplicate_of": plan.image(original) if original >= 0 else None,
                    "product": None if flaw == "not_an_image" else int(plan.shown[document]),
                    "detail": made.detail,
                    "boxes": made.boxes,
                    "boxes_area": made.boxes_area,
                }
            )
    _write_part(folder, "photos", tar, rows)
    _write_part(folder, "truth_photos", tar, truth)
    return len(photos)


def _write_texts(folder: str, settings: RawRecords, part: int) -> int:
    """Writes the titles and queries of a range of documents. Returns 0: it makes no photo."""
    plan = plan_of(settings)
    rows: dict[str, list[dict[str, Any]]] = {
        table: [] for table in ("documents", "clicks", "truth_texts", "truth_pairs")
    }
    documents = range(part * DOCUMENTS_PER_PART, min((part + 1) * DOCUMENTS_PER_PART, settings.records))
    for document in documents:
        _add_document(plan, document, rows)
    for table, made in rows.items():
        _write_part(folder, table, part, made)
    return 0


def _add_document(plan: Plan, document: int, rows: dict[str, list[dict[str, Any]]]) -> None:
    settings = plan.settings
    rng = stream(settings.seed, DOCUMENT, document)
    document_id, photos = plan.document_id(document), plan.photos_of(document)
    titled, shown = int(plan.titled[document]), int(plan.shown[document])
    source = str(rng.choice(list(texts.SOURCES), p=list(texts.SOURCES.values())))
    title = texts.title(plan.products.design(titled), source, settings, rng)
    rows["documents"].append({"document_id": document_id, "title": title.text, "source": source})
    rows["truth_texts"].append(_truth("title", document_id, title))
    for photo in photos:
        match = titled == shown and title.about and plan.flaw_of(photo) != "not_an_image"
        rows["truth_pairs"].append(
            {"document_id": document_id, "image": plan.image(photo), "query": None, "match": match}
        )
    asked: set[str] = set()
    for query, match, clicked in _queries(plan, document, shown, rng):
        if query.text in asked:
            continue
        asked.add(query.text)
        if clicked is None and rng.random() < _CLICKED_PHOTO:
            clicked = photos[int(rng.integers(len(photos)))]
        rows["clicks"].append(
            {
                "query": query.text,
                "document_id": document_id,
                "image": None if clicked is None else plan.image(clicked),
                "clicks": min(int(rng.zipf(_ZIPF)), MOST_CLICKS),
            }
        )
        rows["truth_texts"].append(_truth("query", query.text, query))
        rows["truth_pairs"].append({"document_id": document_id, "image": None, "query": query.text, "match": match})


def _queries(
    plan: Plan, document: int, shown: int, rng: np.random.Generator
) -> Iterator[tuple[Text, bool, int | None]]:
    """(query, whether it asks for what the photos show, the photo that was clicked if that is fixed) of a document."""
    settings = plan.settings
    if rng.random() < settings.skew:
        yield Text(texts.POPULAR), True, None
    for _ in range(int(rng.poisson(settings.queries))):
        wrong = rng.random() < settings.mismatched_queries
        product = int(plan.products.another(np.array([shown]), rng)[0]) if wrong else shown
        query = texts.query(plan.products.design(product), settings, rng)
        yield query, query.about and not wrong, None
    if settings.useless_queries and rng.random() < settings.useless_queries:
        yield useless(rng), False, None
    if plan.star is not None and plan.document[plan.star] == document:
        count = int(settings.skew * settings.records)
        for query in texts.many_queries(plan.products.design(shown), count, rng):
            yield query, True, plan.star


def _truth(kind: str, number: str, text: Text) -> dict[str, Any]:
    return {"kind": kind, "id": number, "flaw": text.flaw, "detail": text.detail, "dropped": text.dropped}
