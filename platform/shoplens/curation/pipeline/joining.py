"""Brings photos, titles and queries together: which texts each photo may get.

The tables are joined by DuckDB, which spills to disk, so they may be larger than memory. Every result is sorted: the
number of threads changes nothing.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from shoplens.curation.pipeline import cutting, measuring, tables
from shoplens.curation.pipeline.config import CurationConfig
from shoplens.curation.pipeline.duplicates import GROUPS
from shoplens.curation.pipeline.files import write_groups
from shoplens.curation.pipeline.ledger import LEDGER
from shoplens.curation.pipeline.tables import connect, ranges, view

CANDIDATES = 2
"""Queries that are scored for a photo, as a multiple of those that it gets: some have a low score."""
PHOTOS_OF_DOCUMENT = 50
"""Photos of a document, in order, that a click on the document may have meant."""

PAIRS = pa.schema(
    [
        ("number", pa.int64()),
        ("source", pa.string()),
        ("text", pa.string()),
        ("clicks", pa.int64()),
        ("place", pa.int32()),
    ]
)
"""Texts of photos: the photo's number, `title` or `query`, the text, its clicks (0 for a title), and its place among
the texts of this source of the photo."""
OF_DOCUMENTS = pa.schema(
    [
        ("document_id", pa.string()),
        ("text", pa.string()),
        ("number", pa.int64()),
        ("exact", pa.bool_()),
        ("clicks", pa.int64()),
        ("place", pa.int32()),
    ]
)
"""Queries of documents for each photo that the click may have meant: `exact` if it named the photo, and the photo's place
in the document."""
WANTED = pa.schema(
    [
        ("number", pa.int64()),
        ("uri", pa.string()),
        ("root", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("sha256", pa.string()),
        ("texts", pa.list_(pa.string())),
    ]
)
"""Photos whose learned signals are wanted, and the texts to be scored with each."""


def join(config: CurationConfig, signals: Path, cut: Path) -> None:
    """Writes `pairs.parquet`, `of_documents.parquet`, `wanted.parquet` and `join.ledger.parquet` to the folder `cut`.

    signals   folder of what was measured
    cut       folder with the photos and texts that the rules keep
    """
    if (cut / "wanted.parquet").exists():
        return
    with connect(cut, config.memory) as database:
        view(database, "measured", signals / "photos/*.parquet", measuring.PHOTOS)
        view(database, "groups", cut / "groups.parquet", GROUPS)
        view(database, "documents", signals / "documents.parquet", tables.DOCUMENTS)
        view(database, "clicks", signals / "clicks.parquet", tables.CLICKS)
        view(database, "kept_photos", cut / "photos/*.parquet", cutting.PHOTOS)
        view(database, "kept_titles", cut / "titles/*.parquet", cutting.TEXTS)
        view(database, "kept_queries", cut / "queries/*.parquet", cutting.TEXTS)
        for statement in _STATEMENTS:
            database.execute(
                statement,
                {
                    name: value
                    for name, value in {
                        "titles": config.chosen.titles,
                        "queries": CANDIDATES * config.chosen.queries,
                        "photos": 1 if config.chosen.of_documents == "first" else PHOTOS_OF_DOCUMENT,
                    }.items()
                    if f"${name}" in statement
                },
            )
        for name, query, schema in _RESULTS:
            write_groups(cut / f"{name}.parquet", database.sql(query).to_arrow_reader(1 << 14), schema, 1 << 16)
        wanted = (
            batch
            for span in ranges(database, "pairs")
            for batch in database.sql(_WANTED, params=span).to_arrow_reader(1 << 14)
        )
        write_groups(cut / "wanted.parquet", wanted, WANTED, config.parts.learned)


_STATEMENTS = (
    # Photos of a group stand for one another: the kept photo has the documents of all.
    """CREATE TABLE shown AS
       SELECT g.kept AS number, m.document_id, m.image, m.position, m.number AS own
       FROM measured m JOIN groups g USING (number) WHERE g.kept IN (SELECT number FROM kept_photos)""",
    """CREATE TABLE titles AS
       SELECT number, text, row_number() OVER (PARTITION BY number ORDER BY own <> number, own, text) - 1 AS place FROM (
         SELECT s.number, k.text, min(s.own) AS own
         FROM shown s JOIN documents d USING (document_id) JOIN kept_titles k ON k.number = d.number
         GROUP BY ALL)""",
    # A click that names a photo counts for it; one that names a document only, for each of its first photos.
    """CREATE TABLE named AS
       SELECT c.document_id, k.text, c.image, sum(c.clicks)::BIGINT AS clicks
       FROM clicks c JOIN kept_queries k ON k.raw = c.text GROUP BY ALL""",
    """CREATE TABLE clicked AS
         SELECT n.document_id, n.text, s.number, true AS exact, sum(n.clicks)::BIGINT AS clicks, 0 AS place
         FROM named n JOIN (SELECT DISTINCT number, document_id, nfc_normalize(image) AS image FROM shown) s
         ON s.document_id = n.document_id AND s.image = nfc_normalize(n.image) GROUP BY ALL
         UNION ALL
         SELECT n.document_id, n.text, s.number, false AS exact, n.clicks, s.place
         FROM (SELECT document_id, text, sum(clicks)::BIGINT AS clicks FROM named WHERE image IS NULL GROUP BY ALL) n
         JOIN (SELECT number, document_id,
                      row_number() OVER (PARTITION BY document_id ORDER BY min(position), number) - 1 AS place
               FROM shown GROUP BY number, document_id QUALIFY place < $photos) s USING (document_id)
       ORDER BY ALL""",
    """CREATE TABLE queries AS
       SELECT number, text, clicks, row_number() OVER (PARTITION BY number ORDER BY clicks DESC, text) - 1 AS place
       FROM (SELECT number, text, sum(clicks)::BIGINT AS clicks FROM clicked GROUP BY ALL)""",
    """CREATE TABLE pairs AS
       SELECT number, 'title' AS source, text, 0::BIGINT AS clicks, place::INTEGER AS place
       FROM titles WHERE place < $titles
       UNION ALL
       SELECT number, 'query', text, clicks, place::INTEGER FROM queries WHERE place < $queries""",
    """CREATE TABLE beyond AS
       SELECT number, text, 'most_titles' AS reason, place + 1 AS value, $titles AS threshold
       FROM titles WHERE place >= $titles
       UNION ALL
       SELECT number, text, 'most_queries', place + 1, $queries FROM queries WHERE place >= $queries""",
)
_RESULTS: tuple[tuple[str, str, pa.Schema], ...] = (
    ("pairs", "SELECT * FROM pairs ORDER BY number, source DESC, place", PAIRS),
    (
        "of_documents",
        """SELECT c.document_id, c.text, c.number, c.exact, c.clicks, c.place::INTEGER AS place
           FROM clicked c JOIN pairs p ON p.source = 'query' AND p.number = c.number AND p.text = c.text
           ORDER BY c.number, c.text, c.document_id, c.exact""",
        OF_DOCUMENTS,
    ),
    (
        "join.ledger",
        """SELECT 'photo' AS kind, m.number, m.image AS id, m.document_id, NULL AS text, 'join' AS stage,
                   'no_text' AS reason, 'no title and no query is left' AS detail, 0::DOUBLE AS value, 1::DOUBLE AS threshold
            FROM measured m WHERE m.number IN (SELECT number FROM kept_photos)
                              AND m.number NOT IN (SELECT number FROM pairs)
            UNION ALL
            SELECT 'title', k.number, NULL, d.document_id, k.text, 'join', 'no_photo', 'no photo of the document is left', 0, 1
            FROM kept_titles k JOIN documents d USING (number)
            WHERE d.document_id NOT IN (SELECT document_id FROM shown)
            UNION ALL
            SELECT 'query', k.number, NULL, NULL, k.text, 'join', 'no_photo', 'no photo that it led to is left', 0, 1
            FROM kept_queries k WHERE k.text NOT IN (SELECT text FROM clicked)
            UNION ALL
            SELECT 'pair', number, NULL, NULL, text, 'join', reason, 'the photo has enough others', value, threshold
            FROM beyond
            ORDER BY kind, number, text""",
        LEDGER,
    ),
)
_WANTED = """
    SELECT m.number, m.uri, m.root, m."offset", m.length, m.sha256, p.texts
    FROM measured m
    JOIN (SELECT number, list(DISTINCT text ORDER BY text) AS texts FROM pairs
          WHERE number BETWEEN $low AND $high GROUP BY number) p USING (number)
    WHERE m.number BETWEEN $low AND $high ORDER BY m.number"""
