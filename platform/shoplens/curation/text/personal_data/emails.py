"""E-mail addresses, also written to hide them: user(at)naver.com, user골뱅이네이버닷컴.

Source: RFC 5321 for lengths; the hidden forms are those seen on Korean pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from shoplens.curation.text.personal_data.found import Confidence, Found

_LOCAL = "(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}"
_AT = r" ?(?:@|[(\[{](?:@|at|골뱅이)[)\]}]|골뱅이) ?"
_DOT = r"(?:\.| ?(?:[(\[{](?:\.|dot|점)[)\]}]|닷|쩜|점) ?)"
_PROVIDER = "(?:네이버|다음|한메일|지메일|구글|핫메일|네이트|카카오)"
_DOMAIN = rf"(?:(?:[A-Za-z0-9][A-Za-z0-9-]{{0,62}}{_DOT})+[A-Za-z]{{2,24}}|(?:{_PROVIDER}|[A-Za-z0-9-]{{2,63}}){_DOT}(?:컴|넷|com|net))"
_PLAIN = re.compile(rf"{_LOCAL}@(?:[A-Za-z0-9][A-Za-z0-9-]{{0,62}}\.)+[A-Za-z]{{2,24}}")
_HIDDEN = re.compile(rf"(?i:{_LOCAL}{_AT}{_DOMAIN})")
_NO_DOMAIN = re.compile(rf"(?i:{_LOCAL}@(?:naver|gmail|daum|hanmail|kakao|nate)(?![A-Za-z0-9.-]))")


def emails(text: str) -> Iterator[Found]:
    """Kind `email`: HIGH as it is, MID in a hidden form (detail `hidden`), LOW without the domain's end ("user@naver")."""
    for match in _PLAIN.finditer(text):
        yield Found("email", *match.span(), Confidence.HIGH)
    for match in _HIDDEN.finditer(text):
        if not _PLAIN.fullmatch(match.group()):
            yield Found("email", *match.span(), Confidence.MID, "hidden")
    for match in _NO_DOMAIN.finditer(text):
        yield Found("email", *match.span(), Confidence.LOW)
