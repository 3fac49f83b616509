"""Proposed noise words: those of a plain reference, and of raw records whose useless words are known."""

from __future__ import annotations

import csv
import hashlib
import statistics
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st
from PIL import Image

from shoplens.config import validate
from shoplens.curation.pipeline.config import CurationConfig
from shoplens.curation.pipeline.finishing import Curated
from shoplens.curation.pipeline.joining import PAIRS
from shoplens.curation.pipeline.learned import DRAFT, SCORES, Models
from shoplens.curation.pipeline.proposing import as_csv, propose, proposed
from shoplens.curation.text.noise_words import NoiseWord, pattern
from shoplens.datasets.images import decode
from shoplens.synthetic.raw_records import RawRecords, synthesize_raw
from shoplens.synthetic.raw_records.text_flaws import USELESS
from tests.curation.pipeline.raw import ColourScorer, content, run, settings, write_raw

TODAY = date(2026, 1, 1)
TEXTS = (
    "빨간 가방",
    "[파란] 가방, SALE",
    "sale 환율",
    "환율 환율 02-345-6789",
    "로또 환율",
    "운세 a 봄",
    "파란 운세! ㅎㅎ",
)
BACKGROUND = 400


def rows(seed: int, photos: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    lifts = {text: 0.0 if "환율" in text or "운세" in text else 0.3 for text in TEXTS}
    return [
        {
            "number": number,
            "text": text,
            "score": round(rng.normal(0.1 + lifts[text], 0.05), 5),
            "masked": round(rng.normal(0.1, 0.05), 5),
            "mean": 0.1,
            "deviation": 0.04,
        }
        for number in range(photos)
        for text in rng.permutation(TEXTS)[: int(rng.integers(1, 4))].tolist()
    ]


def write(folder: Path, scores: Sequence[dict[str, Any]], parts: Sequence[int]) -> tuple[Path, Path]:
    """Scores in files that end at the rows `parts`, some of them of pairs that the cut does not have."""
    cut, learned = folder / "cut", folder / "learned"
    (learned / "scores").mkdir(parents=True)
    cut.mkdir()
    pairs = [
        {"number": row["number"], "source": "query", "text": row["text"], "clicks": 1, "place": 0} for row in scores
    ]
    pq.write_table(pa.Table.from_pylist([*pairs, *pairs[:5]], PAIRS), cut / "pairs.parquet")
    others = [{**row, "number": row["number"] + 10**6, "score": -1.0} for row in scores]
    edges = [0, *sorted(parts), len(scores)]
    for place, (start, end) in enumerate(zip(edges, edges[1:], strict=False)):
        part = pa.Table.from_pylist([*scores[start:end], *others[start:end]], SCORES)
        pq.write_table(part, learned / "scores" / f"{place}.parquet")
    np.save(learned / "background.npy", np.zeros((BACKGROUND, 2), np.float32))
    return cut, learned


def proposals(scores: Sequence[dict[str, Any]], parts: Sequence[int] = (), **more: Any) -> tuple[bytes, list[Any]]:
    with TemporaryDirectory() as folder:
        cut, learned = write(Path(folder), scores, parts)
        score = {"model": "any", "noise_words": {"least_photos": 5}, **more}
        tables = {"photos": "photos.csv", "documents": "documents.csv"}
        tree = {"raw": tables, "out": folder, "learned": {"boxes": {"detector": "morphology"}, "score": score}}
        propose(validate(CurationConfig, tree, "the test"), learned, cut, TODAY)
        return (cut / "noise_words.parquet").read_bytes(), proposed(cut)


def reference(scores: Sequence[dict[str, Any]], column: str) -> dict[str, tuple[int, int, float, float]]:
    words: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in scores:
        for word in {piece.strip("[],!").lower() for piece in row["text"].split()}:
            words[word][row["number"]].append(row[column] - row["mean"])
    usual = statistics.fmean(row[column] - row["mean"] for row in scores)
    found = {}
    for word, of in words.items():
        n, photos = sum(map(len, of.values())), len(of)
        if word in ("a", "봄", "로또", "02-345-6789") or photos < 5 or usual <= 0:
            continue
        lift = sum(map(sum, of.values())) / n
        spread = sum((sum(own) - lift * len(own)) ** 2 for own in of.values()) * photos / (photos - 1) / n**2
        error = (spread + 0.04**2 / (BACKGROUND - 1)) ** 0.5
        if lift + 2 * error < 0.2 * usual:
            found[word] = (photos, n, pytest.approx(lift, abs=1e-9), pytest.approx(error, abs=1e-9))
    return found


@hypothesis.settings(max_examples=12, deadline=None)
@hypothesis.given(st.integers(0, 10**6), st.integers(3, 60), st.sampled_from(["score", "masked"]), st.data())
def test_words_of_any_parts_are_those_of_a_plain_reference(seed: int, photos: int, column: str, draw: Any) -> None:
    scores = rows(seed, photos)
    whole, found = proposals(scores, masked=column == "masked")
    assert {one.word: one[1:] for one, _ in found} == reference(scores, column)
    parts = draw.draw(st.lists(st.integers(0, len(scores)), max_size=6))
    assert proposals(scores, parts, masked=column == "masked")[0] == whole


def test_useless_words_with_an_example_that_hides_personal_data() -> None:
    _, found = proposals(rows(1, 200))
    examples = {one.word: example for one, example in found}
    assert examples == {"환율": "sale 환율", "운세": "운세 a 봄", "ㅎㅎ": "파란 운세! ㅎㅎ"}
    _, found = proposals([row for row in rows(1, 200) if "02-" in row["text"] or "가방" in row["text"]])
    assert [(one.word, example) for one, example in found] == [("환율", "환율 환율 **-***-****")]


def test_each_proposed_word_is_found_by_the_pattern_in_its_texts() -> None:
    _, found = proposals(rows(2, 200))
    for one, _ in found:
        own = [text for text in TEXTS if pattern([one.word]).search(text)]
        assert one.pairs == sum(row["text"] in own for row in rows(2, 200))


def test_the_csv_opens_in_a_spreadsheet() -> None:
    data = as_csv([NoiseWord("환율", 120, 130, -0.0012345, 0.002)])
    assert data == "\ufeffword,photos,pairs,lift,error\n환율,120,130,-0.00123,0.00200\n".encode()


class WordScorer:
    """Knows the words of each product. Photos and texts are the sums of the vectors of their words."""

    def __init__(self, raw: Path) -> None:
        titles = {row["document_id"]: row["title"] for row in pq.read_table(raw / "documents.parquet").to_pylist()}
        product = {row["image"]: row["product"] for row in pq.read_table(raw / "truth_photos.parquet").to_pylist()}
        shown = pq.read_table(raw / "photos.parquet").to_pylist()
        of_document = {row["document_id"]: product[row["image"]] for row in shown}
        words: dict[int, set[str]] = defaultdict(set)
        for row in pq.read_table(raw / "truth_pairs.parquet").to_pylist():
            if row["match"]:
                words[of_document[row["document_id"]]] |= set((row["query"] or titles[row["document_id"]]).split())
        self._text_of: dict[str, str] = {}
        for path in sorted(raw.glob("*.tar")):
            with tarfile.open(path) as tar:
                for member in tar:
                    file = tar.extractfile(member)
                    assert file is not None
                    of = words[product[f"{path.name}/{member.name}"]]
                    self._text_of[self._key(decode(file.read(), draft=DRAFT).image)] = " ".join(sorted(of)) or "?"

    @staticmethod
    def _key(photo: Image.Image) -> str:
        return hashlib.sha256(photo.tobytes()).hexdigest()

    def encode_photos(self, photos: Sequence[Image.Image]) -> np.ndarray:
        return self.encode_texts([self._text_of[self._key(photo)] for photo in photos])

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.array([sum(map(self._vector, text.split())) for text in texts])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    @staticmethod
    def _vector(word: str) -> np.ndarray:
        return np.random.default_rng(zlib.crc32(word.encode())).normal(size=256)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "raw"
    made = RawRecords(records=240, image_size=200, photo_flaws=0.0, useless_queries=0.6, skew=0.0)
    synthesize_raw(folder, made, workers=1, progress=False)
    return folder


SCORE = {"model": "words", "background": 1000, "noise_words": {"least_photos": 20}}
SIZES = {"photos": 500, "texts": 500, "learned": 60}


def curated(raw: Path, out: Path, score: dict[str, Any] = SCORE, **more: Any) -> tuple[Curated, list[str]]:
    scorer = WordScorer(raw)
    config = settings(raw, out, learned={"score": score}, **{"parts": SIZES, **more})
    told = run(config, lambda: Models(scorer=scorer))
    path = out / "noise_words.csv"
    words = list(csv.DictReader(path.read_text("utf-8-sig").splitlines())) if path.exists() else []
    return told, [row["word"] for row in words]


def test_useless_words_are_proposed_and_useful_words_are_not(raw: Path, tmp_path: Path) -> None:
    told, words = curated(raw, tmp_path / "out")
    in_useless = {word for texts in USELESS.values() for text in texts for word in text.split()}
    assert USELESS.keys() <= set(words) <= in_useless
    assert f"noise words to review: {len(words)} in {tmp_path}/out/noise_words.csv" in str(told)
    assert "noise_words.csv" not in told.dataset.manifest.files
    assert "<td>운세</td>" in told.report
    shifted = {"photos": 500, "texts": 500, "learned": 7}
    again, _ = curated(raw, tmp_path / "again", parts=shifted)
    assert (tmp_path / "again/noise_words.csv").read_bytes() == (tmp_path / "out/noise_words.csv").read_bytes()
    assert content(tmp_path / "again") == content(tmp_path / "out")
    assert again.dataset.digest == told.dataset.digest


def test_words_that_are_listed_by_then_are_not_proposed_again(raw: Path, tmp_path: Path) -> None:
    tagged = {"query": {"noise": "keep"}, "title": {"noise": "keep"}, "noise_words": ["운세", "환율"]}
    told, words = curated(raw, tmp_path / "out", texts=tagged)
    assert {"운세", "환율", "날씨"} & set(words) == {"날씨"}
    assert told.noise_words == len(words)


def test_nothing_is_said_where_no_word_is_proposed(tmp_path: Path) -> None:
    small = write_raw(tmp_path / "raw", documents=8)
    told = run(settings(small, tmp_path / "out", learned={"score": SCORE}), lambda: Models(scorer=ColourScorer()))
    assert "noise words" not in str(told)
    assert "may be noise" not in told.report
    assert not (tmp_path / "out/noise_words.csv").exists()


def test_a_reviewed_list_drops_its_words_and_measures_no_text_anew(raw: Path, tmp_path: Path) -> None:
    signals = tmp_path / "signals"
    _, words = curated(raw, tmp_path / "out", signals=str(signals))
    measured = {path: path.stat().st_mtime_ns for path in sorted(signals.glob("queries/*.parquet"))}
    told, left = curated(raw, tmp_path / "reviewed", signals=str(signals), texts={"noise_words": words})
    assert measured == {path: path.stat().st_mtime_ns for path in sorted(signals.glob("queries/*.parquet"))}
    assert left == []
    ledger = pq.read_table(told.dataset.path + "/ledger.parquet", columns=["reason", "text"]).to_pylist()
    dropped = {row["text"] for row in ledger if row["reason"] == "noise"}
    assert dropped and all(pattern(words).search(text) for text in dropped)
