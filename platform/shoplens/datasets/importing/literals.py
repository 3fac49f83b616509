"""Lists and objects in a cell of text, as JSON or as Python prints them."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

_ARRAY = re.compile(r"\[\s*(?:'[^']*'|\"[^\"]*\")(?:\s+(?:'[^']*'|\"[^\"]*\"))+\s*\]")
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_LONGEST = 1 << 16


def literal(text: str) -> Any:
    """`["a"]`, `['a', 'b']` (pandas) and `['a' 'b']` (NumPy) as a list, objects as a dict; other text as it is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if len(text) > _LONGEST:
        return text
    if _ARRAY.fullmatch(text.strip()):
        return [one or other for one, other in _QUOTED.findall(text)]
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
