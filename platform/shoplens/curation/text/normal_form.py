"""One form for texts that look alike. Every other function of this package expects it.

Source: Unicode Standard Annex 15 (NFC, NFKC).
"""

from __future__ import annotations

import functools
import re
import unicodedata

_NORMAL = re.compile(r"[!-~가-힣ㄱ-ㅣㅥ-ㆎ]+(?: [!-~가-힣ㄱ-ㅣㅥ-ㆎ]+)*")
"""Texts that are their own normal form, in a fast test: ASCII, syllables, stand-alone jamo, single blanks."""
_INVISIBLE = re.compile(
    "[\u00ad\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0]+"
)
"""Soft hyphens, fillers of Hangul, joiners, marks of direction, variation selectors."""
_STANDALONE_JAMO = range(0x3131, 0x318F)
_HALFWIDTH_JAMO = range(0xFFA0, 0xFFDD)


def normal_form(text: str) -> str:
    """The text in one form: composed, without compatibility variants and invisible characters, blanks as one space.

    - NFC first, so that file names of macOS read as others do.
    - Then NFKC for each code point by itself: "ＡＢＣ" becomes "ABC". Stand-alone jamo stay: NFKC of the whole text turns "ㅋ"
      into a part of a syllable, and "ㄱㅏ" into "가".
    - A code point stays as it is if its NFKC form takes more bytes in UTF-8, such as "㈜" or "½": no text gets longer.

    Applying it twice changes nothing more.
    """
    if _NORMAL.fullmatch(text):
        return text
    text = unicodedata.normalize("NFC", text)
    text = "".join(map(_compatible, _INVISIBLE.sub("", text)))
    return " ".join(unicodedata.normalize("NFC", text).split())


@functools.lru_cache(maxsize=1 << 16)
def _compatible(character: str) -> str:
    code = ord(character)
    if code < 0x80 or code in _STANDALONE_JAMO:
        return character
    if code in _HALFWIDTH_JAMO:  # one step of the decomposition: the stand-alone jamo
        return (
            chr(int(unicodedata.decomposition(character).split()[-1], 16))
            if unicodedata.decomposition(character)
            else character
        )
    form = unicodedata.normalize("NFKC", character)
    return form if len(form.encode()) <= len(character.encode()) else character
