"""Resident registration numbers, foreigners' numbers, and the corporate numbers that look like them: YYMMDD-GNNNNNN.

The seventh digit G holds the century and the sex: 1 and 2 born in 19xx, 3 and 4 in 20xx, 9 and 0 in 18xx; foreigners 5 and
6 in 19xx, 7 and 8 in 20xx. Since October 2020 the last six digits are random, so a wrong check digit rejects nothing.

Source: the check digit as python-stdnum computes it, which however rejects a wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

from shoplens.curation.text.personal_data.check_digits import is_bar_code, is_corporate, is_foreigner, is_resident
from shoplens.curation.text.personal_data.context import is_near
from shoplens.curation.text.personal_data.digit_groups import AFTER, BEFORE, SEPARATOR, touches_letter
from shoplens.curation.text.personal_data.found import Confidence, Found

_NUMBER = re.compile(rf"{BEFORE}([0-9]{{6}})({SEPARATOR})?([0-9])(?:([0-9]{{6}}){AFTER}|[*Xx●○]{{6}}(?![*Xx●○]))")
_RESIDENT_WORDS = re.compile("주민|외국인등록|거소신고|(?i:rrn|resident)")
_CORPORATE_WORDS = re.compile("법인")
_NEAR = 15
"""Code points between a number and a word that names it."""
_CENTURIES = (1800, 1900, 1900, 2000, 2000, 1900, 1900, 2000, 2000, 1800)
"""For each seventh digit."""
_OLD = 100
"""Years. A number without a hyphen that makes a person older is more likely a time in milliseconds."""


def resident_numbers(text: str, view: str, today: date) -> Iterator[Found]:
    """Kinds `resident_number`, `foreigner_number` and `corporate_number`. `view` is `dashed(text)`.

    A number with a hyphen or a blank and a real date is MID, and HIGH with a check digit. Without, it is MID with a check
    digit, else LOW, as are bar codes and digits that touch letters. Masked forms count ("900101-1******").

    Corporate numbers are tested first. One whose digits could also be a person's, as "110111-1…", counts as corporate only
    beside a word that says so: to hide a company's number costs less than to show a person's.
    """
    for match in _NUMBER.finditer(view):
        start, end = match.span()
        birth, separator, seventh, rest = match.groups()
        digits = f"{birth}{seventh}{rest or ''}"
        year = _birth_year(birth, seventh, today)
        named = is_near(_RESIDENT_WORDS, text, start, end, _NEAR)
        personal = year is not None and (seventh not in "09" or named)
        if rest and is_corporate(digits):
            corporate = not named and is_near(_CORPORATE_WORDS, text, start, end, _NEAR)
            if corporate or (not personal and separator):
                yield Found("corporate_number", start, end, Confidence.HIGH)
                continue
        if year is None or not personal:
            continue
        kind, is_valid = ("foreigner_number", is_foreigner) if seventh in "5678" else ("resident_number", is_resident)
        if not rest:
            yield Found(kind, start, end, Confidence.MID, "masked")
            continue
        checked = is_valid(digits)
        if separator or named:
            confidence = Confidence.HIGH if checked else Confidence.MID
        elif checked and today.year - year <= _OLD and not is_bar_code(digits) and not touches_letter(text, start, end):
            confidence = Confidence.MID
        else:
            confidence = Confidence.LOW
        yield Found(kind, start, end, confidence)


def _birth_year(birth: str, seventh: str, today: date) -> int | None:
    """The year of birth. None: no real day, or one that has not come."""
    try:
        day = date(_CENTURIES[int(seventh)] + int(birth[:2]), int(birth[2:4]), int(birth[4:]))
    except ValueError:
        return None
    return day.year if day <= today else None
