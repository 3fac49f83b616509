"""The limits of the learned signals, and the choice of each photo's texts: the records that become shards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shoplens.curation.pipeline import joining, ledger, measuring, tables
from shoplens.curation.pipeline import learned as learned_signals
from shoplens.curation.pipeline.config import CurationConfig, Learned, Shards
from shoplens.curation.pipeline.files import aside, write_groups
from shoplens.curation.pipeline.tables import connect, ranges, view
from shoplens.curation.verdict import Verdict

_TEXT = pa.struct(
    [
        ("text", pa.string()),
        ("clicks", pa.int64()),
        ("score", pa.float64()),
        ("calibrated", pa.float64()),
        ("masked", pa.float64()),
        ("value", pa.float64()),
    ]
)
RECORDS = pa.schema(
    [
        ("number", pa.int64()),
        ("uri", pa.string()),
        ("root", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("sha256", pa.string()),
        ("phash", pa.uint64()),
        ("image", pa.string()),
        ("url", pa.string()),
        ("document_id", pa.string()),
        ("source", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("white", pa.float64()),
        ("watermark", pa.float64()),
        ("boxes", pa.int32()),
        ("boxes_area", pa.float64()),
        ("adult", pa.float64()),
        ("titles", pa.list_(_TEXT)),
        ("queries", pa.list_(_TEXT)),
    ]
)
SPLITS = ("train", "val", "test")


def choose(config: CurationConfig, signals: Path, learned: Path, cut: Path) -> dict[str, int]:
    """Writes the records of each split to `cut/records/SPLIT.parquet`, a row group a shard, and the ledger of the rest.

    Returns the number of records of each split.
    """
    done = cut / "records.json"
    if done.exists():
        counts: dict[str, int] = json.loads(done.read_text())
        return counts
    with ExitStack() as closing:
        database = closing.enter_context(connect(cut, config.memory))
        view(database, "measured", signals / "photos/*.parquet", measuring.PHOTOS)
        view(database, "documents", signals / "documents.parquet", tables.DOCUMENTS)
        view(database, "wanted", cut / "wanted.parquet", joining.WANTED)
        view(database, "pairs", cut / "pairs.parquet", joining.PAIRS)
        view(database, "of_documents", cut / "of_documents.parquet", joining.OF_DOCUMENTS)
        view(database, "all_judged", learned / "photos/*.parquet", learned_signals.PHOTOS)
        view(database, "all_scores", learned / "scores/*.parquet", learned_signals.SCORES)
        for statement in _statements(config):
            database.execute(statement)
        records = _records(config.shards)
        database.execute(f"CREATE TABLE records AS {records} LIMIT 0", {"low": 0, "high": 0})
        for span in ranges(database, "wanted"):
            database.execute(f"INSERT INTO records {records}", span)
        unfinished = closing.enter_context(aside(cut / "learned.ledger.parquet"))
        book = closing.enter_context(pq.ParquetWriter(unfinished, ledger.LEDGER, compression="zstd"))
        for batch in database.sql(_LOST).to_arrow_reader(1 << 16):
            book.write_table(pa.Table.from_batches([batch]).cast(ledger.LEDGER))
        counts = {}
        for split in SPLITS:
            rows = database.sql(_RECORDS, params={"split": split}).to_arrow_reader(1 << 12)
            kept = _kept(rows, config, book)
            counts[split] = write_groups(cut / "records" / f"{split}.parquet", kept, RECORDS, config.shards.records)
    with aside(done) as file:
        file.write_text(json.dumps(counts))
    return counts


def _statements(config: CurationConfig) -> Iterator[str]:
    score = config.learned.score
    decides = "NULL" if score is None else "calibrated" if score.scale == "calibrated" else "score"
    masked = score is not None and score.masked
    yield f"""CREATE TABLE scored AS
        SELECT DISTINCT ON (number, text) number, text, score, masked, calibrated, {decides}::DOUBLE AS value FROM (
          SELECT number, text, {"masked" if masked else "score"} AS score, masked,
                 ({"masked" if masked else "score"} - mean) / nullif(deviation, 0) AS calibrated FROM all_scores)
        ORDER BY ALL"""
    yield "CREATE TABLE judged AS SELECT DISTINCT ON (number) * FROM all_judged ORDER BY ALL"
    yield f"CREATE TABLE passing AS SELECT number FROM judged WHERE {' AND '.join(['true', *_limits(config.learned)])}"
    one = "" if config.chosen.of_documents == "all" else "= 1"
    yield f"""CREATE TABLE assigned AS
        SELECT number, text, sum(clicks)::BIGINT AS clicks FROM (
          SELECT o.number, o.text, o.clicks FROM of_documents o LEFT JOIN scored USING (number, text)
          WHERE o.number IN (SELECT number FROM passing)
          QUALIFY o.exact OR row_number() OVER (
            PARTITION BY o.document_id, o.text, o.exact ORDER BY value DESC NULLS LAST, o.place, o.number) {one or ">= 1"})
        GROUP BY ALL"""
    yield """CREATE TABLE texts AS
        SELECT p.number, p.source, p.place, coalesce(a.clicks, 0) AS clicks,
               struct_pack(text := p.text, clicks := coalesce(a.clicks, 0), score := s.score, calibrated := s.calibrated,
                           masked := s.masked, value := s.value) AS text
        FROM pairs p LEFT JOIN assigned a ON p.source = 'query' AND a.number = p.number AND a.text = p.text
        LEFT JOIN scored s ON s.number = p.number AND s.text = p.text
        WHERE p.source = 'title' OR a.text IS NOT NULL"""


def _records(shares: Shards) -> str:
    return f"""
        SELECT m.*, t.titles, t.queries, j.watermark, j.boxes, j.boxes_area, j.adult, coalesce(d.source, '') AS source,
               CASE WHEN draw < {shares.val} THEN 'val' WHEN draw < {shares.val + shares.test} THEN 'test' ELSE 'train' END
               AS split
        FROM (SELECT *, ('0x' || substr(sha256, 1, 8))::UBIGINT / 4294967296 AS draw FROM measured
              WHERE number BETWEEN $low AND $high) m
        JOIN (SELECT number FROM wanted) w USING (number)
        LEFT JOIN (SELECT number, list(text ORDER BY place) FILTER (source = 'title') AS titles,
                     list(text ORDER BY clicks DESC, text.text) FILTER (source = 'query') AS queries
              FROM texts WHERE number BETWEEN $low AND $high GROUP BY number) t USING (number)
        LEFT JOIN judged j USING (number)
        LEFT JOIN (SELECT document_id, min_by(source, number) AS source FROM documents GROUP BY document_id) d
        USING (document_id)"""


_RECORDS = f"SELECT {', '.join(chr(34) + name + chr(34) for name in RECORDS.names)} FROM records WHERE split = $split ORDER BY number"
_LOST = """
    SELECT 'pair' AS kind, p.number, NULL AS id, NULL AS document_id, p.text, 'learned' AS stage, 'better_photo' AS reason,
           'another photo of the document fits the query better' AS detail, s.value, NULL::DOUBLE AS threshold
    FROM pairs p LEFT JOIN scored s USING (number, text)
    WHERE p.source = 'query' AND p.number IN (SELECT number FROM passing)
    AND NOT EXISTS (SELECT 1 FROM assigned a WHERE a.number = p.number AND a.text = p.text)
    UNION ALL
    SELECT 'pair', number, NULL, NULL, text, 'learned', 'photo_dropped', 'the photo is dropped', NULL, NULL
    FROM pairs WHERE number NOT IN (SELECT number FROM passing)
    ORDER BY ALL"""


def _kept(
    batches: Iterable[pa.RecordBatch], config: CurationConfig, book: pq.ParquetWriter
) -> Iterator[pa.RecordBatch]:
    """The records that stay, with the texts that stay. The others go to the ledger."""
    for batch in batches:
        records: list[dict[str, Any]] = []
        dropped: list[dict[str, Any]] = []
        for row in batch.to_pylist():
            photo = {"kind": "photo", "stage": "learned", "id": row["image"], "number": row["number"]}
            photo["document_id"] = row["document_id"]
            found = list(_against(row, config.learned))
            for source, most in () if found else (("titles", config.chosen.titles), ("queries", config.chosen.queries)):
                kept: list[dict[str, Any]] = []
                for text in row[source] or []:
                    low = (
                        config.learned.score
                        and text["value"] is not None
                        and text["value"] < config.learned.score.at_least
                    )
                    if config.learned.score and low:
                        verdict = Verdict(
                            "score", text["value"], config.learned.score.at_least, config.learned.score.scale
                        )
                    elif len(kept) == most:
                        verdict = Verdict(f"most_{source}", len(kept) + 1, most)
                    else:
                        kept.append(text)
                        continue
                    about = {"kind": "pair", "stage": "learned", "number": row["number"], "text": text["text"]}
                    dropped += ledger.rows([verdict], **about)
                row[source] = kept
            if not found and not row["titles"] and not row["queries"]:
                found = [Verdict("no_text", 0, 1, "no title and no query fits the photo")]
            dropped += ledger.rows(found, **photo)
            if not found:
                records.append(row)
        if dropped:
            book.write_table(pa.Table.from_pylist(dropped, schema=ledger.LEDGER))
        if records:
            yield from pa.Table.from_pylist(records, schema=RECORDS).to_batches()


def _limits(learned: Learned) -> Iterator[str]:
    """What a photo must fulfil, as conditions over the columns of `judged`; `_against` says what it does not."""
    if learned.watermark:
        yield f"watermark < {learned.watermark.below}"
    if learned.boxes:
        yield f"boxes <= {learned.boxes.most} AND boxes_area <= {learned.boxes.area}"
    if learned.adult:
        yield f"adult < {learned.adult.below}"


def _against(row: Mapping[str, Any], learned: Learned) -> Iterator[Verdict]:
    if learned.watermark and row["watermark"] >= learned.watermark.below:
        yield Verdict("watermark", row["watermark"], learned.watermark.below)
    if learned.boxes and row["boxes"] > learned.boxes.most:
        yield Verdict("boxes", row["boxes"], learned.boxes.most)
    if learned.boxes and row["boxes_area"] > learned.boxes.area:
        yield Verdict("boxes_area", row["boxes_area"], learned.boxes.area)
    if learned.adult and row["adult"] >= learned.adult.below:
        yield Verdict("adult", row["adult"], learned.adult.below)
