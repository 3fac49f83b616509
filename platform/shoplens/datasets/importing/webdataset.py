"""Importer for WebDataset shards: `KEY.jpg` with `KEY.json` (product, title or caption) or `KEY.txt` (caption)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any

import fsspec

from shoplens.datasets.importing.product import read_product
from shoplens.datasets.importing.source import PhotoRef, Reject, SourceProduct, webdataset_key
from shoplens.datasets.importing.tars import BrokenTar, Member, members
from shoplens.errors import ShoplensError

_PHOTOS = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".heic", ".heif", ".gif", ".bmp")
_TEXTS = (".json", ".txt")


@dataclass
class WebDataset:
    """Reads one tar, a folder of tars, a pattern (`DIR/train-*.tar`), or a dataset of this format.

    Photos of a shard `SPLIT-000000.tar` have that split. The key is the id of the image, and of the product if the JSON
    has no `id`. `KEY.back.jpg` is a photo with the role `back`. A key may have dots if its text has them too:
    `shoe 1.5cm.jpg` with `shoe 1.5cm.txt`.
    """

    path: str
    name: str = ""
    repeats: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        fs, path = fsspec.core.url_to_fs(self.path)
        if fs.isdir(path):
            inner = f"{path}/shards" if fs.isdir(f"{path}/shards") else path
            found = [name for name in fs.ls(inner, detail=False) if _is_shard(PurePosixPath(name).name)]
        else:
            found = fs.glob(path)
        if not found:
            raise ShoplensError(f"{self.path} has no .tar shards: give a tar, a folder of tars or a pattern")
        self._shards = sorted(fs.unstrip_protocol(shard) if "://" in self.path else shard for shard in found)
        self.name = self.name or PurePosixPath(path).name.partition(".")[0].rstrip("-*") or "webdataset"

    @property
    def inputs(self) -> list[str]:
        return self._shards

    def __iter__(self) -> Iterator[SourceProduct | Reject]:
        for shard in self._shards:
            name = PurePosixPath(shard).name
            split = re.fullmatch(r"([a-z0-9_]{1,40})-\d+\.tar", name)
            hidden: list[Member] = []
            try:
                for key, parts in groupby(_shown(members(shard, _TEXTS), hidden), _key):
                    for own, of_one in _apart(key, list(parts)):
                        yield _product(shard, own, of_one, split.group(1) if split else None)
            except BrokenTar as error:
                yield Reject("broken_shard", str(error), name)
            for member in hidden:
                detail = f"{member.name} is a hidden file: rename it without a dot at the start if it is a product's"
                yield Reject("hidden_file", detail, f"{name}:{member.name}", image=member.name)


def _is_shard(name: str) -> bool:
    return name.lower().endswith(".tar") and not name.startswith(".")


def _shown(every: Iterable[Member], hidden: list[Member]) -> Iterator[Member]:
    """The members that are not hidden. Hidden photos and texts are added to `hidden`, unless a Mac made them."""
    for member in every:
        places = member.name.split("/")
        if not any(place.startswith(".") or place == "__MACOSX" for place in places):
            yield member
        elif not places[-1].startswith("._") and "__MACOSX" not in places and _is(member, _PHOTOS + _TEXTS):
            hidden.append(member)


def _is(member: Member, suffixes: tuple[str, ...]) -> bool:
    return member.name.lower().endswith(suffixes)


def _key(member: Member) -> str:
    """`"a/b.front.jpg"` -> `"a/b"`. WebDataset ends the key at the first dot of the file name."""
    folder, slash, base = member.name.rpartition("/")
    return f"{folder}{slash}{base.partition('.')[0]}"


def _stem(member: Member) -> str:
    return member.name.rpartition(".")[0]


def _apart(key: str, parts: Sequence[Member]) -> Iterator[tuple[str, list[Member]]]:
    """Tells products apart whose keys have dots and are the same up to the first dot.

    A text whose name without its suffix starts the name of a photo is a product of its own, so no text is lost.
    """
    photos = [_stem(part) for part in parts if _is(part, _PHOTOS)]
    texts = dict.fromkeys(_stem(part) for part in parts if _is(part, _TEXTS))
    keys = [text for text in texts if any(_belongs(photo, text) for photo in photos)]
    products: dict[str, list[Member]] = {}
    for part in parts:
        owner = max((own for own in keys if _belongs(_stem(part), own)), key=len, default=key)
        products.setdefault(owner, []).append(part)
    for own, of_one in products.items():
        if any(_is(part, _TEXTS) for part in of_one):
            yield own, of_one
        else:
            yield from ((_stem(part), [part]) for part in of_one)


def _belongs(stem: str, key: str) -> bool:
    return stem == key or stem.startswith(f"{key}.")


def _product(shard: str, key: str, parts: list[Member], split: str | None) -> SourceProduct | Reject:
    root, _, name = shard.rpartition("/")
    where = f"{name}:{key}"
    row: dict[str, Any] = {}
    for part in parts:
        if not _is(part, _TEXTS):
            continue
        if part.data is None:
            return Reject("malformed_row", f"{part.name} has {part.length:,} bytes: write a shorter text", where)
        try:
            if _is(part, (".json",)):
                loaded = json.loads(part.data)
                if not isinstance(loaded, dict):
                    return Reject(
                        "malformed_row", f"{part.name} is JSON but not an object: write one JSON object", where
                    )
                row = {**row, **loaded}
            else:
                row.setdefault("caption", part.data.decode("utf-8-sig").strip())
        except (ValueError, RecursionError) as error:
            return Reject(
                "malformed_row", f"{part.name} is not valid JSON or UTF-8 text ({error}): write it again", where
            )
    if not row:
        return Reject(
            "no_text",
            f"{parts[0].name} has neither .json nor .txt beside it: add one with the title",
            where,
            image=parts[0].name,
        )
    row.setdefault("id", key)
    if split is not None:
        row.setdefault("split", split)
    if row.get("title") is None and row.get("name") is None and "caption" in row:
        row["title"] = row.pop("caption")
    read = read_product(row, where)
    if isinstance(read, Reject):
        return read
    images = [(part, _stem(part)[len(key) + 1 :]) for part in parts if _is(part, _PHOTOS)]
    photos = [
        PhotoRef(root, name, role or "photo", split, webdataset_key(key + suffix), part.offset, part.length)
        for number, (part, role) in enumerate(images)
        for suffix in ["" if len(images) == 1 else f"_{number}"]
    ]
    return replace(read, photos=photos)
