"""Other ways to spell the path of a file: systems and exporters differ in Unicode form, separators and escapes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

from shoplens.datasets.importing.tidy import tidy

WINDOWS_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def spellings(path: str) -> Iterator[str]:
    """Paths that may be meant by `path`, without `path` itself, the likeliest first.

    They have composed or decomposed letters (Linux and macOS), slashes for backslashes (Windows), no percent escapes
    (URLs), and no zero-width characters.
    """
    plain = path.replace("\\", "/")
    seen = {path}
    for base in (path, plain, unquote(plain), "/".join(map(tidy, plain.split("/")))):
        for form in (base, unicodedata.normalize("NFC", base), unicodedata.normalize("NFD", base)):
            if form not in seen:
                seen.add(form)
                yield form
