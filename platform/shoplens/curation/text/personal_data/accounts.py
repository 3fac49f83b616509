"""Bank accounts: 10 to 14 digits beside a bank's name.

Source: none for the formats: each bank has its own, and no check digit is public.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from shoplens.curation.text.personal_data.context import is_near
from shoplens.curation.text.personal_data.digit_groups import BARE_AFTER, BARE_BEFORE, digits_of
from shoplens.curation.text.personal_data.found import Confidence, Found

_NUMBER = re.compile(rf"{BARE_BEFORE}[0-9]{{2,14}}(?:-[0-9]{{1,7}}){{0,3}}{BARE_AFTER}")
_DIGITS = range(10, 15)
_BANKS = re.compile(
    "은행|뱅크|국민|신한|우리|하나|기업|농협|수협|신협|새마을금고|우체국|SC제일|씨티|케이뱅크|카카오|토스|증권"
)
_WORDS = re.compile("계좌|입금|예금주|송금")
_NEAR = 15


def accounts(text: str, view: str) -> Iterator[Found]:
    """Kind `account`: MID if both a bank and a word such as 계좌 are near, LOW with one of them."""
    if not (_BANKS.search(text) or _WORDS.search(text)):
        return
    for match in _NUMBER.finditer(view):
        if len(digits_of(match.group())) in _DIGITS:
            hints = sum(is_near(words, text, *match.span(), _NEAR) for words in (_BANKS, _WORDS))
            if hints:
                yield Found("account", *match.span(), Confidence.MID if hints == 2 else Confidence.LOW)
