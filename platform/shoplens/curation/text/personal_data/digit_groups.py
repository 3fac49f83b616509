"""Numbers as people type them: groups of digits, with many characters in place of the hyphen.

Source: none; the characters are those that Koreans type for a dash, such as the vowel "ㅡ".
"""

from __future__ import annotations

import re

_DASH_LIKE = re.compile("(?<=[0-9])[–—−﹣~〜ㅡᅳ·ㆍ・•.‐‑‒―](?=[0-9])")
_LETTER = re.compile("[A-Za-z]")
_NO_DIGIT = re.compile("[^0-9]+")

BEFORE = r"(?<![0-9*])(?<![0-9]-)"
"""Where a number may begin: not inside a longer one. A star is a digit that is masked."""
AFTER = r"(?![0-9*]|-[0-9])"
"""Where a number may end."""
BARE_BEFORE = r"(?<![0-9A-Za-z*])(?<![0-9A-Za-z]-)"
"""Where a code of letters and digits, or a number without separators, may begin: not inside a model's name."""
BARE_AFTER = r"(?![0-9A-Za-z*]|-[0-9A-Za-z])"
SEPARATOR = "(?: ?- ?| )"
"""Between the groups of a number in the form of `dashed`."""


def dashed(text: str) -> str:
    """The text with "-" for each character that stands for one between two digits. As long as the text."""
    return _DASH_LIKE.sub("-", text)


def digits_of(text: str) -> str:
    """The ASCII digits of a text."""
    return _NO_DIGIT.sub("", text)


def touches_letter(text: str, start: int, end: int) -> bool:
    """Whether `text[start:end]` has an ASCII letter right before it or behind it, as a part of a model's name has."""
    return bool(_LETTER.match(text, end) or (start and _LETTER.match(text, start - 1)))
