"""Why a record is dropped: what the ledger of a curation holds for each reason."""

from __future__ import annotations

from typing import NamedTuple


class Verdict(NamedTuple):
    """One reason to drop a photo or a text.

    reason     the name of the rule, such as `white`
    value      what was measured
    threshold  the limit of the rule
    detail     what the value alone does not say, such as the kind of personal data
    """

    reason: str
    value: float
    threshold: float
    detail: str = ""
