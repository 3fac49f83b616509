"""What is wrong with tables, photos and settings is told in a sentence, and leaves nothing half-written."""

from __future__ import annotations

import http.server
import threading
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shoplens.config import ConfigError
from shoplens.curation.pipeline.files import aside
from shoplens.datasets.format import Dataset
from shoplens.errors import ShoplensError
from tests.curation.pipeline.raw import encoded, picture, run, settings, write_raw


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_raw(tmp_path / "raw", documents=8)


def told(raw: Path, out: Path, **more: Any) -> str:
    with pytest.raises(ShoplensError) as error:
        run(settings(raw, out, **more))
    assert not out.exists()
    return str(error.value)


def test_a_table_that_is_missing(raw: Path, tmp_path: Path) -> None:
    config = settings(raw, tmp_path / "out")
    (raw / "documents.parquet").unlink()
    with pytest.raises(ShoplensError, match=r"the table .*documents\.parquet is missing"):
        run(config)
    with pytest.raises(ConfigError, match="raw.documents"):
        settings(raw, tmp_path / "out")


def test_a_column_that_is_missing_has_near_names(raw: Path, tmp_path: Path) -> None:
    table = pq.read_table(raw / "documents.parquet")
    pq.write_table(table.rename_columns(["doc_id", "title", "source"]), raw / "documents.parquet")
    assert "has no column document_id; it has doc_id, title, source; did you mean doc_id" in told(raw, tmp_path / "out")


def test_a_table_that_cannot_be_read(raw: Path, tmp_path: Path) -> None:
    (raw / "clicks.parquet").write_bytes(b"PAR1 and no more")
    assert "clicks.parquet cannot be read" in told(raw, tmp_path / "out")


def test_settings_that_do_not_exist_or_do_not_fit(raw: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean short_side"):
        settings(raw, raw / "out", photo={"shortside": 3})
    with pytest.raises(ConfigError, match="set boxes too"):
        settings(raw, raw / "out", learned={"score": {"model": "m", "masked": True}})


def test_rules_that_keep_nothing(raw: Path, tmp_path: Path) -> None:
    sentence = told(raw, tmp_path / "out", photo={"short_side": 5000})
    assert "no record is left of the photos (dropped: short_side" in sentence


def test_a_dataset_that_is_there_stays(raw: Path, tmp_path: Path) -> None:
    run(settings(raw, tmp_path / "out"))
    digest = Dataset(tmp_path / "out").digest
    with pytest.raises(ShoplensError, match="exists already: choose another folder, or pass --overwrite"):
        run(settings(raw, tmp_path / "out", photo={"white": 0.5}))
    assert Dataset(tmp_path / "out").digest == digest
    run(settings(raw, tmp_path / "out", photo={"short_side": 210}), overwrite=True)
    assert Dataset(tmp_path / "out").digest != digest


def test_signals_of_other_tables_are_refused(raw: Path, tmp_path: Path) -> None:
    signals = str(tmp_path / "signals")
    run(settings(raw, tmp_path / "out", signals=signals))
    other = write_raw(tmp_path / "other", documents=5)
    assert "holds the signals of other settings, tables: set signals=" in told(other, tmp_path / "b", signals=signals)


def test_photos_that_cannot_be_had_are_in_the_ledger(raw: Path, tmp_path: Path) -> None:
    rows = pq.read_table(raw / "photos.parquet").to_pylist()
    (raw / "page.jpg").write_bytes(b"<!DOCTYPE html><html>")
    (tmp_path / "secret.jpg").write_bytes(encoded(picture(99, (9, 9, 9))))
    images = ["../secret.jpg", "gone.jpg", "archive.tar/gone.jpg", "page.jpg", "", "none.tar/1.jpg"]
    rows += [{"image": image, "document_id": "d0", "position": 9} for image in images]
    pq.write_table(pa.Table.from_pylist(rows), raw / "photos.parquet")
    run(settings(raw, tmp_path / "out"))
    ledger = pq.read_table(tmp_path / "out/ledger.parquet").to_pylist()
    reason = {row["id"]: row["reason"] for row in ledger if row["id"] in images}
    assert reason == {
        "../secret.jpg": "outside_source",
        "gone.jpg": "missing_file",
        "archive.tar/gone.jpg": "missing_file",
        "page.jpg": "format",
        "": "invalid_row",
        "none.tar/1.jpg": "broken_shard",
    }


def test_ids_have_one_form_in_all_tables(tmp_path: Path) -> None:
    """Floats of pandas, blanks, and letters that a Mac decomposes, in CSV, JSON lines and Parquet."""
    raw = write_raw(tmp_path / "raw", documents=3)
    for name in ("photos", "documents", "clicks"):
        (raw / f"{name}.parquet").unlink()
    accented = ["é", unicodedata.normalize("NFD", "é")]
    (raw / "a.jpg").write_bytes(encoded(picture(1, (90, 90, 90))))
    (raw / "b.jpg").write_bytes(encoded(picture(2, (90, 90, 90))))
    photos = pa.table({"image": ["a.jpg", "b.jpg"], "document_id": [7.0, 8.5]})
    pq.write_table(photos, raw / "photos.parquet")
    (raw / "documents.csv").write_text("document_id,title\n7,파란 가방\n 8.5 ,빨간 가방\n")
    (raw / "clicks.jsonl").write_text('{"query": "가방", "document_id": 7}\n{"query": "구두", "document_id": "8.5"}\n')
    run(settings(raw, tmp_path / "out", chosen={"of_documents": "all"}))
    texts = Dataset(tmp_path / "out").table("image_texts").to_pylist()
    assert {(row["image_id"][-1], row["text"]) for row in texts} == {
        ("0", "파란 가방"),
        ("0", "가방"),
        ("1", "빨간 가방"),
        ("1", "구두"),
    }
    pq.write_table(pa.table({"image": ["a.jpg"], "document_id": [accented[1]]}), raw / "photos.parquet")
    (raw / "documents.csv").write_text(f"document_id,title\n{accented[0]},파란 가방\n")
    run(settings(raw, tmp_path / "second"))
    assert len(Dataset(tmp_path / "second").images) == 1


@pytest.fixture
def host() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            number = self.path.strip("/").removesuffix(".jpg")
            good = number.isdigit()
            body = encoded(picture(int(number), (90, 90, 90))) if good else b""
            self.send_response(200 if good else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_photos_from_urls_are_kept_as_they_were_measured(host: str, tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", documents=1)
    images = [f"{host}/{number}.jpg" for number in range(100, 112)] + [f"{host}/no.jpg", "http://10.0.0.1/1.jpg"]
    pq.write_table(
        pa.Table.from_pylist([{"image": image, "document_id": "d0"} for image in images]), raw / "photos.parquet"
    )
    hosts = {"allow_hosts": ["127.0.0.1"], "allow_private": True, "attempts": 1}
    out = tmp_path / "out"
    run(settings(raw, out, fetching=hosts, chosen={"of_documents": "all"}))
    dataset = Dataset(out)
    assert len(dataset.images) == 12
    assert encoded(picture(103, (90, 90, 90))) in {dataset.read_image(sample) for sample in range(12)}
    ledger = pq.read_table(out / "ledger.parquet").to_pylist()
    assert {row["id"]: row["reason"] for row in ledger if row["kind"] == "photo"} == {
        f"{host}/no.jpg": "url_status",
        "http://10.0.0.1/1.jpg": "url_host",
    }
    refused = tmp_path / "refused"
    with pytest.raises(ShoplensError, match=r"no record is left of the photos \(dropped: url_private 14"):
        run(settings(raw, refused, signals=str(tmp_path / "more"), fetching={"attempts": 1}))


def test_a_photo_that_changed_since_it_was_measured(raw: Path, tmp_path: Path) -> None:
    config = settings(raw, tmp_path / "out")

    def change(part: Any) -> None:
        if part["what"] == "writing records":
            for path in (raw / "files").iterdir():
                path.write_bytes(path.read_bytes() + b"!")

    with pytest.raises(ShoplensError, match="has changed since it was measured"):
        run(config, before=change)
    assert not (tmp_path / "out").exists()


def test_what_fails_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> None:
        with aside(tmp_path / "part.parquet") as file:
            file.write_bytes(b"half")
            raise OSError(28, "the disk is full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert list(tmp_path.iterdir()) == []
