"""Learned signals: what needs a model, measured for photos that the rules keep and their texts.

Which photos are measured together is written down before the work begins (`wanted.parquet`), because networks round a
little differently in other company. What an earlier run with the same models measured is taken from there.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from shoplens.curation.photo.text_boxes import Detector, filled
from shoplens.curation.pipeline.files import aside, groups, read_group, write_groups, write_table
from shoplens.curation.pipeline.joining import WANTED
from shoplens.curation.pipeline.tables import connect
from shoplens.datasets.images import decode
from shoplens.datasets.photo_files import PhotoRules, Place, read_photos
from shoplens.errors import ShoplensError

DRAFT = 512
"""A JPEG is decoded at the smallest scale whose shorter side has as many pixels."""
BATCH = 32
DIGITS = 5
"""Digits behind the point that are kept: networks repeat themselves to about six."""

PHOTOS = pa.schema(
    [
        ("number", pa.int64()),
        ("watermark", pa.float64()),
        ("boxes", pa.int32()),
        ("boxes_area", pa.float64()),
        ("boxes_sum", pa.float64()),
        ("adult", pa.float64()),
    ]
)
SCORES = pa.schema(
    [
        ("number", pa.int64()),
        ("text", pa.string()),
        ("score", pa.float64()),
        ("masked", pa.float64()),
        ("mean", pa.float64()),
        ("deviation", pa.float64()),
    ]
)
"""Scores of pairs: the cosine of photo and text, the same with the text boxes of the photo filled, and the mean and
standard deviation of the text's scores with the background photos."""

Photos = Sequence[Image.Image]


class Scorer(Protocol):
    """A dual encoder. Both give unit rows."""

    def encode_photos(self, photos: Photos) -> np.ndarray: ...
    def encode_texts(self, texts: Sequence[str]) -> np.ndarray: ...


@dataclass
class Models:
    """What measures. None: not measured. `masks`: the score of photos with their text boxes filled is wanted too."""

    watermark: Callable[[Photos], np.ndarray] | None = None
    boxes: Detector | None = None
    adult: Callable[[Photos], np.ndarray] | None = None
    scorer: Scorer | None = None
    masks: bool = False


def folder_of(signals: Path, names: Mapping[str, str]) -> Path:
    """Where what these models measured is kept."""
    name = hashlib.sha256(json.dumps(dict(names), sort_keys=True).encode()).hexdigest()[:12]
    return signals / "learned" / name


def plan(cut: Path, learned: Path, rows: int, memory: str) -> Path:
    """The photos that are still to be measured, in parts of `rows`: `cut/learned.parquet`, written once.

    A photo is measured again if one of its texts is new.
    """
    path = cut / "learned.parquet"
    if path.exists():
        return path
    with connect(cut, memory) as database:
        database.read_parquet(str(cut / "wanted.parquet")).create_view("wanted")
        wanted = "SELECT * FROM wanted"
        if any(learned.glob("scores/*.parquet")):
            database.read_parquet(str(learned / "scores/*.parquet")).create_view("scores")
            wanted = """SELECT * FROM wanted WHERE number IN (
                SELECT number FROM (SELECT number, unnest(texts) AS text FROM wanted) ANTI JOIN scores USING (number, text))"""
        write_groups(path, database.sql(f"{wanted} ORDER BY number").to_arrow_reader(1 << 12), WANTED, rows)
    return path


def rows(planned: Path) -> int:
    """The number of photos of a plan."""
    return int(pq.read_metadata(planned).num_rows)


def part_names(planned: Path) -> list[str]:
    """Names of the parts: they hold what is measured in them, so that no two plans share a name."""
    content = hashlib.sha256(planned.read_bytes()).hexdigest()[:12]
    return [f"{content}-{number:06d}" for number in range(groups(planned))]


def background(cut: Path, learned: Path, models: Models, rules: PhotoRules, photos: int, memory: str) -> None:
    """Writes vectors of background photos, float32 [photos, d], which texts are calibrated against.

    They are spread evenly over the wanted photos, and stay the same for later runs with these models.
    """
    path = learned / "background.npy"
    if not path.exists():
        assert models.scorer is not None
        with connect(cut, memory) as database:
            database.read_parquet(str(cut / "wanted.parquet")).create_view("wanted")
            chosen = database.sql(
                """SELECT * EXCLUDE (place, n) FROM (
                     SELECT *, row_number() OVER (ORDER BY number) - 1 AS place, count(*) OVER () AS n FROM wanted)
                   WHERE n <= $photos OR floor(place * $photos / n) > floor((place - 1) * $photos / n) ORDER BY number""",
                params={"photos": photos},
            ).to_arrow_table()
        vectors = np.concatenate([models.scorer.encode_photos(pictures) for _, pictures in _batches(chosen, rules)])
        with aside(path) as file, file.open("wb") as opened:
            np.save(opened, vectors.astype(np.float32))


def measure(planned: Path, number: int, name: str, learned: Path, models: Models, rules: PhotoRules) -> int:
    """Measures a part of the plan unless it is done. Returns the number of its photos."""
    rows = read_group(planned, number)
    done = learned / "scores" / f"{name}.parquet"
    if done.exists():
        return len(rows)
    of_photo: dict[str, list[Any]] = defaultdict(list)
    vectors: list[np.ndarray] = []
    covered: list[np.ndarray] = []
    for numbers, pictures in _batches(rows, rules):
        of_photo["number"] += numbers
        for name_, judge in (("watermark", models.watermark), ("adult", models.adult)):
            of_photo[name_] += list(_rounded(judge(pictures))) if judge else [None] * len(pictures)
        boxes = [models.boxes.detect(picture) if models.boxes else None for picture in pictures]
        of_photo["boxes"] += [one and one.boxes for one in boxes]
        of_photo["boxes_area"] += [one and round(one.union, DIGITS) for one in boxes]
        of_photo["boxes_sum"] += [one and round(one.total, DIGITS) for one in boxes]
        if models.scorer:
            vectors.append(models.scorer.encode_photos(pictures))
            if models.masks:
                hidden = [
                    filled(picture, one) if one else picture for picture, one in zip(pictures, boxes, strict=True)
                ]
                covered.append(models.scorer.encode_photos(hidden))
    photos = pa.table([pa.array(of_photo[field.name], field.type) for field in PHOTOS], PHOTOS)
    write_table(learned / "photos" / f"{name}.parquet", photos, PHOTOS)
    texts = rows["texts"].to_pylist()
    of_pair: dict[str, Any] = {
        "number": np.repeat(of_photo["number"], [len(own) for own in texts]),
        "text": [text for own in texts for text in own],
    }
    of_pair |= dict.fromkeys(("score", "masked", "mean", "deviation"), [None] * len(of_pair["text"]))
    if models.scorer:
        of_pair |= _scores(models.scorer, texts, vectors, covered, np.load(learned / "background.npy"))
    scores = pa.table([pa.array(of_pair[field.name], field.type) for field in SCORES], SCORES)
    write_table(done, scores, SCORES)
    return len(rows)


def _scores(
    scorer: Scorer,
    texts: Sequence[Sequence[str]],
    photos: Sequence[np.ndarray],
    covered: Sequence[np.ndarray],
    background: np.ndarray,
) -> dict[str, np.ndarray]:
    """Columns of SCORES for each text of each photo. Vectors of the photos come in batches [n, d]."""
    distinct = sorted({text for own in texts for text in own})
    place = {text: row for row, text in enumerate(distinct)}
    text_of = np.array([place[text] for own in texts for text in own])
    photo_of = np.repeat(np.arange(len(texts)), [len(own) for own in texts])
    vectors = scorer.encode_texts(distinct).astype(np.float64)
    usual = vectors @ background.astype(np.float64).T
    found = {"mean": usual.mean(axis=1)[text_of], "deviation": usual.std(axis=1)[text_of]}
    for name, batches in (("score", photos), ("masked", covered)):
        if batches:
            rows = np.concatenate(batches).astype(np.float64)
            found[name] = np.einsum("nd,nd->n", rows[photo_of], vectors[text_of])
    return {name: _rounded(values) for name, values in found.items()}


def _rounded(values: Sequence[float] | np.ndarray) -> np.ndarray:
    return np.round(np.asarray(values, np.float64), DIGITS)


def _batches(rows: pa.Table, rules: PhotoRules) -> Iterator[tuple[list[int], list[Image.Image]]]:
    """Numbers and pictures, `BATCH` at a time. Raises ShoplensError if a photo is not what was measured before."""
    wanted = rows.to_pylist()
    places = [Place(row["uri"], row["root"], row["offset"], row["length"]) for row in wanted]

    def picture(data: bytes) -> tuple[str, Image.Image]:
        return hashlib.sha256(data).hexdigest(), decode(data, draft=DRAFT).image

    numbers: list[int] = []
    pictures: list[Image.Image] = []
    for row, read in zip(wanted, read_photos(places, rules, picture), strict=True):
        if isinstance(read, Exception) or read[0] != row["sha256"]:
            raise ShoplensError(
                f"the photo at {row['uri']} has changed since it was measured: "
                "remove the folder of signals, and curate again"
            )
        numbers.append(row["number"])
        pictures.append(read[1])
        if len(pictures) == BATCH:
            yield numbers, pictures
            numbers, pictures = [], []
    if pictures:
        yield numbers, pictures
