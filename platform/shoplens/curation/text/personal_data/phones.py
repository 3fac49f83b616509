"""Korean phone numbers: mobile, landline, internet, safe, free, paid and companies' numbers, also with +82 or in words.

Source: the metadata of libphonenumber for the region KR.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from shoplens.curation.text.personal_data.context import is_near
from shoplens.curation.text.personal_data.digit_groups import AFTER, BEFORE, touches_letter
from shoplens.curation.text.personal_data.found import Confidence, Found

_GAP = "(?: ?[-)] ?| )?"
PHONE = re.compile(
    rf"{BEFORE}(?P<trunk>(?:\+ ?|00)82{_GAP}(?:\(0\){_GAP}|\(?0)?|82-|\(?0)"
    rf"(?:(?P<mobile>1(?:0{_GAP}[0-9]{{4}}|[16789]{_GAP}[0-9]{{3,4}}))"
    rf"|(?P<landline>(?:2|3[1-3]|4[1-4]|5[1-5]|6[1-4]){_GAP}[1-9][0-9]{{2,3}})"
    rf"|(?P<internet>70{_GAP}[0-9]{{4}})"
    rf"|(?P<safe>50[0-9]{_GAP}[0-9]{{3,4}})"
    rf"|(?P<free>80{_GAP}[0-9]{{3,4}})"
    rf"|(?P<paid>60{_GAP}[0-9]{{3,4}})"
    rf"){_GAP}[0-9]{{4}}(?![0-9*]|-(?!0[0-9]{{1,2}}[-)])[0-9]{{3}})"
)
"""In the form of `digit_groups.dashed`. May be followed by one or two digits ("02-123-4567~8") or by another phone."""
_BUSINESS = re.compile(
    rf"{BEFORE}(15(?:22|33|44|66|77|88|99)|16(?:00|44|60|61|66|68|70|88)|18(?:00|11|33|55|77|99))( ?- ?| )([0-9]{{4}}){AFTER}"
    r"(?! ?(?:원|년|개|명|장|매|ml|mm|cm|g\b|kg|만|[A-Za-z]))"
)
_DIGIT = "[0-9공영일이삼사오육륙칠팔구]"
SPOKEN = re.compile(rf"[공영]일[공영]{_GAP}{_DIGIT}{{4}}{_GAP}{_DIGIT}{{4}}(?!{_DIGIT})")
_WORDS = re.compile(
    "전화|연락처|휴대폰|핸드폰|폰번호|번호|문의|상담|고객센터|콜센터|팩스|☎|☏|(?i:(?<![a-z])(?:tel|phone|call|fax|h[.]?p))"
)
_NEAR = 12
_LATEST_YEAR = 2100


def phones(text: str, view: str) -> Iterator[Found]:
    """Kind `phone`; the detail is the group of the number: mobile, landline, internet, safe, free, paid or business.

    - Mobile with 010 or with separators: HIGH. Others: MID, HIGH after +82.
    - Nine digits in a row, or digits that touch letters: LOW.
    - Companies' numbers ("1588-1234"): MID with a hyphen or beside a word such as 문의, else LOW. Eight digits in a row are
      no phone. Ranges of years and prices ("1600-1700") are LOW.
    """
    for match in PHONE.finditer(view):
        yield Found("phone", *match.span(), _confidence(match, text), str(match.lastgroup))
    for match in _BUSINESS.finditer(view):
        first, gap, second = match.groups()
        hyphen = text[match.start() + len(first) : match.end() - len(second)].strip() == "-"
        is_range = int(first) < int(second) <= _LATEST_YEAR and second.endswith("0")
        clear = (hyphen and not is_range) or is_near(_WORDS, text, *match.span(), _NEAR)
        yield Found("phone", *match.span(), Confidence.MID if clear else Confidence.LOW, "business")


def spoken_phones(view: str) -> Iterator[Found]:
    """Mobile numbers in Korean numerals, HIGH: "공일공 일이삼사 5678"."""
    for match in SPOKEN.finditer(view):
        yield Found("phone", *match.span(), Confidence.HIGH, "mobile")


def _confidence(match: re.Match[str], text: str) -> Confidence:
    start, end = match.span()
    number = match.group()
    international = not match["trunk"].endswith("0") or len(match["trunk"]) > len("(0")
    mobile = match["mobile"] is not None
    if number.isdigit() and not international:
        if mobile and number.startswith("010"):
            return Confidence.HIGH
        if (touches_letter(text, start, end) or len(number) == len("021234567")) and not is_near(
            _WORDS, text, start, end, _NEAR
        ):
            return Confidence.LOW
        return Confidence.MID
    return Confidence.HIGH if mobile or international else Confidence.MID
