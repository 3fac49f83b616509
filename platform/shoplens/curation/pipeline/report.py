"""The page of a curation: how many records each step leaves, what each rule costs, and what was dropped near its limit."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import duckdb
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from shoplens.curation.pipeline.config import CurationConfig
from shoplens.curation.pipeline.measuring import photo_rules
from shoplens.curation.text.noise_words import NoiseWord
from shoplens.datasets.images import decode
from shoplens.datasets.photo_files import Place, read_photos

PICTURES = 10
"""Dropped photos that are shown for a rule: those nearest to its limit."""
THUMBNAIL = 132
NOISE_WORDS = 30
"""Proposed words that are shown: the most frequent."""
RECORDS_LEFT = "records"
MEASURED = (
    "short_side",
    "aspect",
    "white",
    "sharpness",
    "watermark",
    "boxes",
    "boxes_area",
    "adult",
    "score",
    "duplicate",
)
"""Reasons whose value is a measure, so that "near the limit" has a meaning."""


class Step(NamedTuple):
    """What is left of `of` (photos, titles, queries or pairs) after a step."""

    of: str
    title: str
    left: int


class Cost(NamedTuple):
    """What a rule drops. `alone`: if it were the only one. `last`: what no other rule drops, so what it would give back."""

    kind: str
    reason: str
    alone: int
    last: int


@dataclass(frozen=True)
class Dropped:
    """A photo that was dropped, its value and, for pairs, its text."""

    picture: str
    value: float
    text: str


def funnel(database: duckdb.DuckDBPyConnection, signals: Path, cut: Path) -> list[Step]:
    """What is left after each step."""

    def count(file: str | Path, where: str = "true") -> int:
        if not any(Path(file).parent.glob(Path(file).name)):
            return 0
        found = database.execute(f"SELECT count(*) FROM read_parquet('{_escaped(file)}') WHERE {where}")
        return int(found.fetchall()[0][0])

    records = cut / "records/*.parquet"
    (pairs,) = database.execute(
        f"SELECT coalesce(sum(len(titles) + len(queries)), 0) FROM read_parquet('{_escaped(records)}')"
    ).fetchall()
    return [
        Step("photos", "photos", count(signals / "photos/*.parquet")),
        Step("photos", "photos that can be read", count(signals / "photos/*.parquet", "fault IS NULL")),
        Step("photos", "photos kept by the rules", count(cut / "photos/*.parquet")),
        Step("photos", "photos with a text", count(cut / "wanted.parquet")),
        Step("photos", RECORDS_LEFT, count(records)),
        Step("titles", "titles", count(signals / "documents/*.parquet")),
        Step("titles", "titles kept by the rules", count(cut / "titles/*.parquet")),
        Step("queries", "distinct queries", count(signals / "queries/*.parquet")),
        Step("queries", "queries kept by the rules", count(cut / "queries/*.parquet")),
        Step("pairs", "pairs of photo and text", count(cut / "pairs.parquet")),
        Step("pairs", "pairs in the records", int(pairs[0])),
    ]


def costs(database: duckdb.DuckDBPyConnection, ledger: Path) -> list[Cost]:
    """What each rule costs, the dearest first. A rule on learned signals sees what the others left."""
    return [
        Cost(*row)
        for row in database.sql(
            f"""WITH entry AS (
                  SELECT DISTINCT kind, number, coalesce(text, '') AS text, coalesce(id, '') AS id,
                         reason || CASE WHEN reason IN ('personal_data', 'characters', 'offensive', 'script', 'language')
                                        THEN ': ' || detail ELSE '' END AS reason
                  FROM read_parquet('{_escaped(ledger)}')),
                counted AS (SELECT *, count(*) OVER (PARTITION BY kind, number, text, id) AS n FROM entry)
                SELECT kind, reason, count(*)::BIGINT AS alone, count(*) FILTER (n = 1)::BIGINT AS last
                FROM counted GROUP BY kind, reason ORDER BY kind, alone DESC, reason"""
        ).fetchall()
    ]


def report(
    config: CurationConfig,
    database: duckdb.DuckDBPyConnection,
    signals: Path,
    cut: Path,
    steps: list[Step],
    noise_words: Sequence[tuple[NoiseWord, str]],
) -> str:
    """The page as HTML, pictures included. `noise_words`: proposed words, and a text with each."""
    ledger = cut / "ledger.parquet"
    sources = database.sql(
        f"""SELECT d.source, count(*) AS titles,
                   count(*) FILTER (d.number IN (SELECT number FROM read_parquet('{_escaped(ledger)}') WHERE kind = 'title'))
                   AS lost
            FROM read_parquet('{_escaped(signals / "documents.parquet")}') d GROUP BY d.source ORDER BY titles DESC, d.source"""
    ).fetchall()
    photos = database.sql(
        f"""SELECT coalesce(d.source, '') AS source, count(*) AS photos,
                   count(*) FILTER (m.number NOT IN (SELECT number FROM read_parquet('{_escaped(cut / "records/*.parquet")}')))
                   AS lost
            FROM read_parquet('{_escaped(signals / "photos/*.parquet")}') m
            LEFT JOIN (SELECT document_id, min_by(source, number) AS source
                       FROM read_parquet('{_escaped(signals / "documents.parquet")}') GROUP BY document_id) d
            USING (document_id) GROUP BY ALL ORDER BY photos DESC, source"""
    ).fetchall()
    return _PAGES.get_template("report.html.j2").render(
        name=config.name,
        steps=[[step for step in steps if step.of == of] for of in dict.fromkeys(step.of for step in steps)],
        costs=costs(database, ledger),
        by_source={"titles": sources, "photos": photos},
        near={reason: shown for reason in MEASURED if (shown := _near(config, database, signals, ledger, reason))},
        noise_words=noise_words[:NOISE_WORDS],
        all_noise_words=len(noise_words),
        rules=config.model_dump(mode="json", include={"photo", "texts", "learned", "chosen", "held_out"}),
    )


def _near(
    config: CurationConfig, database: duckdb.DuckDBPyConnection, signals: Path, ledger: Path, reason: str
) -> list[Dropped]:
    rows = database.execute(
        f"""SELECT m.uri, m.root, m."offset", m.length, l.value, coalesce(l.text, '')
            FROM read_parquet('{_escaped(ledger)}') l
            JOIN read_parquet('{_escaped(signals / "photos/*.parquet")}') m USING (number)
            WHERE l.reason = $reason AND l.kind IN ('photo', 'pair') AND m.fault IS NULL
            ORDER BY abs(l.value - l.threshold), m.number, l.text LIMIT {PICTURES}""",
        {"reason": reason},
    ).fetchall()
    places = [Place(*row[:4]) for row in rows]
    pictures = read_photos(places, photo_rules(config.fetching), _thumbnail)
    return [
        Dropped(picture, value, text)
        for (*_, value, text), picture in zip(rows, pictures, strict=True)
        if isinstance(picture, str)
    ]


def _thumbnail(data: bytes) -> str:
    image = decode(data, draft=THUMBNAIL).image
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _escaped(path: str | Path) -> str:
    return str(path).replace("'", "''")


_PAGES = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
