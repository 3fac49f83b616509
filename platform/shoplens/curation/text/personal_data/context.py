"""Words that say what a number is."""

from __future__ import annotations

import re

_LONGEST_WORD = 16


def is_near(words: re.Pattern[str], text: str, start: int, end: int, distance: int) -> bool:
    """Whether one of the words lies at most `distance` code points before `start` or behind `end`."""
    return nearest(words, text, start, end, distance) is not None


def nearest(words: re.Pattern[str], text: str, start: int, end: int, distance: int) -> str | None:
    """The last of the words before `start`, else the first behind `end`, at most `distance` code points away."""
    before = None
    for match in words.finditer(text, max(0, start - distance - _LONGEST_WORD), start):
        if match.end() >= start - distance:
            before = match.group()
    if before is not None:
        return before
    behind = words.search(text, end, end + distance + _LONGEST_WORD)
    return behind.group() if behind is not None and behind.start() <= end + distance else None
