"""Korean passports: M123A4567 since 21 December 2021, M12345678 before.

Source: passport.go.kr for M, S, R, G and D (multiple, single, residence, official, diplomatic); Presidio for O.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from shoplens.curation.text.personal_data.context import is_near
from shoplens.curation.text.personal_data.digit_groups import BARE_AFTER, BARE_BEFORE
from shoplens.curation.text.personal_data.found import Confidence, Found

_NUMBER = re.compile(rf"{BARE_BEFORE}([MSRGDOmsrgdo])(?:[0-9]{{3}}([A-Za-z])[0-9]{{4}}|[0-9]{{8}}){BARE_AFTER}")
_WORDS = re.compile("여권|(?i:passport)")
_NEAR = 15


def passports(text: str) -> Iterator[Found]:
    """Kind `passport`.

    HIGH: the new form, or M or R and 8 digits, or a word beside it. MID: S, G, D or O and 8 digits. LOW: small letters.
    """
    for match in _NUMBER.finditer(text):
        letter, third = match.groups()
        if is_near(_WORDS, text, *match.span(), _NEAR):
            confidence = Confidence.HIGH
        elif letter.islower() or (third and third.islower()):
            confidence = Confidence.LOW
        else:
            confidence = Confidence.HIGH if third or letter in "MR" else Confidence.MID
        yield Found("passport", *match.span(), confidence)
