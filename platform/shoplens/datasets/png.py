"""Chunks of a PNG file, where Pillow is stricter than browsers: metadata that is damaged, or too large."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterator

from PIL import ImageFile

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def damaged_chunk(data: bytes) -> str | None:
    """The name of the first chunk of pixels or palette whose checksum is wrong, else None."""
    for name, start, end in _chunks(data):
        if not _is_metadata(name) and not _is_sound(data, start, end):
            return name.decode("ascii", "replace")
    return None


def without_metadata(data: bytes, kept: Collection[bytes]) -> bytes:
    """The PNG without chunks that hold no pixels, but for those in `kept` whose checksum is right.

    Decoders may drop such a chunk (PNG specification, 13.1): its name starts with a small letter.
    """
    parts, end = [SIGNATURE], len(SIGNATURE)
    for name, start, end in _chunks(data):
        if not _is_metadata(name) or (name in kept and _is_sound(data, start, end)):
            parts.append(data[start:end])
    return b"".join([*parts, data[end:]])


def scale_transparent_colour(image: ImageFile.ImageFile) -> None:
    """Scales the transparent colour of an opened PNG as Pillow scales its samples of 2, 4 or 16 bits to 8 bits."""
    colour = image.info.get("transparency")
    samples = str(image.tile[0].args) if image.tile else ""
    if isinstance(colour, tuple) and samples.endswith(";16B"):
        image.info["transparency"] = tuple(level >> 8 for level in colour)
    elif isinstance(colour, int) and samples in ("L;2", "L;4"):
        most = 3 if samples == "L;2" else 15
        image.info["transparency"] = (colour & most) * (255 // most)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, end) of every chunk that is whole, with its length and checksum."""
    start = len(SIGNATURE)
    while start + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, start)
        end = start + 12 + length
        if end > len(data):
            return
        yield data[start + 4 : start + 8], start, end
        start = end


def _is_metadata(name: bytes) -> bool:
    return bool(name[0] & 0x20)


def _is_sound(data: bytes, start: int, end: int) -> bool:
    return zlib.crc32(memoryview(data)[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
