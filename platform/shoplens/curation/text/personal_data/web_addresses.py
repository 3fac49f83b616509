"""Addresses on the web, and of machines (IPv4).

Source: RFC 3986 for the characters of a path; top-level domains that Korean shops use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from shoplens.curation.text.personal_data.context import is_near
from shoplens.curation.text.personal_data.found import Confidence, Found

_PATH = r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*"
_FULL = re.compile(
    rf"(?i:https?://(?=[A-Za-z0-9]){_PATH}|(?<![A-Za-z0-9*@.])www\.[A-Za-z0-9-]+\.[A-Za-z0-9](?:{_PATH}))"
)
_BARE = re.compile(
    r"(?<![A-Za-z0-9@._*-])((?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.)+)"
    r"(com|net|org|kr|io|me|shop|store|co|tv|gg|ly|app|jp|cn|biz|info|dev|COM|ORG|KR|SHOP|STORE)"
    rf"(?![A-Za-z0-9@-]|\.[A-Za-z0-9])(?::[0-9]{{2,5}})?(/{_PATH})?"
)
_KOREAN = re.compile(r"(?<![가-힣@])[가-힣]{2,10}(?:\.(?:com|net|co\.kr|kr)|닷컴)(?![A-Za-z0-9])")
_ENDS = ".,;:!?)]'"
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_MACHINE = re.compile(rf"(?<![0-9A-Za-z.*-])(?:{_OCTET}\.){{3}}{_OCTET}(?![0-9A-Za-z*]|[.-][0-9])")
_MACHINE_WORDS = re.compile("아이피|서버|접속|(?i:(?<![a-z])ip(?![a-z]))")
_NEAR = 12


def web_addresses(text: str) -> Iterator[Found]:
    """Kind `url`: HIGH with a scheme or www, MID for a bare domain, LOW for a Korean name such as 네이버.com."""
    for match in _FULL.finditer(text):
        yield Found("url", match.start(), match.start() + len(match.group().rstrip(_ENDS)), Confidence.HIGH)
    for match in _BARE.finditer(text):
        label = match[1].split(".")[-2]
        if match[3] or (len(label) > 1 and not label.isdigit()):
            yield Found("url", match.start(), match.start() + len(match.group().rstrip(_ENDS)), Confidence.MID)
    for match in _KOREAN.finditer(text):
        yield Found("url", *match.span(), Confidence.LOW)


def machine_addresses(text: str) -> Iterator[Found]:
    """Kind `ip_address`: MID beside a word such as IP, else LOW, since versions look the same."""
    for match in _MACHINE.finditer(text):
        named = is_near(_MACHINE_WORDS, text, *match.span(), _NEAR)
        yield Found("ip_address", *match.span(), Confidence.MID if named else Confidence.LOW)
