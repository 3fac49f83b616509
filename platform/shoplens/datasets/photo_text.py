"""Photos written as text: base64 and data URIs."""

from __future__ import annotations

import base64
import re
from urllib.parse import unquote

from shoplens.datasets.images import ImageRejected

_URI = re.compile(r"data:(?P<type>[\w.+/-]{0,100})(?P<parameters>(;[\w.=+/-]{0,100}){0,4}),", re.IGNORECASE)
_TYPES = ("image/", "application/octet-stream", "")
"""Beginnings of the media types that a photo may have; some clients do not know better than the last two."""
_URL_SAFE = str.maketrans("-_", "+/")


def is_data_uri(text: str) -> bool:
    return text[:100].lstrip()[:5].lower() == "data:"


def photo_bytes(text: str) -> bytes:
    """A data URI, or base64 alone, -> the bytes of the photo.

    Base64 may have line breaks and blanks, the URL-safe alphabet, and no padding. Raises ImageRejected.
    """
    if not is_data_uri(text):
        return _decoded(text, "the image is neither base64 nor a data URI")
    uri = text.lstrip()
    head = _URI.match(uri)
    kind = "" if head is None else head["type"].lower()
    if head is None or not head["parameters"].lower().endswith(";base64") or not (kind in _TYPES or kind[:6] in _TYPES):
        raise ImageRejected("unreadable", "a data URI reads data:image/TYPE;base64,DATA")
    data = uri[head.end() :]
    return _decoded(unquote(data) if "%" in data else data, "the data URI is not base64")


def _decoded(text: str, otherwise: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        bare = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except ValueError as error:
        raise ImageRejected("unreadable", f"{otherwise}: {error}") from None
