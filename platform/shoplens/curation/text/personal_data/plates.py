"""Plates of vehicles: 12가3456, 123가4567.

Source: none for the syllables; they are those on plates in use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from shoplens.curation.text.personal_data.context import is_near
from shoplens.curation.text.personal_data.found import Confidence, Found

_SYLLABLES = "가나다라마거너더러머버서어저고노도로모보소오조구누두루무부수우주바사아자배하허호"
PLATE = re.compile(rf"(?<![0-9A-Za-z*-])[0-9]{{2,3}}[{_SYLLABLES}] ?[0-9]{{4}}(?![0-9A-Za-z*]|-[0-9])")
_WORDS = re.compile("차량|번호판|차번호|주차|자동차")
_NEAR = 15


def plates(text: str) -> Iterator[Found]:
    """Kind `plate`: MID beside a word for a car, else LOW ("40수 1000" is a thread count)."""
    for match in PLATE.finditer(text):
        named = is_near(_WORDS, text, *match.span(), _NEAR)
        yield Found("plate", *match.span(), Confidence.MID if named else Confidence.LOW)
