"""How fast a curation measures: texts, photos, against data-juicer, and flat cost up to a million texts.

    python benchmarks/curation_rates.py OUT [--records 5000] [--texts 100000 1000000] [--photos 10000 100000]

1. The whole chain of a text (normal form, personal data, profanity, contraction, shares, scripts, language, and the cut) in
   one process, on synthetic titles and queries with planted flaws.
2. Signals of a photo in one process, against decoding the same photos: those of 240 pixels, and copies of 400 and 1,000.
3. The filters that py-data-juicer has too, in one process each: share of signs, share of letters, repetition, e-mail
   addresses, links, IP addresses. shoplens finds all its other signals in the same time. data-juicer lives in an
   environment of its own, which the benchmark makes.
4. Curations of two sizes: seconds a record, which should not grow, and the peak memory of a process.

Duration at the default size on 2 cores: 12 minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import statistics
import subprocess
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from curating import Processes, raw_records, settings
from peers import environment
from PIL import Image

from shoplens.curation.photo.signals import photo_signals
from shoplens.curation.pipeline.curate import curate
from shoplens.curation.pipeline.learned import Models
from shoplens.curation.text.signals import TextRules, cut, text_signals
from shoplens.datasets.images import ImageRejected, decode

DATA_JUICER = (
    "py-data-juicer==1.6.1",
    "datasets",
    "dill==0.3.8",
    "multiprocess==0.70.16",
    "emoji==2.2.0",
    "loguru",
    "jsonargparse[signatures]",
    "jsonlines",
    "lz4",
    "regex",
    "tabulate",
    "tomli",
    "tomli-w",
    "zstandard",
    "beautifulsoup4",
    "soupsieve",
    "mwparserfromhell",
    "dep-logic",
    "gitpython",
    "gitdb",
    "smmap",
    "docstring-parser",
    "typeshed-client",
    "importlib-resources",
    "xxhash",
    "wget",
    "aiohttp",
    "multidict",
    "yarl",
    "frozenlist",
    "aiosignal",
    "attrs",
    "propcache",
    "aiohappyeyeballs",
    "streamlit",
    "uv",
)
T = TypeVar("T")
REPEATS = 3


def rate(work: Callable[[T], object], items: Sequence[T]) -> float:
    """Items a second of processor time; the median of three."""
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        for item in items:
            work(item)
        seconds.append(time.process_time() - start)
    return len(items) / statistics.median(seconds)


def titles_and_queries(raw: Path) -> list[str]:
    titles = pq.read_table(raw / "documents.parquet")["title"].to_pylist()
    return titles + sorted(set(pq.read_table(raw / "clicks.parquet")["query"].to_pylist()))


def photo_files(raw: Path, most: int) -> list[bytes]:
    """Photos that can be decoded."""
    found: list[bytes] = []
    with tarfile.open(raw / "photos-000000.tar") as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is None or len(found) == most:
                continue
            data = file.read()
            try:
                decode(data)
            except ImageRejected:
                continue
            found.append(data)
    return found


def enlarged(data: bytes, side: int) -> bytes:
    file = io.BytesIO()
    decode(data).image.resize((side, side), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


_DATA_JUICER = """
import json, sys, time
from data_juicer.core.data import NestedDataset
from data_juicer.ops import load_ops
texts = json.load(open(sys.argv[1]))
names = ["special_characters_filter", "alphanumeric_filter", "character_repetition_filter",
         "clean_email_mapper", "clean_links_mapper", "clean_ip_mapper"]
ops = load_ops([{name: {"num_proc": 1}} for name in names])
dataset = NestedDataset.from_dict({"text": texts})
for op in ops:  # imports and caches are made first
    op.run(NestedDataset.from_dict({"text": texts[:100]}))
start = time.perf_counter()
for op in ops:
    dataset = op.run(dataset)
print("SECONDS", time.perf_counter() - start)
"""


def data_juicer(texts: Sequence[str], folder: Path) -> float:
    """Texts a second of data-juicer's filters, in one process."""
    python = environment("data-juicer", DATA_JUICER)
    file = folder / "texts.json"
    file.write_text(json.dumps(list(texts)))
    ran = subprocess.run(
        [str(python), "-c", _DATA_JUICER, str(file)], capture_output=True, text=True, check=True, cwd=folder
    )
    seconds = float(ran.stdout.rpartition("SECONDS ")[2])
    return len(texts) / seconds


def grown(raw: Path, out: Path, photos: int, texts: int) -> Path:
    """Tables of so many photos and texts, made of the raw records: rows repeated, each with words of its own."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    seen = pq.read_table(raw / "photos.parquet").to_pylist()
    documents = pq.read_table(raw / "documents.parquet").to_pylist()
    clicks = pq.read_table(raw / "clicks.parquet").to_pylist()
    rows = [
        seen[n % len(seen)] | {"document_id": f"{seen[n % len(seen)]['document_id']}-{n // len(seen)}"}
        for n in range(photos)
    ]
    known = sorted({row["document_id"] for row in rows})
    title = {row["document_id"]: row["title"] for row in documents}
    words = [f"{title[one.rpartition('-')[0]]} {one.rpartition('-')[2]}" for one in known]
    queries = []
    for n in range(texts - len(known)):
        click = clicks[n % len(clicks)]
        times = n // len(clicks)
        document = f"{click['document_id']}-{times % (1 + photos // len(seen))}"
        queries.append(click | {"query": f"{click['query']} {times}", "document_id": document, "image": None})
    pq.write_table(pa.Table.from_pylist(rows), out / "photos.parquet")
    pq.write_table(pa.table({"document_id": known, "title": words}), out / "documents.parquet")
    pq.write_table(pa.Table.from_pylist(queries), out / "clicks.parquet")
    return out


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--records", type=int, default=5000)
    arguments.add_argument("--texts", type=int, nargs=2, default=[100_000, 1_000_000])
    arguments.add_argument("--photos", type=int, nargs=2, default=[10_000, 100_000])
    arguments.add_argument("--processes", type=int, default=2)
    chosen = arguments.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    raw = raw_records(chosen.out / f"raw-{chosen.records}", records=chosen.records)

    texts, rules = titles_and_queries(raw), TextRules()
    for text in texts[:1000]:
        text_signals(text)
    chain = rate(lambda text: cut(text_signals(text), rules), texts)
    print(f"texts: {chain:,.0f} a second and core, {statistics.mean(map(len, texts)):.0f} characters on average")
    small = photo_files(raw, 600)
    photos = {}
    for side in (240, 400, 1000):
        name, files = f"{side} px", small if side == 240 else [enlarged(data, side) for data in small[:150]]
        decoded, measured = rate(decode, files), rate(photo_signals, files)
        whole = rate(lambda data: (hashlib.sha256(data), photo_signals(data)), files)
        photos[name] = {"decoded": decoded, "measured": measured, "ratio": measured / decoded, "with_sha": whole}
        print(f"photos of {name}: {measured:,.0f} a second, {measured / decoded:.2f} of decoding")
    theirs = data_juicer(texts, chosen.out)
    print(
        f"data-juicer: {theirs:,.0f} texts a second, shoplens {chain / theirs:.1f} times as many with all its signals"
    )

    sizes: list[dict[str, Any]] = []
    for n_photos, n_texts in zip(chosen.photos, chosen.texts, strict=True):
        print(f"\n{n_photos:,} photos, {n_texts:,} texts")
        tables = grown(raw, chosen.out / "grown", n_photos, n_texts)
        out = chosen.out / "curated"
        shutil.rmtree(f"{out}.signals", ignore_errors=True)
        do = Processes(chosen.processes)
        start = time.perf_counter()
        paths = {name: f"{tables}/{name}.parquet" for name in ("photos", "documents", "clicks")}
        config = settings(tables, out, raw={**paths, "images": str(raw)})
        curated = curate(config, {}, Models, do, overwrite=True)
        seconds = time.perf_counter() - start
        measuring = do.seconds["measuring photos"]
        sizes.append(
            {
                "photos": n_photos,
                "texts": n_texts,
                "seconds": seconds,
                "ms_a_photo_measured": 1000 * measuring / n_photos,
                "us_a_text_measured": 1e6 * sum(do.seconds[f"measuring {k}"] for k in ("titles", "queries")) / n_texts,
                "ms_a_photo_in_all": 1000 * seconds / n_photos,
                "peak_mb_of_a_worker": do.peak / 2**20,
                "steps": do.seconds,
                "records": curated.steps[4].left,
            }
        )
        print({key: round(value, 2) for key, value in sizes[-1].items() if isinstance(value, float)})
    result = {"texts_a_second": chain, "photos": photos, "data_juicer_a_second": theirs, "sizes": sizes}
    (chosen.out / "curation_rates.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
