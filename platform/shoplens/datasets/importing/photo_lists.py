"""The photos of a row: paths, URLs, objects, or the encoded photos themselves, in the ways that tables list them."""

from __future__ import annotations

import base64
import json
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shoplens.datasets.importing.literals import literal
from shoplens.datasets.importing.source import PhotoBytes, PhotoRef, Reject
from shoplens.datasets.importing.tidy import no_value

PHOTO_FIELDS = ("image", "images")
"""The main photo, and further ones."""
_BEFORE_URL = re.compile(r"[\s,;]+(?=https?://|//)", re.IGNORECASE)
_COMMAS = re.compile(r"\s*[,;]\s*")
_PHOTO_NAME = re.compile(r".*\.(?:jpe?g|png|webp|gif|bmp|tiff?|avif|heic|heif)", re.IGNORECASE | re.DOTALL)
_DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)


def photos_of(row: Mapping[str, Any], root: str, where: str) -> list[PhotoRef | PhotoBytes | Reject]:
    """The photos in `image` and then in `images`: paths, URLs, bytes, or objects.

    An object has `path`, `url`, `src` or `bytes`, and may have `role` and `split`. In a cell of text, several photos are
    a JSON list, or are separated by `|`, line breaks, or by commas or semicolons before another URL or between names of
    photos. A path that `image` has is not taken from `images` again.
    """
    product_id = str(row["id"]) if row.get("id") is not None else None
    photos: list[PhotoRef | PhotoBytes | Reject] = []
    main: set[str] = set()
    for field in PHOTO_FIELDS:
        found = [_photo(item, root, where, product_id) for item in listed(row.get(field)) if not _absent(item)]
        photos += [photo for photo in found if not (isinstance(photo, PhotoRef) and photo.path in main)]
        main |= {photo.path for photo in found if isinstance(photo, PhotoRef)}
    return photos


def listed(value: Any) -> Iterator[Any]:
    """The photos of one cell, each as a path, bytes or an object."""
    if no_value(value):
        return
    if isinstance(value, str):
        parsed = literal(value) if value.lstrip().startswith(("[", "{")) else value
        if not isinstance(parsed, str):
            yield from listed(parsed)
        elif _DATA_URI.match(value):
            yield value
        else:
            yield from _parted(value)
    elif isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        yield from value
    else:
        yield value


def _parted(cell: str) -> Iterator[str]:
    for line in re.split(r"[|\r\n]", cell):
        for part in _BEFORE_URL.split(line.strip()):
            names = _COMMAS.split(part)
            if "://" not in part and not part.startswith("//") and all(map(_PHOTO_NAME.fullmatch, names)):
                yield from names
            elif part:
                yield part


def _path(text: str) -> str:
    """A path with the separators of POSIX; a URL as it is."""
    path = text.strip(" \t\r\n\u200b\ufeff")
    return path if "://" in path else path.replace("\\", "/")


def _absent(item: Any) -> bool:
    return not isinstance(item, str) and no_value(item)


def _photo(item: Any, root: str, where: str, product_id: str | None) -> PhotoRef | PhotoBytes | Reject:
    if isinstance(item, str | bytes | bytearray):
        item = {"bytes" if not isinstance(item, str) else "path": item}
    if not isinstance(item, Mapping):
        return Reject(
            "invalid_photo",
            "a photo is neither a path nor an object: write a path, a URL or an object with `path`",
            where,
            product_id,
            reprlib.repr(item),
        )
    path = next((item[key] for key in ("path", "url", "src") if item.get(key)), None)
    role, split, data = item.get("role") or "photo", item.get("split") or None, item.get("bytes")
    if isinstance(path, str) and (start := _DATA_URI.match(path)):
        data, path = path[start.end() :], None
    try:
        if isinstance(data, str):
            data = base64.b64decode(data, validate=False)
        named = isinstance(path, str) or data is not None
        if not named or not isinstance(role, str) or not isinstance(split, str | None):
            raise ValueError("a photo needs `path` or `url`, and its `role` and `split` must be text")
    except ValueError as error:
        try:
            shown = reprlib.repr(item) if data else json.dumps(item, default=reprlib.repr)
        except (RecursionError, TypeError):
            shown = reprlib.repr(item)
        return Reject("invalid_photo", str(error), where, product_id, shown)
    name = _path(path) if isinstance(path, str) else "in the table"
    return PhotoRef(root, name, role, split) if data is None else PhotoBytes(bytes(data), name, role, split)
