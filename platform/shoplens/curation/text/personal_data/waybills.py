"""Numbers of parcels (운송장): of Korean carriers, and international ones (S10).

Source: UPU standard S10; delivery-tracker for the remainder by 7, which it knows of Lotte. One in ten random numbers has it,
so digits in a row count only beside a word for parcels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from shoplens.curation.text.personal_data.check_digits import is_bar_code, is_mod_7, is_parcel
from shoplens.curation.text.personal_data.context import nearest
from shoplens.curation.text.personal_data.digit_groups import (
    AFTER,
    BARE_AFTER,
    BARE_BEFORE,
    BEFORE,
    SEPARATOR,
    digits_of,
)
from shoplens.curation.text.personal_data.found import Confidence, Found
from shoplens.curation.text.personal_data.phones import PHONE

_FOURS = re.compile(rf"{BEFORE}[0-9]{{4}}-[0-9]{{4}}-[0-9]{{4}}{AFTER}")
_NUMBER = re.compile(
    rf"{BARE_BEFORE}(?:[0-9]{{10,14}}"
    rf"|[0-9]{{4,5}}{SEPARATOR}[0-9]{{4}}{SEPARATOR}[0-9]{{4}}(?:{SEPARATOR}[0-9]{{2}})?"
    rf"|[0-9]{{3}}{SEPARATOR}[0-9]{{3,4}}{SEPARATOR}[0-9]{{4,5}}"
    rf"|[0-9]{{4}}{SEPARATOR}[0-9]{{3}}{SEPARATOR}[0-9]{{3,4}}){BARE_AFTER}"
)
_S10 = re.compile(
    rf"{BARE_BEFORE}[A-Za-z]{{2}}[ -]?([0-9]{{9}}|[0-9]{{3}} [0-9]{{3}} [0-9]{{3}}|[0-9]{{4}} [0-9]{{4}} [0-9])[ -]?([A-Za-z]{{2}}){BARE_AFTER}"
)
_WORDS = re.compile(
    "운송장|송장|롯데택배|한진택배|로젠택배|우체국택배|택배|등기|배송조회|CJ대한통운|대한통운|롯데글로벌로지스|한진|로젠|우체국"
)
_CARRIERS = {"대한통운": "cj", "롯데": "lotte", "한진": "hanjin", "로젠": "logen", "우체국": "korea_post"}
_NEAR = 12
_DIGITS = range(10, 15)
_TIME = re.compile("20[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])(?:[01][0-9]|2[0-3])[0-5][0-9](?:[0-5][0-9])?")


def waybills(text: str, view: str) -> Iterator[Found]:
    """Kind `waybill`; the detail is the carrier if its name is near, or `international`.

    HIGH: S10 with its check digit, or 10 to 14 digits at most 12 code points from a word for parcels. Not phones, bar codes
    and times. MID: 4-4-4 digits with a hyphen whose last digit is the remainder by 7.
    """
    for match in _S10.finditer(text):
        if is_parcel(digits_of(match[1])):
            korean = match[2].upper() == "KR"
            yield Found("waybill", *match.span(), Confidence.HIGH if korean else Confidence.MID, "international")
    if _WORDS.search(text):
        yield from _named(text, view)
    for match in _FOURS.finditer(view):
        if is_mod_7(digits_of(match.group())):
            yield Found("waybill", *match.span(), Confidence.MID)


def _named(text: str, view: str) -> Iterator[Found]:
    for match in _NUMBER.finditer(view):
        digits = digits_of(match.group())
        if len(digits) not in _DIGITS or PHONE.fullmatch(view, *match.span()):
            continue
        if (len(digits) == 13 and is_bar_code(digits)) or _TIME.fullmatch(digits):
            continue
        word = nearest(_WORDS, text, *match.span(), _NEAR)
        if word is not None:
            carrier = next((carrier for name, carrier in _CARRIERS.items() if name in word), "")
            yield Found("waybill", *match.span(), Confidence.HIGH, carrier)
