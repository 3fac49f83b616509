"""The rules for photos and texts, applied to what was measured. They may change without measuring again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shoplens.curation.photo.signals import PhotoCut, verdicts
from shoplens.curation.pipeline import ledger
from shoplens.curation.pipeline.files import part, write_table
from shoplens.curation.pipeline.measuring import stored_photo, stored_texts
from shoplens.curation.text.personal_data.detection import masked
from shoplens.curation.text.signals import TextRules, cut
from shoplens.curation.verdict import Verdict

PHOTOS = pa.schema([("number", pa.int64())])
TEXTS = pa.schema([("number", pa.int64()), ("raw", pa.string()), ("text", pa.string())])


def cut_photos(rules: PhotoCut, signals: Path, out: Path, number: int) -> int:
    """Writes the photos of a part that are kept, and the ledger of the others, unless it is done. Returns the rows.

    signals   folder with the measured parts
    """
    path = part(out / "photos", number)
    measured = pq.read_table(part(signals / "photos", number)).to_pylist()
    if path.exists():
        return len(measured)
    span = [("number", ">=", measured[0]["number"]), ("number", "<=", measured[-1]["number"])]
    group = {row["number"]: row for row in pq.read_table(out / "groups.parquet", filters=span).to_pylist()}
    kept: list[dict[str, Any]] = []
    dropped: list[dict[str, Any]] = []
    for row in measured:
        if found := _against(row, group.get(row["number"]), rules):
            about = {"id": row["image"], "number": row["number"], "document_id": row["document_id"]}
            dropped += ledger.rows(found, kind="photo", stage="photo", **about)
        else:
            kept.append({"number": row["number"]})
    write_table(part(out / "photos.ledger", number), dropped, ledger.LEDGER)
    write_table(path, kept, PHOTOS)
    return len(measured)


def _against(row: Mapping[str, Any], group: Mapping[str, Any] | None, rules: PhotoCut) -> list[Verdict]:
    if row["fault"] is not None:
        return [Verdict(row["fault"], 0, 1, row["sentence"])]
    assert group is not None
    found = list(verdicts(stored_photo(row), rules))
    if group["kept"] != row["number"]:
        found.append(Verdict("duplicate", group["distance"], 0, f"of photo {group['kept']}"))
    if group["held_out"]:
        found.append(Verdict("held_out", 1, 1))
    return found


def cut_texts(rules: TextRules, noise: re.Pattern[str], kind: str, signals: Path, out: Path, number: int) -> int:
    """Writes the texts of a part that are kept, and the ledger of the others, unless it is done. Returns the rows.

    noise     finds noise words
    kind      `title` or `query`
    signals   folder with the measured parts
    """
    path = part(out, number)
    measured = pq.read_table(part(signals, number))
    if path.exists():
        return len(measured)
    kept: list[tuple[int, str, str]] = []
    dropped: list[dict[str, Any]] = []
    for row, raw, text in stored_texts(measured):
        decided = cut(text, rules, noise)
        if decided.text is not None:
            kept.append((row, raw, decided.text))
        else:
            hidden = masked(text.text, text.personal)
            dropped += ledger.rows(decided.verdicts, kind=kind, stage="text", number=row, text=hidden)
    write_table(out.with_name(f"{out.name}.ledger") / path.name, dropped, ledger.LEDGER)
    columns = [pa.array([row[place] for row in kept], field.type) for place, field in enumerate(TEXTS)]
    write_table(path, pa.table(columns, TEXTS), TEXTS)
    return len(measured)
