"""Profanity and words of sex in Korean and English texts, also with separators inside and in stand-alone jamo.

Expects texts of `normal_form`. The lists lie in `words/`, with their sources and licences.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.resources import files
from typing import Literal, NamedTuple

Kind = Literal["profanity", "adult"]

_FILES: dict[Kind, str] = {"profanity": "profanity.txt", "adult": "adult.txt"}
_MARK = r"[\dxX_]|[^\w\s()\[\]{}<>]"
"""What stands between syllables to hide a word: "시1발", "시*발"."""
_MARKS = rf"(?:{_MARK}){{0,3}}"
_BLANK = rf"(?: (?:(?:{_MARK}){{1,3}} ?)?|(?:{_MARK}){{1,3}} ?)"
_AFTER_FIRST = r"(?<![가-힣\d].)"
"""Behind the first syllable: no syllable and no digit before it."""
_ENDING = r"(?:(?![가-힣])|(?=[놈년새럼아야이들]))"
_LETTER = re.compile(r"\[([^\]]+)\]|(.)")


class Match(NamedTuple):
    """A word that offends: its kind, and the code points `text[start:end]`."""

    kind: Kind
    start: int
    end: int


def offensive(text: str) -> list[Match]:
    """The offensive words of a text, by start. Empty if there is none.

    - Between the syllables of a word there may be up to three digits or signs: "시1발", "시*발". Brackets divide.
      Such a word must stand by itself: "시/발라드" is none.
    - There may be blanks if every piece is one syllable: "시 발", but not "다시 발표".
    - Stand-alone jamo are put together first: "ㅅㅣㅂㅏㄹ", "시바ㄹ". Initial consonants such as "ㅅㅂ" count unless other
      consonants stand next to them; "ㅋ" and "ㅎ" may.
    - A word inside a harmless one is left out: "시발점", "남자지갑", "유니섹스".

    Medicine, lingerie, food and fishing have no words on the lists.
    """
    found: list[Match] = []
    if _ANY.search(text):
        found += _words(text, _KOREAN_OF)
    if _JAMO.search(text):
        found += (Match("profanity", *m.span()) for m in _INITIALS.finditer(text))
        if _SPLIT.search(text):
            found += _in_jamo(text)
    small = _small(text)
    if _ENGLISH.search(small):
        found += _words(small, _ENGLISH_OF)
    return sorted(set(found), key=lambda match: (match.start, match.end)) if found else found


def _words(text: str, patterns: dict[Kind, re.Pattern[str]]) -> list[Match]:
    """The words of the patterns that no harmless phrase covers."""
    found = [Match(kind, *m.span()) for kind, pattern in patterns.items() for m in pattern.finditer(text)]
    harmless = [m.span(1) for m in _INNOCENT.finditer(text)] if found else []
    if not harmless:
        return found
    return [word for word in found if not any(start <= word.start and word.end <= end for start, end in harmless)]


def _in_jamo(text: str) -> list[Match]:
    """Words of the text with its stand-alone jamo put together, in spans of the text."""
    starts: list[int] = []
    composed = ""
    at = 0
    for m in _SPLIT.finditer(text):
        starts += [*range(at, m.start()), m.start()]
        composed += text[at : m.start()] + _syllable(m)
        at = m.end()
    starts += range(at, len(text) + 1)
    composed += text[at:]
    return [Match(kind, starts[start], starts[end]) for kind, start, end in _words(composed, _KOREAN_OF)]


_LEADS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
_VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
_TAILS = " ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"
_OPEN = "".join(chr(code) for code in range(0xAC00, 0xD7A4, 28))
_SPLIT = re.compile(
    rf"(?P<lead>[{_LEADS}])(?P<vowel>[{_VOWELS}])(?P<tail>[{_TAILS[1:]}](?![{_VOWELS}]))?"
    rf"|(?P<open>[{_OPEN}])(?P<added>[{_TAILS[1:]}])(?![ㄱ-ㅣ])"
)
"""A syllable in stand-alone jamo, or one without a final consonant and the only consonant behind it: not "바ㅋㅋ"."""


def _syllable(match: re.Match[str]) -> str:
    tail = _TAILS.index(match["tail"] or match["added"] or " ")
    if match["open"]:
        return chr(ord(match["open"]) + tail)
    return chr(0xAC00 + (_LEADS.index(match["lead"]) * 21 + _VOWELS.index(match["vowel"])) * 28 + tail)


def _lines(name: str) -> list[str]:
    text = files(__package__).joinpath("words", name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _korean(entries: Iterable[str]) -> re.Pattern[str]:
    """One pattern, by the first syllable, so that a search passes over the others fast."""
    by_first: dict[str, list[str]] = {}
    for entry in entries:
        letters = [m[1] or m[2] for m in _LETTER.finditer(entry.strip("<>"))]
        rest = [f"[{letter}]" for letter in letters[1:]]
        forms = [_AFTER_FIRST * entry.startswith("<") + "".join(rest) + "(?![가-힣])" * entry.endswith(">")]
        if rest:
            forms.append(_AFTER_FIRST + _MARKS + _MARKS.join(rest) + _ENDING)
            if not (entry.startswith("<") and entry.endswith(">")):
                forms.append(_AFTER_FIRST + _BLANK + _BLANK.join(rest) + "(?![가-힣])")
        for first in letters[0]:
            by_first.setdefault(first, []).extend(forms)
    return re.compile("|".join(f"{first}(?:{'|'.join(forms)})" for first, forms in by_first.items()))


def _english(entries: Iterable[str]) -> re.Pattern[str]:
    """One pattern for texts in small letters, by the first letter."""
    by_first: dict[str, list[str]] = {}
    for entry in entries:
        rest = entry[1:].replace(" ", "[ -]?")
        by_first.setdefault(entry[0], []).append(rest[:-1] + "[a-z]*" if rest.endswith("+") else rest)
    return re.compile(
        "|".join(f"{first}(?<![a-z].)(?:{'|'.join(rests)})(?![a-z])" for first, rests in by_first.items())
    )


def _small(text: str) -> str:
    """In small letters, with as many code points: "İ" stays."""
    small = text.lower()
    return small if len(small) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


_ENTRIES = {kind: _lines(name) for kind, name in _FILES.items()}
_JAMO = re.compile("[ㄱ-ㅣ]")
_KOREAN_OF = {kind: _korean(e for e in entries if re.search("[가-힣]", e)) for kind, entries in _ENTRIES.items()}
_ENGLISH_OF = {kind: _english(e for e in entries if re.search("[a-z]", e)) for kind, entries in _ENTRIES.items()}
_ANY = _korean(e for entries in _ENTRIES.values() for e in entries if re.search("[가-힣]", e))
_ENGLISH = _english(e for entries in _ENTRIES.values() for e in entries if re.search("[a-z]", e))
_INITIALS = re.compile(
    rf"(?<![ㄱ-ㅊㅌ-ㅍ])(?<![ㄱ-ㅊㅌ-ㅍ][^\w])(?:{'|'.join(_MARKS.join(e) for e in _ENTRIES['profanity'] if _JAMO.match(e))})"
    r"(?![ㄱ-ㅊㅌ-ㅍ])(?![^\w][ㄱ-ㅊㅌ-ㅍ])"
)
_INNOCENT = re.compile(f"(?=({'|'.join(_lines('innocent.txt'))}))", re.IGNORECASE)
