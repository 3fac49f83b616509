"""Precision and recall of every filter of a curation, on synthetic records whose flaws are known.

    python benchmarks/curation_judged.py OUT [--records 20000] [--seed 11] [--learned 1500] [--watermark PACKAGE]

Each filter is judged against what was planted: of what it dropped, how much had its flaw, and of what had the flaw, how
much it dropped. Intervals are Wilson's, 95 %. Photos with another flaw count as without. --learned takes a sample of the
photos that the rules keep, and judges text boxes by rapidocr and by the detector without weights, and the watermark of a
packaged model; their misses are counted by the kind of flaw.

Duration at the default size on 2 cores: 13 minutes, of which 8 draw the records.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from curating import Processes, raw_records, settings

from shoplens.curation.photo.text_boxes import Morphology, RapidOcr
from shoplens.curation.pipeline.config import BoxesCut
from shoplens.curation.pipeline.curate import curate
from shoplens.curation.pipeline.learned import Models
from shoplens.datasets.format import Dataset
from shoplens.datasets.images import decode
from shoplens.packages.photo_scoring import PhotoScorer

REASONS = {
    "not_an_image": ("format", "unreadable", "empty"),
    "truncated": ("truncated", "unreadable"),
    "blurred": ("sharpness",),
}
"""Flaws of photos whose reason in the ledger has another name."""
SHARPNESS = 25.0


def wilson(hits: int, of: int) -> tuple[float, float, float]:
    """A share and its 95 % interval; NaN of nothing."""
    if not of:
        return math.nan, math.nan, math.nan
    z, p = 1.96, hits / of
    middle = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return p, middle - half, middle + half


def judged(dropped: Collection[Any], flawed: Collection[Any]) -> dict[str, Any]:
    """Precision and recall with intervals, and the counts behind them."""
    both = len(set(dropped) & set(flawed))
    return {
        "precision": wilson(both, len(set(dropped))),
        "recall": wilson(both, len(set(flawed))),
        "dropped": len(set(dropped)),
        "flawed": len(set(flawed)),
    }


def photo_filters(raw: Path, out: Path) -> dict[str, Any]:
    ledger = [row for row in pq.read_table(out / "ledger.parquet").to_pylist() if row["kind"] == "photo"]
    by_reason: dict[str, set[str]] = defaultdict(set)
    for row in ledger:
        by_reason[row["reason"]].add(row["id"])
    truth = pq.read_table(raw / "truth_photos.parquet").to_pylist()
    flaw = {row["image"]: row["flaw"] for row in truth}
    found = {}
    for kind in ("short_side", "aspect", "white", "truncated", "not_an_image", "animated", "blurred", "duplicate"):
        dropped = set.union(*(by_reason[reason] for reason in REASONS.get(kind, (kind,))))
        flawed = {image for image, its in flaw.items() if its == kind}
        if kind == "duplicate":
            # Either of a copy and its original may stay; a copy of a photo with a flaw is one too.
            groups = defaultdict(set)
            for row in truth:
                groups[row["duplicate_of"] or row["image"]].add(row["image"])
            copies = [group for group in groups.values() if len(group) > 1]
            wrong = dropped - set.union(*copies)
            hits = sum(len(group & dropped) for group in copies)
            planted = sum(len(group) - 1 for group in copies)
            found[kind] = {
                "precision": wilson(len(dropped) - len(wrong), len(dropped)),
                "recall": wilson(min(hits, planted), planted),
                "dropped": len(dropped),
                "flawed": planted,
            }
        else:
            also = {image for image in dropped if flaw[image] in (None, "duplicate", kind)}
            found[kind] = judged(also, flawed)
    return found


def text_filters(raw: Path, out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """By reason, and of personal data by kind."""
    ledger = pq.read_table(out / "ledger.parquet").to_pylist()
    numbers = {
        kind: dict(enumerate(pq.read_table(f"{out}.signals/{table}.parquet")[column].to_pylist()))
        for kind, table, column in (("title", "documents", "document_id"), ("query", "queries", "text"))
    }
    dropped: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for row in ledger:
        if row["stage"] == "tables" and row["kind"] == "click" and not row["text"]:
            dropped["empty"].add(("query", ""))  # a click without a query is no row at all
        if row["stage"] == "text":
            item = (row["kind"], numbers[row["kind"]][row["number"]])
            dropped[row["reason"]].add(item)
            if row["reason"] == "personal_data":
                dropped[f"personal_data: {row['detail']}"].add(item)
    truth = {(row["kind"], row["id"]): row for row in pq.read_table(raw / "truth_texts.parquet").to_pylist()}
    found, kinds = {}, {}
    for reason in ("personal_data", "offensive", "characters", "script", "noise", "language", "empty"):
        flawed = {item for item, row in truth.items() if row["flaw"] == reason and row["dropped"]}
        # English texts have the flaw "characters", and no wrong language.
        others = {reason, "characters"} if reason == "language" else {reason}
        clean = {item for item, row in truth.items() if row["flaw"] in (None, "repetition", *others)}
        found[reason] = judged(dropped[reason] & clean, flawed)
    details = sorted({row["detail"] for row in truth.values() if row["flaw"] == "personal_data" and row["dropped"]})
    for detail in details:
        flawed = {item for item, row in truth.items() if row["detail"] == detail and row["dropped"]}
        hits = len(flawed & dropped["personal_data"])
        kinds[detail] = {"recall": wilson(hits, len(flawed)), "flawed": len(flawed)}
    return found, kinds


def learned_filters(raw: Path, dataset: Dataset, most: int, watermark: str | None) -> dict[str, Any]:
    """Text boxes and watermarks of at most `most` kept photos, half of them with such a flaw."""
    truth = {row["image"]: row for row in pq.read_table(raw / "truth_photos.parquet").to_pylist()}
    images = pq.read_table(f"{dataset.path}.signals/photos.parquet", columns=["image"])["image"].to_pylist()
    rows = list(enumerate(dataset.images["image_id"].to_pylist()))
    flaws = {sample: truth[images[int(image)]] for sample, image in rows}
    chosen: list[int] = []
    for kind, share in (("watermark", 0.25), ("text_boxes", 0.25), (None, 0.5)):
        chosen += [sample for sample, row in flaws.items() if row["flaw"] == kind][: int(most * share)]
    limits = BoxesCut()
    judges: dict[str, tuple[str, Callable[[Any], bool]]] = {}
    for detector in (RapidOcr(), Morphology()):

        def many(image: Any, detector: Any = detector) -> bool:
            boxes = detector.detect(image)
            return bool(boxes.boxes > limits.most or boxes.union > limits.area)

        judges[f"text_boxes ({detector.name})"] = ("text_boxes", many)
    if watermark:
        scorer = PhotoScorer(watermark)
        judges["watermark"] = ("watermark", lambda image: bool(scorer([image])[0] >= 0.9))
    found = {}
    for name, (kind, judge) in judges.items():
        said = {sample: judge(decode(dataset.read_image(sample)).image) for sample in chosen}
        dropped = {sample for sample, drop in said.items() if drop and flaws[sample]["flaw"] in (None, kind)}
        flawed = {sample for sample in chosen if flaws[sample]["flaw"] == kind}
        missed = Counter(flaws[sample]["detail"] for sample in flawed - dropped)
        planted = Counter(flaws[sample]["detail"] for sample in flawed)
        found[name] = judged(dropped, flawed) | {
            "missed": {detail: f"{missed[detail]} of {count}" for detail, count in sorted(planted.items())}
        }
    return found


def rows(found: dict[str, Any]) -> Iterable[str]:
    for name, one in found.items():
        cells = [
            "" if name_ not in one else "{:.3f} ({:.3f} to {:.3f})".format(*one[name_])
            for name_ in ("precision", "recall")
        ]
        yield f"| {name} | {one['flawed']:,} | {one.get('dropped', '')} | {cells[0]} | {cells[1]} |"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--records", type=int, default=20_000)
    arguments.add_argument("--seed", type=int, default=11)
    arguments.add_argument("--learned", type=int, default=1500)
    arguments.add_argument("--watermark")
    chosen = arguments.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    raw = raw_records(chosen.out / f"raw-{chosen.records}-{chosen.seed}", records=chosen.records, seed=chosen.seed)
    out = chosen.out / f"curated-{chosen.records}-{chosen.seed}"
    photo = {"animated": False, "sharpness": SHARPNESS}
    curate(settings(raw, out, photo=photo), {}, Models, Processes(2), overwrite=True)
    texts, kinds = text_filters(raw, out)
    found = {"photos": photo_filters(raw, out), "texts": texts, "personal data": kinds}
    if chosen.learned:
        found["learned"] = learned_filters(raw, Dataset(out), chosen.learned, chosen.watermark)
    for title, one in found.items():
        print(f"\n{title}\n\n| flaw | planted | dropped | precision | recall |\n| --- | --- | --- | --- | --- |")
        print("\n".join(rows(one)))
    for name, one in found.get("learned", {}).items():
        print(f"{name} missed: {one['missed']}")
    result = {"records": chosen.records, "seed": chosen.seed, "found": found}
    (chosen.out / "curation_judged.json").write_text(json.dumps(result, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
