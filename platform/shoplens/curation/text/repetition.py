"""Contraction of repetition that means nothing: "ㅋㅋㅋㅋㅋ" becomes "ㅋㅋ", "맛집 맛집 맛집" becomes "맛집".

Expects texts of `normal_form`. NAVER Search's curation contracts "meaningless repetition"; the rules are ours.
"""

from __future__ import annotations

import re

_SEPARATORS = r"\-.,:/~+*xX×=_·'\""
_ONE_THRICE = re.compile(r"(.)\1\1", re.DOTALL)
_MORE_THRICE = re.compile(r"(.{2,6}?)\1\1", re.DOTALL)
"""Fast tests: most texts repeat nothing. One pattern for both is three times as slow."""
_PHRASE = re.compile(r"(?<!\S)(\S+(?: \S+){0,2}?)(?: \1){2,}(?!\S)")
"""One to three words, three times or more in a row."""
_NUMERIC = re.compile(rf"[\d {_SEPARATORS}]*\d[\d {_SEPARATORS}]*")
_UNIT = re.compile(
    rf"\d(?:[\d{_SEPARATORS}]| (?! ))*\d"  # digits with separators between them stay
    r"|(?<![A-Za-z])(?:X{2,6}[LS]|x{2,6}[ls]|[IVX]*III|A{3,4}|www|WWW)(?![A-Za-z])"
    r"|(?P<unit>\D{1,6}?)(?P=unit){2,}"
)
"""What stays as it is (digits; sizes, Roman numerals, batteries, hosts), or a unit three times or more."""


def contracted(text: str) -> str:
    """The text without units that occur three times or more in a row, to a fixpoint: twice changes nothing more.

    | unit, 1 to 6 code points             | stays    | example                    |
    | ------------------------------------ | -------- | -------------------------- |
    | blanks, signs                        | one copy | "!!!!!!" becomes "!"       |
    | one letter, one jamo, one syllable   | two      | "goooood" becomes "good"   |
    | longer                               | one copy | "최고최고최고" becomes "최고" |
    | one to three words, of any length    | one copy | "맛집 맛집 맛집" becomes "맛집" |

    Units with a digit stay, and so do digits with separators between them: "10000000원", "111-111-111", "10x10x10".
    Of words, those of digits and separators alone stay: "1 1 1". What is repeated once stays: "바나나", "쓰담쓰담".
    Letters of sizes, Roman numerals, batteries and hosts stay: "XXXL", "III", "AAA", "www".
    The text never gets longer.
    """
    while True:
        before = text
        words = text.split(" ")
        if len(words) - len(set(words)) > 1:
            text = _PHRASE.sub(_one_phrase, text)
        if _ONE_THRICE.search(text) or _MORE_THRICE.search(text):
            text = _UNIT.sub(_fewer, text)
        if text == before:
            return text


def _one_phrase(match: re.Match[str]) -> str:
    return match[0] if _NUMERIC.fullmatch(match[1]) else match[1]


def _fewer(match: re.Match[str]) -> str:
    unit = match["unit"]
    if unit is None:
        return match[0]
    return unit * 2 if len(unit) == 1 and unit.isalpha() else unit
