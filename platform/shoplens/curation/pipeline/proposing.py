"""Noise words that a person may add to `texts.noise_words`: found by the scores of photos and texts, and only proposed.

All pairs that were scored count, also those below the limit of the score: those above it have a lift by their choice.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shoplens.curation.pipeline import joining
from shoplens.curation.pipeline import learned as learned_signals
from shoplens.curation.pipeline.config import CurationConfig
from shoplens.curation.pipeline.files import write_table
from shoplens.curation.pipeline.tables import connect, view
from shoplens.curation.text import noise_words
from shoplens.curation.text.noise_words import Lifts, NoiseWord
from shoplens.curation.text.personal_data.detection import masked, personal_data

COLUMNS = ("word", "photos", "pairs", "lift", "error")
"""Columns of the CSV; see `NoiseWord`."""
PROPOSED = pa.schema(
    [
        ("word", pa.string()),
        ("photos", pa.int64()),
        ("pairs", pa.int64()),
        ("lift", pa.float64()),
        ("error", pa.float64()),
        ("example", pa.string()),
    ]
)
"""Proposed words, and a text with each."""


def propose(config: CurationConfig, learned: Path, cut: Path, day: date) -> None:
    """Writes `cut/noise_words.parquet` (PROPOSED), the most frequent word first. Without a score it is not written.

    learned   folder of what the models measured
    day       numbers of persons born later count as something else

    A word is a piece of a text between blanks, in small letters, without the signs at its ends, of two letters or more:
    a shorter one starts too many others. It counts once in a text. Words with personal data are left out, and those that
    `texts.noise_words` has already.

    Sums are made of whole numbers, so that neither parts nor threads change the result.
    """
    path, score = cut / "noise_words.parquet", config.learned.score
    background = learned / "background.npy"
    if score is None or path.exists() or not background.exists():
        return
    with connect(cut, config.memory) as database:
        view(database, "pairs", cut / "pairs.parquet", joining.PAIRS)
        view(database, "scores", learned / "scores/*.parquet", learned_signals.SCORES)
        database.execute(_LIFTS.format(score="masked" if score.masked else "score", scale=_SCALE))
        database.execute(_WORDS)
        ((usual,),) = database.sql("SELECT coalesce(sum(lift) / count(*), 0)::DOUBLE FROM lifts").fetchall()
        sums = database.sql(_SUMS, params={"least": score.noise_words.least_photos}).to_arrow_table()
        columns = [np.asarray(sums[name], np.float64) / _SCALE**power for name, power in _POWERS.items()]
        found = noise_words.learned(
            sums["word"].to_pylist(),
            Lifts(*columns),
            usual / _SCALE,
            len(np.load(background, mmap_mode="r")),
            least_photos=score.noise_words.least_photos,
            lift_share=score.noise_words.lift_share,
        )
        known = noise_words.pattern(config.texts.noise_words)
        found = [one for one in found if not known.search(one.word) and not personal_data(one.word, today=day)]
        examples = dict(database.execute(_EXAMPLES, {"found": [one.word for one in found]}).fetchall())
    rows = [one._asdict() | {"example": _hidden(examples[one.word], day)} for one in found]
    write_table(path, rows, PROPOSED)


def proposed(cut: Path) -> list[tuple[NoiseWord, str]]:
    """The proposed words, and a text with each."""
    path = cut / "noise_words.parquet"
    rows = pq.read_table(path).to_pylist() if path.exists() else []
    return [(NoiseWord(*(row[name] for name in COLUMNS)), row["example"]) for row in rows]


def as_csv(words: Sequence[NoiseWord]) -> bytes:
    """The words as CSV in UTF-8 with a byte order mark, which spreadsheets need for Hangul."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([*one[:3], f"{one.lift:.5f}", f"{one.error:.5f}"] for one in words)
    return file.getvalue().encode("utf-8-sig")


def _hidden(text: str, day: date) -> str:
    return masked(text, personal_data(text, today=day))


_SCALE = 10**learned_signals.DIGITS
_POWERS = {"photos": 0, "pairs": 0, "total": 1, "squares": 2, "products": 1, "pairs_squares": 0, "deviations": 1}
"""Columns of the sums, and the power of the unit of the score that they are in."""
_LIFTS = """
    CREATE TABLE lifts AS
    SELECT number, text, round((score - mean) * {scale})::BIGINT AS lift, round(deviation * {scale})::BIGINT AS deviation
    FROM (SELECT DISTINCT ON (number, text) number, text, {score} AS score, mean, deviation FROM scores
          SEMI JOIN pairs USING (number, text) WHERE {score} IS NOT NULL ORDER BY ALL)"""
_WORDS = r"""
    CREATE VIEW words AS
    SELECT number, text, lift, deviation,
           unnest(list_distinct(list_transform(string_split(lower(text), ' '),
             lambda piece: regexp_replace(piece, '^[^\p{L}\p{N}_]+|[^\p{L}\p{N}_]+$', '', 'g')))) AS word
    FROM lifts"""
_SUMS = r"""
    SELECT word, count(*)::DOUBLE AS photos, sum(n)::DOUBLE AS pairs, sum(s)::DOUBLE AS total, sum(s * s)::DOUBLE AS squares,
           sum(s * n)::DOUBLE AS products, sum(n * n)::DOUBLE AS pairs_squares, sum(d)::DOUBLE AS deviations
    FROM (SELECT number, word, count(*) AS n, sum(lift)::BIGINT AS s, sum(deviation)::BIGINT AS d
          FROM words WHERE regexp_matches(word, '\p{L}.*\p{L}') GROUP BY ALL)
    GROUP BY word HAVING count(*) >= $least ORDER BY word"""
_EXAMPLES = "SELECT word, min(text) FROM words WHERE word IN (SELECT unnest($found::VARCHAR[])) GROUP BY word"
