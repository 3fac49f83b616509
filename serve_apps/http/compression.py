"""Compressed request bodies: gzip and deflate, as far as the limit of a body."""

from __future__ import annotations

import zlib

from starlette.datastructures import Headers

from serve_apps.http.errors import ApiError, bad_request

TAKEN = ("gzip", "x-gzip", "deflate")
_BY_HEADER = zlib.MAX_WBITS | 32
"""zlib looks at the first bytes: gzip, or zlib (which HTTP calls deflate)."""


class Inflater:
    """Decompresses the pieces of one body. Pieces beyond `limit` bytes are cut at one byte more."""

    def __init__(self, limit: int) -> None:
        self._room = limit + 1
        self._stream = zlib.decompressobj(_BY_HEADER)

    def __call__(self, piece: bytes, last: bool) -> bytes:
        """Raises ApiError 400 if the body is not what its header says, or not whole."""
        try:
            data = self._stream.decompress(piece, self._room) if piece and self._room else b""
        except zlib.error:
            raise _damaged("is not gzip or deflate, as Content-Encoding says") from None
        self._room -= len(data)
        if self._stream.unused_data:
            raise _damaged("goes on after the end of the compressed data")
        if last and self._room and not self._stream.eof:
            raise _damaged("ends before the compressed data does")
        return data


def inflater(headers: Headers, limit: int) -> Inflater | None:
    """None if the body is not compressed. Raises ApiError 415 if it is compressed in another way."""
    named = ",".join(headers.getlist("content-encoding")).lower().split(",")
    codings = [coding for coding in map(str.strip, named) if coding not in ("", "identity")]
    if not codings:
        return None
    if len(codings) == 1 and codings[0] in TAKEN:
        return Inflater(limit)
    message = f"Content-Encoding {', '.join(codings)[:40]!r} is not taken: send gzip, deflate, or no such header"
    raise ApiError(415, "unsupported_encoding", message)


def _damaged(how: str) -> ApiError:
    return bad_request("invalid_encoding", f"the body {how}")
