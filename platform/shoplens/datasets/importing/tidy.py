"""One spelling of a text: one Unicode form, plain blanks, and no characters that nobody sees."""

from __future__ import annotations

import math
import re
import unicodedata
from decimal import Decimal
from typing import Any

_UNSEEN = dict.fromkeys(
    [0x00AD, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), 0x2060, *range(0x2066, 0x206A), 0xFEFF]
)
_JOINERS = "\u200c\u200d"
"""They shape letters within a word; at its ends they do nothing."""
_NO_VALUE = {"nan", "NaN", "NAN", "<NA>", "NaT", "null", "NULL", "N/A", "n/a", "#N/A"}
_WHOLE = re.compile(r"(\d+)\.0")


def tidy(text: str) -> str:
    """A name or an id: Unicode NFC, no zero-width characters, no blanks at the ends, single blanks within.

    Raises ValueError if the text is not valid Unicode (a lone surrogate).
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.translate(_UNSEEN)).strip(_JOINERS)
        valid(text)
    return " ".join(text.split())


def prose(text: str) -> str:
    """A title or a description: Unicode NFC, lines that end in a line feed, no blanks at the ends. Raises as `tidy`."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text).strip("\ufeff\u200b")
        valid(text)
    return text.replace("\r\n", "\n").strip()


def valid(text: str) -> str:
    """The text itself. Raises ValueError if it has a lone surrogate, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text is not valid Unicode (a lone surrogate): write it as UTF-8") from None
    return text


def no_value(value: Any) -> bool:
    """Whether an exporter means "no value": null, NaN, blank text, an empty list, or "nan" or "N/A"."""
    if isinstance(value, str):
        stripped = value.strip()
        return not stripped or stripped in _NO_VALUE
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, list | tuple | dict) and not value)


def identifier(value: Any) -> str:
    """An id as text. A whole number is that number, however a table writes it: 7, 7.0 and "7.0" are "7".

    Raises ValueError if the value cannot be an id.
    """
    if isinstance(value, str):
        text = tidy(value)
        return whole[1] if (whole := _WHOLE.fullmatch(text)) else text
    number = not isinstance(value, bool) and isinstance(value, int | float | Decimal)
    if not number or not math.isfinite(value) or value != int(value):
        raise ValueError("an id is a text or a whole number")
    return str(int(value))


def plain(value: Any) -> str:
    """An attribute's value as text. 2010.0 is "2010": a column of whole numbers with gaps is one of fractions in pandas."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return tidy(str(value))
