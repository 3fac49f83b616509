"""Importer for WebDataset shards: `KEY.jpg` with `KEY.json` (product, title or caption) or `KEY.txt` (caption)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any

import fsspec

from shoplens.datasets.importing.product import read_product
from shoplens.datasets.importing.source import PhotoRef, Reject, SourceProduct, webdataset_key
from shoplens.datasets.importing.tars import BrokenTar, Member, members
from shoplens.errors import ShoplensError

_PHOTO = re.compile(r"(?:(?P<role>[^/]*)\.)?(?:jpe?g|png|webp|gif)", re.IGNORECASE)
_TEXTS = (".json", ".txt")


@dataclass
class WebDataset:
    """Reads one tar, a folder of tars, a pattern (`DIR/train-*.tar`), or a dataset of this format.

    Photos of a shard `SPLIT-000000.tar` have that split. The key is the id of the image, and of the product if the JSON
    has no `id`. `KEY.back.jpg` is a photo with the role `back`.
    """

    path: str
    name: str = ""
    repeats: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        fs, path = fsspec.core.url_to_fs(self.path)
        if fs.isdir(path):
            inner = f"{path}/shards" if fs.isdir(f"{path}/shards") else path
            found = fs.glob(f"{inner}/*.tar")
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
            try:
                for key, parts in groupby(members(shard, _TEXTS), lambda member: _split(member.name)[0]):
                    yield _product(shard, key, list(parts), split.group(1) if split else None)
            except BrokenTar as error:
                yield Reject("broken_shard", str(error), name)


def _split(name: str) -> tuple[str, str]:
    """`"a/b.front.jpg"` -> `("a/b", "front.jpg")`. WebDataset splits at the first dot of the file name."""
    folder, slash, base = name.rpartition("/")
    key, _, extension = base.partition(".")
    return f"{folder}{slash}{key}", extension


def _product(shard: str, key: str, parts: list[Member], split: str | None) -> SourceProduct | Reject:
    root, _, name = shard.rpartition("/")
    where = f"{name}:{key}"
    row: dict[str, Any] = {}
    for part in parts:
        if part.data is None:
            continue
        try:
            if part.name.endswith(".json"):
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
            "no_text", f"{key} has neither .json nor .txt beside its image: add one with its title", where, image=key
        )
    row.setdefault("id", key)
    if split is not None:
        row.setdefault("split", split)
    if row.get("title") is None and row.get("name") is None and "caption" in row:
        row["title"] = row.pop("caption")
    read = read_product(row, where)
    if isinstance(read, Reject):
        return read
    images = [(part, found["role"]) for part in parts if (found := _PHOTO.fullmatch(_split(part.name)[1]))]
    photos = [
        PhotoRef(root, name, role or "photo", split, webdataset_key(key + suffix), part.offset, part.length)
        for number, (part, role) in enumerate(images)
        for suffix in ["" if len(images) == 1 else f"_{number}"]
    ]
    return replace(read, photos=photos)
