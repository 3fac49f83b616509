"""Errors that the user can fix. They are printed as one sentence, without a stack trace."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ShoplensError(Exception):
    """A request that cannot be carried out. The message says what was wrong and what to do."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """The end of a message, `; did you mean A or B?`, with the nearest known words in any case; "" if none is near."""
    words = {word.casefold(): word for word in known}
    near = difflib.get_close_matches(wrong[:100].casefold(), words, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(words[word] for word in near)}?" if near else ""
