"""Shards, the second half of an import: a chunk of photos is read, fully checked and written as one shard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from shoplens.datasets.images import HASH_SIDE, ImageRejected, decode, perceptual_hash
from shoplens.datasets.importing.plan import planned_photos, reject_row
from shoplens.datasets.photo_files import PhotoRules, Place, read_photos
from shoplens.datasets.staging import Shard, Staging


def write_shard(staging: Staging, chunk: str, rules: PhotoRules, decoders: int = 1) -> tuple[int, int]:
    """Writes the shard and the rows of a chunk unless it is done. Returns the numbers of photos and rejects.

    decoders   photos that are decoded at the same time

    The result depends only on the plan and the photos. So chunks run on any node, in any order, and can be repeated.
    """
    if staging.is_done(chunk):
        return 0, 0
    shard_name = f"{chunk}.tar"
    shard_path = f"{staging.root}/shards/{shard_name}"
    if staging.fs.exists(shard_path):
        staging.fs.rm(shard_path)
    images: list[dict[str, Any]] = []
    rejects: list[dict[str, Any]] = []
    seen = repeated_elsewhere(staging, chunk)
    shard: Shard | None = None
    with ExitStack() as closing:
        photos = list(planned_photos(staging, chunk))
        places = [Place(photo["uri"], photo["root"], photo["offset"], photo["length"]) for photo in photos]
        read = read_photos(places, rules, partial(_check, rules=rules), decoders)
        for photo, checked in zip(photos, read, strict=True):
            if not isinstance(checked, Exception) and (photo["product_id"], checked.facts["sha256"]) in seen:
                checked = ImageRejected(
                    "duplicate_photo", "the product already has this photo, byte for byte: list each photo once"
                )
            if isinstance(checked, Exception):
                rejects.append(
                    reject_row(photo["source"], photo["product_id"], photo["path"], checked.reason, str(checked))
                )
                continue
            seen.add((photo["product_id"], checked.facts["sha256"]))
            if shard is None:
                shard = closing.enter_context(staging.shard(shard_name))
            offset = shard.add(photo["image_id"], checked.data, checked.facts["format"], photo["product_json"])
            place = {"shard": shard_name, "offset": offset, "length": len(checked.data)}
            images.append(
                {key: photo[key] for key in ("image_id", "product_id", "role", "split")} | place | checked.facts
            )
    staging.write_chunk(chunk, {"images": images, "rejects": rejects})
    return len(images), len(rejects)


def repeated_elsewhere(staging: Staging, chunk: str) -> set[tuple[str, str]]:
    """(product id, SHA-256) of photos in this chunk that an earlier chunk already has; see `reopen_repeated`."""
    path = f"{staging.root}/parts/plan/{chunk}.repeated.json"
    if not staging.fs.exists(path):
        return set()
    return {(product_id, sha256) for product_id, sha256 in json.loads(staging.fs.cat_file(path))}


def reopen_repeated(staging: Staging, chunks: Iterable[str]) -> list[str]:
    """Reopens chunks that repeat a product's photo of an earlier chunk, and returns their names.

    They must be written again without those photos. A chunk cannot see the others, but a photo of a product in both
    `train` and `test` would be a leak.
    """
    seen: set[int] = set()
    again: list[str] = []
    for chunk in sorted(chunks):
        rows = staging.chunk_rows(chunk, "images", ["product_id", "sha256"])
        keys = {hash(key): key for key in ((row["product_id"], row["sha256"]) for row in rows)}
        repeated = keys.keys() & seen
        seen |= keys.keys()
        if repeated:
            kept_out = sorted({*(keys[key] for key in repeated), *repeated_elsewhere(staging, chunk)})
            path = f"{staging.root}/parts/plan/{chunk}.repeated.json"
            staging.fs.pipe_file(path, json.dumps(kept_out).encode())
            staging.reopen(chunk)
            again.append(chunk)
    return again


@dataclass(frozen=True)
class _Checked:
    """An encoded photo that can be used, and the columns of `images` that are known from its bytes."""

    data: bytes
    facts: dict[str, Any]


def _check(data: bytes, rules: PhotoRules) -> _Checked:
    photo = decode(data, max_bytes=rules.max_bytes, max_pixels=rules.max_pixels, draft=HASH_SIDE, grey=True)
    phash = perceptual_hash(photo.image)
    if min(photo.width, photo.height) < rules.min_side:
        size = f"{photo.width}x{photo.height}"
        raise ImageRejected("too_small", f"the photo has {size} pixels; each side needs at least {rules.min_side}")
    facts = {"width": photo.width, "height": photo.height, "format": photo.format}
    return _Checked(data, {**facts, "sha256": hashlib.sha256(data).hexdigest(), "phash": phash})
