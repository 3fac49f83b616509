"""The ledger: every photo, text and pair that was dropped, with the reason, what was measured, and the limit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from shoplens.curation.verdict import Verdict

LEDGER = pa.schema(
    [
        ("kind", pa.string()),
        ("number", pa.int64()),
        ("id", pa.string()),
        ("document_id", pa.string()),
        ("text", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
    ]
)
LEDGER_WITH_SOURCE = LEDGER.insert(LEDGER.get_field_index("text"), pa.field("source", pa.string()))
"""Columns of `ledger.parquet`: a row for each reason, so a photo or text may have several.

kind     photo, title, query, pair (a photo and a text) or click
number   row of the raw photos or documents; place of the query among the distinct ones; of a pair: its photo
id       the path or URL of the photo
source   of the document, such as `blog`
text     of a title, query or pair; letters and digits of personal data are "*"
stage    the step that dropped it
"""


def rows(verdicts: Iterable[Verdict], **columns: Any) -> list[dict[str, Any]]:
    """A row for each verdict."""
    return [
        {**columns, "reason": verdict.reason, "detail": verdict.detail}
        | {"value": float(verdict.value), "threshold": float(verdict.threshold)}
        for verdict in verdicts
    ]
