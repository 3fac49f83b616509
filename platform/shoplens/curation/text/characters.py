"""What a text is made of: shares of stand-alone jamo, Latin letters and signs, and the scripts of other languages.

Expects texts of `normal_form`. Sources: the rule of NAVER Search's curation, "(stand-alone) jamo / alphabet / special
characters at 50 % and more"; general categories and names of the Unicode Character Database.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator
from typing import NamedTuple

SHORTEST_EXEMPT = 3
"""Letters of the shortest word that can be exempt."""

_SYLLABLES_ONLY = re.compile("[가-힣 ]*")
_LATIN_RUN = re.compile("L+")
_LONE_LATIN = re.compile("(?<!L)L(?!L)")
_UNITS = "μΩ"
"""Greek letters of the normal form that are signs of units: micro, ohm."""
_SCRIPT_OF_NAME = {
    "CJK": "Han",
    "IDEOGRAPHIC": "Han",
    "KATAKANA-HIRAGANA": "Katakana",
    "HENTAIGANA": "Hiragana",
}
"""The first word of a character's name is its script, but for these."""
_NOT_SCRIPTS = {"COMBINING", "MODIFIER", "VARIATION", "MUSICAL", "MASU", "FEMININE", "MASCULINE"}


class Shares(NamedTuple):
    """Shares of the code points that are not blanks, each from 0 to 1. Digits and syllables belong to none.

    jamo         stand-alone consonants and vowels
    latin        Latin letters, less exempt words
    lone_latin   Latin letters with no Latin letter next to them: the other reading of the rule's "(stand-alone)"
    sign         punctuation, symbols and emoji, and what is neither letter nor number
    """

    jamo: float
    latin: float
    lone_latin: float
    sign: float


class ScriptShare(NamedTuple):
    """A script that is neither Hangul nor Latin, and its share of the code points that are not blanks (0 to 1)."""

    script: str
    share: float


def made_of(text: str, exempt: Collection[str] = ()) -> tuple[Shares, tuple[ScriptShare, ...]]:
    """`shares` and `foreign_scripts` of a text, in one pass."""
    if _SYLLABLES_ONLY.fullmatch(text):
        return _NONE, ()
    classes = classes_of(text)
    total = len(classes) - classes.count(" ")
    if not total:
        return _NONE, ()
    latin = classes.count("L")
    lone = len(_LONE_LATIN.findall(classes)) if latin else 0
    if exempt and latin >= SHORTEST_EXEMPT:
        latin -= sum(run.end() - run.start() for run in exempt_runs(text, classes, exempt))
    found = Shares(classes.count("J") / total, latin / total, lone / total, classes.count("S") / total)
    if "F" not in classes:
        return found, ()
    counts = Counter(_script(c) for c, kind in zip(text, classes, strict=True) if kind == "F")
    scripts = sorted(counts.items(), key=lambda x: (-x[1], x[0]))
    return found, tuple(ScriptShare(str(name), n / total) for name, n in scripts)


def shares(text: str, exempt: Collection[str] = ()) -> Shares:
    """The shares of a text. All are 0 in a text without characters.

    exempt   words in small letters (`str.casefold`), such as brands. A run of Latin letters that is one of them does
             not count as Latin, if it has at least three letters. Use a set

    Exempt code points stay in the denominator.
    """
    return made_of(text, exempt)[0]


def foreign_scripts(text: str) -> tuple[ScriptShare, ...]:
    """Scripts other than Hangul and Latin whose letters occur, the largest share first; then by name.

    Names are those of Unicode: "Han", "Hiragana", "Cyrillic". Emoji, signs and digits have no script; neither have the
    signs of units "μ" and "Ω". The caller decides what is too much, such as a share of Han above a limit.
    By script, because models of languages are unreliable for two or three words.
    """
    return made_of(text)[1]


def classes_of(text: str) -> str:
    """The class of each code point, one letter each.

    blank " ", Hangul "H", stand-alone jamo "J", Latin "L", number "N", sign "S", letter of another script "F".
    """
    return text.translate(_CLASSES)


def exempt_runs(text: str, classes: str, exempt: Collection[str]) -> Iterator[re.Match[str]]:
    """The runs of Latin letters that are exempt, as `shares` says; matches in the classes of the text."""
    for run in _LATIN_RUN.finditer(classes):
        if run.end() - run.start() >= SHORTEST_EXEMPT and text[run.start() : run.end()].casefold() in exempt:
            yield run


_NONE = Shares(0.0, 0.0, 0.0, 0.0)


def _script(character: str) -> str:
    """The script of a letter or a mark; empty if it belongs to none."""
    first = unicodedata.name(character, "").split(" ", 1)[0]
    return "" if first in _NOT_SCRIPTS else _SCRIPT_OF_NAME.get(first, first.title())


def _class(character: str) -> str:
    code = ord(character)
    if 0xAC00 <= code <= 0xD7A3:
        return "H"
    if character.isspace():
        return " "
    if any(code in block for block in _JAMO):
        return "J"
    category = unicodedata.category(character)
    if category[0] == "N":
        return "N"
    if category[0] not in "LM" or character in _UNITS:
        return "S"
    script = _script(character)
    return {"": "S", "Latin": "L", "Hangul": "H"}.get(script, "F")


_JAMO = (
    range(0x1100, 0x1200),
    range(0x3131, 0x318F),
    range(0xA960, 0xA97D),
    range(0xD7B0, 0xD7FC),
    range(0xFFA1, 0xFFDD),
)


class _Classes(dict[int, str]):
    """A table of `str.translate` that fills itself."""

    def __missing__(self, code: int) -> str:
        self[code] = found = _class(chr(code))
        return found


_CLASSES = _Classes()
