"""Business registration numbers (사업자등록번호): 3-2-5 digits, the last one a check digit.

Source: numbers that companies publish. As they are public, a policy may keep them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from shoplens.curation.text.personal_data.check_digits import is_business
from shoplens.curation.text.personal_data.context import is_near
from shoplens.curation.text.personal_data.digit_groups import (
    AFTER,
    BARE_AFTER,
    BARE_BEFORE,
    BEFORE,
    SEPARATOR,
    digits_of,
)
from shoplens.curation.text.personal_data.found import Confidence, Found

_GROUPS = re.compile(rf"{BEFORE}[1-9][0-9]{{2}}{SEPARATOR}[0-9]{{2}}{SEPARATOR}[0-9]{{5}}{AFTER}(?![A-Za-z])")
_BARE = re.compile(rf"{BARE_BEFORE}[1-9][0-9]{{9}}{BARE_AFTER}")
_WORDS = re.compile("사업자")
_NEAR = 15


def business_numbers(text: str, view: str) -> Iterator[Found]:
    """Kind `business_number`, HIGH: 3-2-5 with a check digit, or ten digits with one beside 사업자."""
    for match in _GROUPS.finditer(view):
        if is_business(digits_of(match.group())):
            yield Found("business_number", *match.span(), Confidence.HIGH)
    for match in _BARE.finditer(view):
        if is_business(match.group()) and is_near(_WORDS, text, *match.span(), _NEAR):
            yield Found("business_number", *match.span(), Confidence.HIGH)
