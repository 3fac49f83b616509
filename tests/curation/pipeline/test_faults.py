"""What a review found: each a way in which a curation could lose, leak or mix records without a word."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from shoplens.config import ConfigError
from shoplens.curation.pipeline.learned import Models
from shoplens.curation.pipeline.measuring import _place
from shoplens.datasets.format import Dataset
from shoplens.errors import ShoplensError
from tests.curation.pipeline.raw import content, encoded, picture, run, settings, write_raw


def tables(folder: Path, photos: Any, documents: Any, clicks: Any = ()) -> Path:
    """Raw tables of (image, document), (document, title) and (query, document, image, clicks)."""
    folder.mkdir(exist_ok=True)
    rows = {
        "photos": [
            {"image": image, "document_id": document, "position": n} for n, (image, document) in enumerate(photos)
        ],
        "documents": [{"document_id": document, "title": title} for document, title in documents],
        "clicks": [dict(zip(("query", "document_id", "image", "clicks"), row, strict=True)) for row in clicks]
        or [{"query": "", "document_id": "", "image": None, "clicks": 0}],
    }
    for name, of in rows.items():
        pq.write_table(pa.Table.from_pylist(of), folder / f"{name}.parquet")
    return folder


def save(folder: Path, name: str, seed: int, colour: tuple[int, int, int] = (90, 90, 90), **options: Any) -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(encoded(picture(seed, colour), **{"quality": 90, **options}))
    return name


def ledger(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / "ledger.parquet").to_pylist()
    return rows


def test_signals_that_are_made_anew_start_the_dataset_anew(tmp_path: Path) -> None:
    raw, out = write_raw(tmp_path / "raw"), tmp_path / "out"
    config = settings(raw, out)
    shards = 0

    def stop(part: Any) -> None:
        nonlocal shards
        shards += part["what"] == "writing records"
        if shards == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, before=stop)
    shutil.rmtree(config.folder)
    for path in sorted((raw / "files").iterdir())[:12]:
        path.write_bytes(b"gone")
    run(config)
    run(settings(raw, tmp_path / "fresh"))
    assert content(out) == content(tmp_path / "fresh")


def test_a_part_that_a_kill_left_behind_is_passed_over(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", documents=8)
    config = settings(raw, tmp_path / "out")

    def leave(part: Any) -> None:
        if part["what"] == "writing records":
            for folder in Path(config.folder).glob("cuts/*/*.ledger"):
                (folder / "000009.parquet.abc.part").write_bytes(b"half")

    run(config, before=leave)
    assert len(Dataset(tmp_path / "out").images)


def test_no_personal_data_in_ledger_and_report(tmp_path: Path) -> None:
    photos = [(save(tmp_path / "raw", f"{n}.jpg", n), f"d{n}") for n in range(3)]
    documents = [("d0", "가방 010-1234-5678"), ("d9", "문의 010-2222-3333"), ("", "900101-1234568 구두")]
    clicks = [("홍길동 900101-1234568", "", None, 1), ("가방", "d1", None, 2), ("구두", "d2", None, 2)]
    raw, out = tables(tmp_path / "raw", photos, documents, clicks), tmp_path / "out"
    run(settings(raw, out, texts={"title": {"personal_data": "tag"}}))
    texts = " ".join(row["text"] or "" for row in ledger(out)) + (out / "report.html").read_text()
    assert "홍길동 ******-*******" in texts
    assert "문의 ***-****-****" in texts
    assert not any(number in texts for number in ("900101", "010-2222", "1234568"))


def test_clicks_of_copies_in_a_document_add_up(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    photos = [(save(folder, "a.jpg", 1), "d"), (save(folder, "b.jpg", 1, quality=60), "d")]
    raw = tables(folder, photos, [("d", "가방")], [("핸드백", "d", "a.jpg", 5), ("핸드백", "d", "b.jpg", 3)])
    run(settings(raw, tmp_path / "out"))
    assert Dataset(tmp_path / "out").table("queries")["clicks"].to_pylist() == [8]


def red(photos: Sequence[Image.Image]) -> np.ndarray:
    return np.array([float(np.asarray(photo)[:, :, 0].mean() > 150) for photo in photos])


def test_a_query_goes_to_a_photo_that_stays_and_texts_of_dropped_photos_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    photos = [
        (save(folder, "bad.jpg", 1, (220, 60, 60)), "d"),
        (save(folder, "good.jpg", 2, (60, 60, 200)), "d"),
        (save(folder, "alone.jpg", 3, (220, 60, 60)), "e"),
    ]
    raw = tables(folder, photos, [("d", "가방"), ("e", "예쁜 모자")], [("핸드백", "d", None, 50)])
    run(settings(raw, tmp_path / "out", learned={"adult": {"below": 0.5}}), lambda: Models(adult=red))
    found = Dataset(tmp_path / "out").table("queries").to_pylist()
    assert [(row["query"], row["clicks"], row["image_id"]) for row in found] == [("핸드백", 50, "0000000001")]
    assert {(row["text"], row["reason"]) for row in ledger(tmp_path / "out") if row["kind"] == "pair"} == {
        ("가방", "photo_dropped"),
        ("핸드백", "photo_dropped"),
        ("예쁜 모자", "photo_dropped"),
    }


def hashes(dataset: Path) -> set[str]:
    return set(Dataset(dataset).images["sha256"].to_pylist())


def test_another_evaluation_set_at_the_same_place_is_another_rule(tmp_path: Path) -> None:
    raw, evaluation, out = write_raw(tmp_path / "raw", documents=10), tmp_path / "evaluation", tmp_path / "out"
    run(settings(write_raw(tmp_path / "other", documents=3, seed=99), evaluation))
    run(settings(raw, out, held_out=[str(evaluation)]))
    few = {"chosen": {"titles": 5}, "photo": {"short_side": 220}}
    run(settings(raw, evaluation, signals=str(tmp_path / "more"), **few), overwrite=True)
    shared = hashes(out) & hashes(evaluation)
    assert shared
    run(settings(raw, out, held_out=[str(evaluation)], photo={"short_side": 100}), overwrite=True)
    assert hashes(out)
    assert hashes(out).isdisjoint(hashes(evaluation))


def test_held_out_photos_that_no_hash_tells_are_known_by_their_bytes(tmp_path: Path) -> None:
    blank = save_blank(tmp_path / "raw", "blank.jpg")
    rule = {"white": 0.99, "short_side": 100}
    photos = [(blank, "d"), (save(tmp_path / "raw", "a.jpg", 1), "d")]
    raw = tables(tmp_path / "raw", photos, [("d", "가방")], [("핸드백", "d", None, 1)])
    run(settings(raw, tmp_path / "all", photo=rule))
    only = tables(tmp_path / "only", [(save_blank(tmp_path / "only", "x.jpg"), "d")], [("d", "가방")])
    run(settings(only, tmp_path / "evaluation", photo=rule))
    assert len(hashes(tmp_path / "all")) == 2
    run(settings(raw, tmp_path / "out", photo=rule, held_out=[str(tmp_path / "evaluation")]))
    assert len(hashes(tmp_path / "out")) == 1


def save_blank(folder: Path, name: str) -> str:
    """A page with hardly anything on it: 0.95 of it is white."""
    folder.mkdir(exist_ok=True)
    page = Image.new("RGB", (400, 400), "white")
    page.paste((30, 30, 120), (100, 100, 190, 190))
    (folder / name).write_bytes(encoded(page, quality=90))
    return name


def test_a_table_that_breaks_off_is_told_and_may_be_mended(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", documents=6)
    (raw / "clicks.parquet").unlink()
    good = "query,document_id\n" + "".join(f"가방 {n},d{n % 6}\n" for n in range(60_000))
    (raw / "clicks.csv").write_bytes(good.encode() + b"\xff\xfe\xff,d1\n")
    config = settings(raw, tmp_path / "out", parts={"texts": 50_000})
    with pytest.raises(ShoplensError, match=r"cannot be read to its end .*: mend the file"):
        run(config)
    (raw / "clicks.csv").write_text(good)
    run(config)
    assert len(Dataset(tmp_path / "out").images)


def test_ids_stay_as_they_are_written(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    upper = "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"
    raw = tables(folder, [(save(folder, "a.jpg", 1), upper), (save(folder, "b.jpg", 2), "7")], [], [])
    (raw / "documents.parquet").unlink()
    (raw / "clicks.parquet").unlink()
    (raw / "documents.jsonl").write_text(f'{{"document_id": "{upper}", "title": "가방"}}\n')
    (raw / "clicks.csv").write_text("query,document_id,clicks\n구두,7.0,2.0\n모자,7.0,1.5\n")
    run(settings(raw, tmp_path / "out"))
    texts = {(row["image_id"][-1], row["text"]) for row in Dataset(tmp_path / "out").table("image_texts").to_pylist()}
    assert texts == {("0", "가방"), ("1", "구두")}


def test_paths_that_are_patterns_are_refused(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", documents=2)
    with pytest.raises(ConfigError, match="may not have"):
        settings(raw, tmp_path / "out[1]")


def test_urls_may_have_a_tar_in_their_path() -> None:
    place = _place("/data", "https://img.shop.kr/x.tar/1.jpg")
    assert getattr(place, "uri", None) == "https://img.shop.kr/x.tar/1.jpg"
