"""Measuring of photos and texts, part by part. A part is a row group of a numbered table."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import date
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from shoplens.curation.photo.signals import PhotoSignals, photo_signals
from shoplens.curation.pipeline.config import CurationConfig, Fetching
from shoplens.curation.pipeline.files import part, read_group, write_table
from shoplens.curation.text.characters import ScriptShare, Shares
from shoplens.curation.text.language import Language
from shoplens.curation.text.personal_data.found import Confidence, Found
from shoplens.curation.text.profanity import Match
from shoplens.curation.text.signals import TextSignals, text_signals
from shoplens.datasets.fetch import UrlRejected
from shoplens.datasets.images import ImageRejected
from shoplens.datasets.importing.tars import BrokenTar, members
from shoplens.datasets.photo_files import NOT_THERE, PhotoRules, Place, is_url, locate, read_photos
from shoplens.datasets.staging import Shard

_PERSONAL = pa.struct(
    [
        ("kind", pa.string()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("confidence", pa.int8()),
        ("detail", pa.string()),
    ]
)
_OFFENSIVE = pa.struct([("kind", pa.string()), ("start", pa.int32()), ("end", pa.int32())])
_SCRIPT = pa.struct([("script", pa.string()), ("share", pa.float64())])
_LANGUAGE = pa.struct([("code", pa.string()), ("confidence", pa.float64())])
TEXTS = pa.schema(
    [
        ("number", pa.int64()),
        ("raw", pa.string()),
        ("text", pa.string()),
        ("personal", pa.list_(_PERSONAL)),
        ("offensive", pa.list_(_OFFENSIVE)),
        *((name, pa.float64()) for name in Shares._fields),
        ("scripts", pa.list_(_SCRIPT)),
        ("language", _LANGUAGE),
    ]
)
"""Signals of texts; see `TextSignals`."""

PHOTOS = pa.schema(
    [
        ("number", pa.int64()),
        ("image", pa.string()),
        ("document_id", pa.string()),
        ("position", pa.int64()),
        ("url", pa.string()),
        ("uri", pa.string()),
        ("root", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("white", pa.float64()),
        ("sharpness", pa.float64()),
        ("animated", pa.bool_()),
        ("phash", pa.uint64()),
        ("sha256", pa.string()),
        ("bytes", pa.int64()),
        ("format", pa.string()),
        ("fault", pa.string()),
        ("sentence", pa.string()),
    ]
)
"""Signals of photos, and the place of the bytes that were measured. `fault` is why a photo cannot be used, else null."""


class _Measured(NamedTuple):
    signals: PhotoSignals
    data: bytes
    """Empty where the source keeps it."""


def measure_photos(config: CurationConfig, folder: Path, number: int) -> int:
    """Measures a part of `photos.parquet` unless it is done. Returns the number of its photos.

    Photos from URLs are kept in a tar beside the part: the shards hold the bytes that were measured.
    """
    path = part(folder / "photos", number)
    rows = read_group(folder / "photos.parquet", number).to_pylist()
    if path.exists():
        return len(rows)
    root = config.raw.images or _folder_of(config.raw.photos)
    places = [_place(root, row["image"]) for row in rows]
    there = [place for place in places if isinstance(place, Place)]
    keep = any(is_url(place.uri) for place in there)
    results = read_photos(there, photo_rules(config.fetching), partial(_measure, keep=keep))
    found: list[dict[str, Any]] = []
    with ExitStack() as closing:
        fetched = path.with_suffix(".tar")
        path.parent.mkdir(parents=True, exist_ok=True)
        shard = closing.enter_context(Shard(LocalFileSystem(), str(fetched))) if keep else None
        for row, place in zip(rows, places, strict=True):
            result = next(results) if isinstance(place, Place) else place
            if isinstance(result, _Measured) and isinstance(place, Place):
                if shard and is_url(place.uri):
                    about = json.dumps({"url": place.uri}, ensure_ascii=False)
                    offset = shard.add(f"{row['number']:010d}", result.data, result.signals.format, about)
                    place = Place(str(fetched), str(folder), offset, len(result.data))
                found.append({**row, **place._asdict(), **result.signals._asdict()})
            else:
                assert isinstance(result, ImageRejected | UrlRejected)
                found.append({**row, "fault": result.reason, "sentence": str(result)})
    write_table(path, found, PHOTOS)
    return len(rows)


def photo_rules(fetching: Fetching) -> PhotoRules:
    return PhotoRules(
        allow_hosts=fetching.allow_hosts,
        allow_private=fetching.allow_private,
        timeout_s=fetching.timeout_s,
        attempts=fetching.attempts,
    )


def _measure(data: bytes, keep: bool) -> _Measured:
    return _Measured(photo_signals(data), data if keep else b"")


def _folder_of(table: str) -> str:
    """The folder of a table or of a pattern such as `data/photos-*.parquet`."""
    return os.path.dirname(table.partition("*")[0]) or "."


def _place(root: str, image: str) -> Place | ImageRejected:
    """Where a photo of the raw table is."""
    if is_url(image):
        return Place(image, root)
    archive, tar, member = image.partition(".tar/")
    uri = locate(root, archive + ".tar" if tar else image)
    if uri is None:
        return ImageRejected("outside_source", f"{image} leads out of {root}: give paths below it, or set raw.images")
    if not tar:
        return Place(uri, root)
    inside = _members(uri)
    if isinstance(inside, ImageRejected):
        return inside
    found = inside.get(member)
    if found is None:
        return ImageRejected("missing_file", f"{archive}.tar has no member {member}: check the name")
    return Place(uri, root, *found)


@lru_cache(maxsize=4)
def _members(tar: str) -> Mapping[str, tuple[int, int]] | ImageRejected:
    """Offset and length of each member by name, or why the tar cannot be read. Raises OSError for the machine's faults."""
    try:
        return {member.name: (member.offset, member.length) for member in members(tar)}
    except BrokenTar as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno is not None and cause.errno not in NOT_THERE:
            raise cause from None
        return ImageRejected("broken_shard", str(error))


def measure_texts(folder: Path, table: str, number: int, brands: Collection[str], today: date) -> int:
    """Measures a part of `documents.parquet` or `queries.parquet` unless it is done. Returns the number of its texts.

    today   numbers of persons born later count as something else
    """
    path = part(folder / table, number)
    rows = read_group(folder / f"{table}.parquet", number, ["number", "text"])
    if not path.exists():
        known = frozenset(word.casefold() for word in brands)
        raw = rows["text"].to_pylist()
        measured = [text_signals(text, known, today=today) for text in raw]
        write_table(path, _columns(rows["number"], raw, measured), TEXTS)
    return len(rows)


def _columns(number: pa.ChunkedArray, raw: Sequence[str], measured: Sequence[TextSignals]) -> pa.Table:
    columns: dict[str, Any] = {"number": number, "raw": raw, "text": [one.text for one in measured]}
    columns["personal"] = [[found._asdict() for found in one.personal] for one in measured]
    columns["offensive"] = [[match._asdict() for match in one.offensive] for one in measured]
    for place, name in enumerate(Shares._fields):
        columns[name] = [one.shares[place] for one in measured]
    columns["scripts"] = [[script._asdict() for script in one.scripts] for one in measured]
    columns["language"] = [one.language and one.language._asdict() for one in measured]
    return pa.table(
        {name: pa.array(columns[name], TEXTS.field(name).type) if name != "number" else number for name in TEXTS.names}
    )


def stored_texts(table: pa.Table) -> Iterator[tuple[int, str, TextSignals]]:
    """The number, the raw text and the signals of each row of a part of TEXTS."""
    columns = [table[name].to_pylist() for name in TEXTS.names]
    for number, raw, text, personal, offensive, *numbers, scripts, language in zip(*columns, strict=True):
        yield (
            number,
            raw,
            TextSignals(
                text,
                tuple(Found(**{**found, "confidence": Confidence(found["confidence"])}) for found in personal),
                tuple(Match(**match) for match in offensive),
                Shares(*numbers),
                tuple(ScriptShare(**script) for script in scripts),
                Language(**language) if language else None,
            ),
        )


def stored_photo(row: Mapping[str, Any]) -> PhotoSignals:
    """The signals in a row of a part of PHOTOS."""
    return PhotoSignals(**{name: row[name] for name in PhotoSignals._fields})
