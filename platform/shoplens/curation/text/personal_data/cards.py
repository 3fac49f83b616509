"""Payment cards: 13 to 19 digits that pass Luhn's test and begin with 3 to 6.

Source: ISO/IEC 7812-1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from shoplens.curation.text.personal_data.check_digits import is_card
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

_GROUPS = re.compile(
    rf"{BEFORE}(?:[4-6][0-9]{{3}}|35[0-9]{{2}})(?:{SEPARATOR}[0-9]{{4}}){{3}}(?P<more>{SEPARATOR}[0-9]{{1,3}})?{AFTER}"
    rf"|{BEFORE}3[0-9]{{3}}{SEPARATOR}[0-9]{{6}}{SEPARATOR}[0-9]{{4,5}}{AFTER}"
)
_BARE = re.compile(rf"{BARE_BEFORE}[3-6][0-9]{{12,18}}{BARE_AFTER}")
_WORDS = re.compile("카드|(?i:card|visa|master|amex)")
_NEAR = 15


def cards(text: str, view: str) -> Iterator[Found]:
    """Kind `card`: HIGH with separators, MID without.

    Bar codes have 13 or 14 digits too. Without a word for cards near, these are LOW, except 14 digits that begin with 3.
    """
    for match in _GROUPS.finditer(view):
        for end in (match.end(), match.start("more")):  # the digits behind 16 may be the next word: "4 단"
            if end > match.start() and is_card(digits_of(view[match.start() : end])):
                yield Found("card", match.start(), end, Confidence.HIGH)
                break
    for match in _BARE.finditer(view):
        digits = match.group()
        if is_card(digits):
            clear = len(digits) > 14 or (len(digits) == 14 and digits[0] == "3")
            named = is_near(_WORDS, text, *match.span(), _NEAR)
            yield Found("card", *match.span(), Confidence.MID if clear or named else Confidence.LOW)
