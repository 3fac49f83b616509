"""What a detector reports."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Confidence(IntEnum):
    """How sure a detector is. LOW is for tags only; from MID on a text should not be used as it is."""

    LOW = 1
    """The form alone, which other numbers share, or a hint without the form."""
    MID = 2
    """A form that few other things have, or a common form beside a word that names it."""
    HIGH = 3
    """A form with a check digit, or a form that nothing else has."""


class Found(NamedTuple):
    """One match.

    kind         such as `resident_number` or `phone`
    start, end   code points of the text, `text[start:end]`
    confidence   how sure
    detail       what a policy may ask for beside the kind, such as `mobile` or `business` of a phone; empty if nothing
    """

    kind: str
    start: int
    end: int
    confidence: Confidence
    detail: str = ""
