"""What each filter of a curation drops of real catalogues, whose photos and titles are mostly good.

    python benchmarks/false_alarms.py OUT DATASET... [--photos 1000] [--watermark PACKAGE] [--short-side 150]

Every photo and title of an imported dataset goes through the rules with their defaults; --photos of them, spread evenly,
also through text boxes (rapidocr), adult content and the watermark of a packaged model. Most of what is dropped is a false
alarm, or a rule that does not fit this shop; look at `OUT/NAME/report.html` and at the texts that are printed.
--short-side lets small photos of old datasets pass, so that the other rules are seen.

Duration for fashion, grocery and luma with 1,000 photos each on 2 cores: 10 minutes.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from curating import Processes, settings

from shoplens.curation.photo.adult import AdultScore
from shoplens.curation.photo.text_boxes import RapidOcr
from shoplens.curation.pipeline.curate import curate
from shoplens.curation.pipeline.learned import Models
from shoplens.datasets.format import Dataset
from shoplens.packages.photo_scoring import PhotoScorer

EXAMPLES = 6
ENGLISH = {"title": {"latin": "lone_letters"}}
"""The catalogues are English: the rule for Latin letters would drop every title."""


def raw_tables(dataset: Dataset, out: Path, photos: int) -> Path:
    """Tables of the dataset's photos and titles. The photos stay in its shards."""
    out.mkdir(parents=True, exist_ok=True)
    images = dataset.images.to_pylist()
    chosen = np.unique(np.linspace(0, len(images) - 1, photos).astype(int))
    rows = [
        {
            "image": f"shards/{images[n]['shard']}/{images[n]['image_id']}.{images[n]['format']}",
            "document_id": images[n]["product_id"],
        }
        for n in chosen
    ]
    pq.write_table(pa.Table.from_pylist(rows), out / "photos.parquet")
    products = dataset.products
    pq.write_table(
        pa.table({"document_id": products["product_id"], "title": products["title"]}), out / "documents.parquet"
    )
    return out


def models(watermark: str | None) -> Models:
    return Models(boxes=RapidOcr(), adult=AdultScore().score, watermark=PhotoScorer(watermark) if watermark else None)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("datasets", nargs="+")
    arguments.add_argument("--photos", type=int, default=1000)
    arguments.add_argument("--watermark")
    arguments.add_argument("--short-side", type=int, default=150)
    chosen = arguments.parse_args()
    do, found = Processes(2), {}
    for path in chosen.datasets:
        dataset = Dataset(path)
        folder = chosen.out / dataset.name
        raw = raw_tables(dataset, folder / "raw", chosen.photos)
        learned: dict[str, Any] = {"boxes": {"detector": "rapidocr"}, "adult": {}}
        if chosen.watermark:
            learned["watermark"] = {"model": "watermarks"}
        photo = {"short_side": chosen.short_side}
        tables = {name: f"{raw}/{name}.parquet" for name in ("photos", "documents")}
        tables["images"] = dataset.path
        config = settings(raw, folder / "kept", raw=tables, photo=photo, learned=learned, texts=ENGLISH)
        curated = curate(
            config, {"watermark": str(chosen.watermark)}, partial(models, chosen.watermark), do, overwrite=True
        )
        ledger = pq.read_table(folder / "kept/ledger.parquet").to_pylist()
        counts: Counter[str] = Counter()
        texts: dict[str, list[str]] = defaultdict(list)
        for row in ledger:
            name = f"{row['kind']} {row['reason']}" + (f": {row['detail']}" if row["stage"] == "text" else "")
            counts[name] += 1
            if row["text"] and len(texts[name]) < EXAMPLES:
                texts[name].append(row["text"])
        left = {step.title: step.left for step in curated.steps}
        print(f"\n{dataset.name}: {left['photos']:,} photos, {left['titles']:,} titles")
        for name, count in counts.most_common():
            of = left["photos"] if name.startswith("photo") else left["titles"]
            print(f"  {name:<34} {count:>6,}  {100 * count / of:5.1f} %  {' | '.join(texts[name])[:150]}")
        found[dataset.name] = {"left": left, "dropped": counts, "texts": texts}
    (chosen.out / "false_alarms.json").write_text(json.dumps(found, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
