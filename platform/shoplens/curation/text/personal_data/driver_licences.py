"""Driver licences: RR-YY-NNNNNN-CC, where RR is the police agency; before that the region's name and YY-NNNNNN-CC.

Source: the codes of agencies as Korean open-source detectors list them. How CC is made is not public.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from shoplens.curation.text.personal_data.context import is_near
from shoplens.curation.text.personal_data.digit_groups import AFTER, BARE_AFTER, BARE_BEFORE, BEFORE, SEPARATOR
from shoplens.curation.text.personal_data.found import Confidence, Found

_AGENCY = "(?:1[1-9]|2[0-6]|28)"
_REGION = "(?:서울|부산|경기|강원|충북|충남|전북|전남|경북|경남|제주|대구|인천|광주|대전|울산)"
_TAIL = rf"[0-9]{{2}}{SEPARATOR}[0-9]{{6}}{SEPARATOR}[0-9]{{2}}{AFTER}"
_GROUPS = re.compile(rf"{BEFORE}{_AGENCY}{SEPARATOR}{_TAIL}")
_OLD = re.compile(rf"{_REGION}{SEPARATOR}?{_TAIL}")
_BARE = re.compile(rf"{BARE_BEFORE}{_AGENCY}[0-9]{{10}}{BARE_AFTER}")
_WORDS = re.compile("면허|(?i:licen[cs]e)")
_NEAR = 15


def driver_licences(text: str, view: str) -> Iterator[Found]:
    """Kind `driver_licence`: HIGH with separators, MID for 12 digits beside 면허, else LOW (17 % of 12 digits fit)."""
    for pattern in (_GROUPS, _OLD):
        for match in pattern.finditer(view):
            yield Found("driver_licence", *match.span(), Confidence.HIGH)
    for match in _BARE.finditer(view):
        named = is_near(_WORDS, text, *match.span(), _NEAR)
        yield Found("driver_licence", *match.span(), Confidence.MID if named else Confidence.LOW)
