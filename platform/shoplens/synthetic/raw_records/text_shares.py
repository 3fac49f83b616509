"""What a text is made of, counted as the specification says: shares of code points that are not blanks.

Written apart from the curation, so that each can find an error of the other.
"""

from __future__ import annotations

import unicodedata

CLEAR = 0.42
"""A text that stays has no larger share of jamo, Latin letters or signs; the specification drops 0.5."""
BROKEN = 0.58
"""A text that is dropped for one of them has at least this share of it."""
_USUAL = {code + 0xFEE0: code for code in range(0x21, 0x7F)}


def shares(text: str) -> dict[str, float]:
    """Shares of stand-alone jamo, Latin letters, and signs (Unicode P and S), 0 to 1; 0 in a text without characters.

    Full-width characters count as their usual forms; invisible ones do not count.
    """
    usual = unicodedata.normalize("NFC", text).translate(_USUAL)
    found = [c for c in usual if not c.isspace() and unicodedata.category(c) != "Cf"]
    counts = {"jamo": 0, "latin": 0, "sign": 0}
    for c in found:
        if "ㄱ" <= c <= "ㆎ":
            counts["jamo"] += 1
        elif c.isascii() and c.isalpha():
            counts["latin"] += 1
        elif unicodedata.category(c)[0] in "PS":
            counts["sign"] += 1
    return {kind: count / max(1, len(found)) for kind, count in counts.items()}


def is_clear(text: str) -> bool:
    """Whether the text stays without doubt."""
    return max(shares(text).values()) <= CLEAR


def broken(text: str) -> str | None:
    """The part that is too much without doubt: jamo, latin or sign; None if there is none."""
    kind, share = max(shares(text).items(), key=lambda item: item[1])
    return kind if share >= BROKEN else None
