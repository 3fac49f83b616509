"""A curation as a whole: against a plain reference, in any order of its parts, cut off and resumed, with other rules."""

from __future__ import annotations

import json
import tarfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset

from shoplens.curation.image_text import ImageText
from shoplens.curation.near_duplicates import near_photos
from shoplens.curation.photo.text_boxes import Morphology
from shoplens.curation.pipeline.learned import Models
from shoplens.datasets.format import Dataset
from shoplens.datasets.images import ImageRejected, decode, perceptual_hash
from tests.curation.pipeline.raw import ColourScorer, content, run, settings, write_raw

SCORE = {"score": {"model": "colours", "scale": "raw", "at_least": 0.8, "background": 16}}


def scoring() -> Models:
    return Models(scorer=ColourScorer())


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raw(tmp_path_factory.mktemp("raw") / "raw")


@pytest.fixture(scope="module")
def curated(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("curated") / "out"
    run(settings(raw, out, learned=SCORE), scoring)
    return out


def bytes_of(raw: Path, image: str) -> bytes:
    archive, tar, member = image.partition(".tar/")
    if not tar:
        return (raw / image).read_bytes()
    with tarfile.open(raw / f"{archive}.tar") as opened:
        file = opened.extractfile(member)
        assert file is not None
        return file.read()


def reference(raw: Path) -> dict[int, tuple[set[str], dict[str, int]]]:
    """Titles and queries with clicks of each photo that stays, by loops over the raw tables."""
    photos = pq.read_table(raw / "photos.parquet").to_pylist()
    titles = {row["document_id"]: row["title"] for row in pq.read_table(raw / "documents.parquet").to_pylist()}
    clicks = pq.read_table(raw / "clicks.parquet").to_pylist()
    pictures: dict[int, Any] = {}
    for number, photo in enumerate(photos):
        try:
            pictures[number] = decode(bytes_of(raw, photo["image"]))
        except ImageRejected:
            continue
    hashes = {number: perceptual_hash(one.image) for number, one in pictures.items()}
    order = sorted(hashes)
    kept_of = {number: number for number in order}
    links = near_photos(np.array([hashes[number] for number in order], np.uint64), 4).pairs
    for a, b in links:
        first, second = kept_of[order[a]], kept_of[order[b]]
        for number, kept in kept_of.items():
            if kept in (first, second):
                kept_of[number] = min(first, second)
    size = {n: (-one.width * one.height, -len(bytes_of(raw, photos[n]["image"])), n) for n, one in pictures.items()}
    stands = {
        kept: min((n for n in order if kept_of[n] == kept), key=size.__getitem__) for kept in set(kept_of.values())
    }
    of = {n: stands[kept_of[n]] for n in order}
    of = {n: kept for n, kept in of.items() if min(pictures[kept].width, pictures[kept].height) >= 200}

    def usable(text: str) -> bool:
        return not any(word in text for word in ("010-", "로또", "ㅅㅂ"))

    score = ColourScorer()
    vector = {n: score.encode_photos([one.image])[0] for n, one in pictures.items()}

    def fit(number: int, text: str) -> float:
        return float(vector[number] @ score.encode_texts([text])[0])

    found: dict[int, tuple[set[str], dict[str, int]]] = {n: (set(), defaultdict(int)) for n in of.values()}
    for number, kept in of.items():
        title = titles[photos[number]["document_id"]]
        if usable(title) and fit(kept, title) >= 0.8:
            found[kept][0].add(title)
    on_documents: dict[tuple[str, str], int] = defaultdict(int)
    for click in clicks:
        if not usable(click["query"]):
            continue
        if click["image"] is None:
            on_documents[click["document_id"], click["query"]] += click["clicks"]
        for number, kept in of.items():
            if (photos[number]["document_id"], photos[number]["image"]) == (click["document_id"], click["image"]):
                found[kept][1][click["query"]] += click["clicks"]
    for (document, query), count in on_documents.items():
        shown = {kept: n for n, kept in reversed(of.items()) if photos[n]["document_id"] == document}
        if shown:
            best = max(shown, key=lambda kept: (round(fit(kept, query), 5), -photos[shown[kept]]["position"], -kept))
            found[best][1][query] += count
    for kept, (_, queries) in found.items():
        for query in [query for query in queries if fit(kept, query) < 0.8]:
            del queries[query]
    return {kept: texts for kept, texts in found.items() if texts[0] or texts[1]}


def records(out: Path) -> dict[int, ImageText]:
    found = {}
    for tar in sorted((out / "shards").glob("*.tar")):
        with tarfile.open(tar) as opened:
            for member in opened:
                file = opened.extractfile(member)
                assert file is not None
                if member.name.endswith(".json"):
                    record = ImageText.from_json(file.read().decode())
                    assert member.name == f"{record.name}.json"
                    found[record.number] = record
    return found


def test_the_records_are_those_of_a_plain_reference(raw: Path, curated: Path) -> None:
    expected, found = reference(raw), records(curated)
    assert found.keys() == expected.keys()
    assert len(expected) > 25
    for number, record in found.items():
        titles, queries = expected[number]
        assert {query.text: query.count for query in record.queries} == queries
        assert [query.count for query in record.queries] == sorted(queries.values(), reverse=True)
        assert {record.title, *record.further.get("titles", [])} == (titles or {""})


def test_every_photo_and_text_is_in_a_record_or_in_the_ledger(raw: Path, curated: Path) -> None:
    ledger = pq.read_table(curated / "ledger.parquet").to_pylist()
    dropped = {row["number"] for row in ledger if row["kind"] == "photo"}
    kept = set(records(curated))
    assert kept.isdisjoint(dropped)
    assert kept | dropped == set(range(len(pq.read_table(raw / "photos.parquet"))))
    texts = {row["text"] for row in ledger if row["kind"] in ("title", "query", "pair")}
    texts |= set(Dataset(curated).table("image_texts")["text"].to_pylist())
    queries = set(pq.read_table(raw / "clicks.parquet")["query"].to_pylist())
    assert queries - texts == set()
    assert "문의 ***-****-****" in texts  # personal data stands nowhere
    assert {row["source"] for row in ledger if row["kind"] == "photo"} == {"blog", "shop"}
    assert {row["reason"] for row in ledger} >= {
        "short_side",
        "truncated",
        "duplicate",
        "personal_data",
        "noise",
        "language",
        "score",
    }


def test_the_order_of_the_parts_changes_no_byte(raw: Path, curated: Path, tmp_path: Path) -> None:
    run(settings(raw, tmp_path / "out", learned=SCORE), scoring, backwards=True)
    assert content(tmp_path / "out") == content(curated)
    assert Dataset(tmp_path / "out").digest == Dataset(curated).digest


def test_a_run_that_is_cut_off_anywhere_goes_on(raw: Path, curated: Path, tmp_path: Path) -> None:
    config = settings(raw, tmp_path / "out", learned=SCORE)
    seen: set[str] = set()

    def cut(part: Any) -> None:
        if (name := json.dumps(dict(part), sort_keys=True)) not in seen:
            seen.add(name)
            if len(seen) % 4 == 0:
                raise KeyboardInterrupt

    runs = 0
    while not (tmp_path / "out").exists():
        try:
            run(config, scoring, before=cut)
        except KeyboardInterrupt:
            runs += 1
    assert runs > 5
    assert content(tmp_path / "out") == content(curated)


def test_other_rules_measure_nothing_again(raw: Path, tmp_path: Path) -> None:
    signals = str(tmp_path / "signals")
    strict = {"score": {**SCORE["score"], "at_least": 0.995}}
    run(settings(raw, tmp_path / "a", signals=signals, learned=SCORE), scoring)
    measured = {path: path.stat().st_mtime_ns for path in (tmp_path / "signals").glob("*/*.parquet")}

    def nothing(part: Any) -> None:
        if part["what"] == "judging photos":
            raise AssertionError("measured again")

    told = run(settings(raw, tmp_path / "b", signals=signals, learned=strict), scoring, before=nothing)
    assert {path: path.stat().st_mtime_ns for path in measured} == measured
    assert records(tmp_path / "b").keys() < records(tmp_path / "a").keys()
    assert "next: ray job submit" in str(told)
    run(settings(raw, tmp_path / "c", learned=strict), scoring)
    assert content(tmp_path / "c") == content(tmp_path / "b")


def test_new_texts_are_scored_and_known_ones_are_not(raw: Path, tmp_path: Path) -> None:
    """Looser rules for titles bring new texts: the photos that have them are measured, and no others."""
    signals = str(tmp_path / "signals")
    run(settings(raw, tmp_path / "a", signals=signals, learned=SCORE), scoring)
    judged = []
    loose = {"title": {"noise": "keep"}}
    config = settings(raw, tmp_path / "b", signals=signals, learned=SCORE, texts=loose)
    run(config, scoring, before=lambda part: judged.append(part) if part["what"] == "judging photos" else None)
    assert len(judged) == 1
    run(settings(raw, tmp_path / "c", learned=SCORE, texts=loose), scoring)
    assert content(tmp_path / "b") == content(tmp_path / "c")


def test_shards_are_read_by_webdataset(curated: Path) -> None:
    shards = sorted(map(str, (curated / "shards").glob("train-*.tar")))
    assert [Path(shard).name for shard in shards[:2]] == ["train-000.tar", "train-001.tar"]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))
    images = Dataset(curated).images.to_pylist()
    assert len(samples) == sum(image["split"] == "train" for image in images)
    sizes = {image["image_id"]: (image["width"], image["height"]) for image in images}
    for sample in samples:
        assert sample["jpg"].size == sizes[sample["__key__"]] == tuple(sample["json"]["image_size"])


def test_keys_and_order_are_those_of_the_deck(curated: Path) -> None:
    with tarfile.open(curated / "shards/train-000.tar") as tar:
        file = tar.extractfile(next(name for name in tar.getnames() if name.endswith(".json")))
        assert file is not None
        keys = list(json.loads(file.read()))
    assert keys[:12] == [
        "image_hash",
        "image_url",
        "image_size",
        "title",
        "query",
        "title_kelip_score",
        "query_count",
        "query_kelip_score",
        "image_white_pixel_ratio",
        "watermark_score",
        "ocr_num_box",
        "ocr_ratio_box",
    ]


def test_the_side_tables_say_what_the_records_say(curated: Path) -> None:
    dataset, found = Dataset(curated), records(curated)
    texts = dataset.table("image_texts").to_pylist()
    queries = {(row["image_id"], row["query"]): row["clicks"] for row in dataset.table("queries").to_pylist()}
    assert queries == {(one.name, query.text): query.count for one in found.values() for query in one.queries}
    scores = {(row["image_id"], row["text"]): row["score"] for row in texts}
    for one in found.values():
        for query in one.queries:
            assert scores[one.name, query.text] == query.score
    assert {row["language"] for row in texts} == {"ko"}


def test_the_report_shows_what_was_lost(curated: Path) -> None:
    page = (curated / "report.html").read_text()
    assert "photos kept by the rules" in page
    assert "short_side" in page
    assert page.count("data:image/jpeg") >= 3
    assert "010-1234" not in page


def test_photos_that_are_held_out_leave_with_their_copies(raw: Path, curated: Path, tmp_path: Path) -> None:
    config = settings(raw, tmp_path / "out", held_out=[str(curated)])
    run(config)
    assert records(tmp_path / "out").keys().isdisjoint(records(curated))
    ledger = pq.read_table(tmp_path / "out/ledger.parquet").to_pylist()
    out = {row["number"] for row in ledger if row["reason"] == "held_out"}
    assert out >= set(records(curated))


def test_calibrated_and_masked_scores(raw: Path, tmp_path: Path) -> None:
    score = {"model": "colours", "scale": "calibrated", "at_least": -9, "background": 1000, "masked": True}
    learned = {"score": {**score, "background": 1000}, "boxes": {"detector": "morphology"}}
    models = lambda: Models(scorer=ColourScorer(), boxes=Morphology(), masks=True)  # noqa: E731
    config = settings(raw, tmp_path / "out", learned=learned)
    run(config, models)
    folder = next((Path(config.folder) / "learned").iterdir())
    scores = pq.read_table(folder / "scores").to_pylist()
    background = np.load(folder / "background.npy").astype(float)
    for row in scores[:20]:
        usual = background @ ColourScorer().encode_texts([row["text"]])[0].astype(float)
        assert row["mean"] == pytest.approx(usual.mean(), abs=1e-5)
        assert row["deviation"] == pytest.approx(usual.std(), abs=1e-5)
        assert row["masked"] is not None
    assert len(background) == len(pq.read_table(folder / "photos"))
