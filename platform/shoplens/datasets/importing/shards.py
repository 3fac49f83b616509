"""Shards, the second half of an import: a chunk of photos is read, fully checked and written as one shard."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import fsspec

from shoplens.datasets.fetch import UrlRejected, fetch_image
from shoplens.datasets.images import MAX_BYTES, MAX_PIXELS, ImageRejected, decode, perceptual_hash
from shoplens.datasets.importing.plan import is_url, planned_photos, reject_row
from shoplens.datasets.staging import Shard, Staging

_TOGETHER = 16
"""Photos of a chunk that are fetched at the same time from remote places."""
_NOT_THERE = {
    errno.ENOENT,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EINVAL,
}


@dataclass(frozen=True)
class PhotoRules:
    """Limits on photos: `min_side` and `max_pixels` in pixels, `timeout_s` in seconds; hosts as in `fetch_image`."""

    min_side: int = 8
    max_bytes: int = MAX_BYTES
    max_pixels: int = MAX_PIXELS
    allow_hosts: tuple[str, ...] | None = None
    allow_private: bool = False
    timeout_s: float = 20.0
    attempts: int = 3


def write_shard(staging: Staging, chunk: str, rules: PhotoRules) -> tuple[int, int]:
    """Writes the shard and the rows of a chunk unless it is done. Returns the numbers of photos and rejects.

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
        for photo, data in _read_all(list(planned_photos(staging, chunk)), rules):
            try:
                if isinstance(data, Exception):
                    raise data
                checked = decode(data, max_bytes=rules.max_bytes, max_pixels=rules.max_pixels)
                if min(checked.width, checked.height) < rules.min_side:
                    size = f"{checked.width}x{checked.height}"
                    raise ImageRejected(
                        "too_small", f"the photo has {size} pixels; each side needs at least {rules.min_side}"
                    )
                sha256 = hashlib.sha256(data).hexdigest()
                if (photo["product_id"], sha256) in seen:
                    raise ImageRejected(
                        "duplicate_photo", "the product already has this photo, byte for byte: list each photo once"
                    )
            except (ImageRejected, UrlRejected) as refused:
                rejects.append(
                    reject_row(photo["source"], photo["product_id"], photo["path"], refused.reason, str(refused))
                )
                continue
            seen.add((photo["product_id"], sha256))
            if shard is None:
                shard = closing.enter_context(staging.shard(shard_name))
            images.append(
                {
                    "image_id": photo["image_id"],
                    "product_id": photo["product_id"],
                    "role": photo["role"],
                    "split": photo["split"],
                    "shard": shard_name,
                    "offset": shard.add(photo["image_id"], data, checked.format, photo["product_json"]),
                    "length": len(data),
                    "width": checked.width,
                    "height": checked.height,
                    "format": checked.format,
                    "sha256": sha256,
                    "phash": perceptual_hash(checked.image),
                }
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


def _read_all(
    photos: Sequence[dict[str, Any]], rules: PhotoRules
) -> Iterator[tuple[dict[str, Any], bytes | ImageRejected | UrlRejected]]:
    """Every photo with its bytes or an error, in order. Remote photos are fetched 16 at a time."""
    with ThreadPoolExecutor(_TOGETHER) as pool:
        for start in range(0, len(photos), _TOGETHER):
            together = photos[start : start + _TOGETHER]
            if any("://" in photo["uri"] for photo in together):
                yield from zip(together, pool.map(lambda photo: _read(photo, rules), together), strict=True)
            else:
                yield from ((photo, _read(photo, rules)) for photo in together)


def _read(photo: dict[str, Any], rules: PhotoRules) -> bytes | ImageRejected | UrlRejected:
    """The encoded photo, or the error that prevents reading it. At most `max_bytes` + 1 bytes are read.

    Raises OSError if the fault is the machine's and not the path's (a disk error, too many open files).
    """
    try:
        if is_url(photo["uri"]):
            return _fetch(photo["uri"], rules)
        start = photo["offset"] or 0
        wanted = rules.max_bytes + 1 if photo["length"] is None else min(photo["length"], rules.max_bytes + 1)
        if "://" in photo["uri"]:
            fs, path = fsspec.core.url_to_fs(photo["uri"])
            data: bytes = fs.cat_file(path, start=start, end=start + wanted)
        else:
            with open(_within(photo["uri"], photo["root"]), "rb") as file:
                file.seek(start)
                data = file.read(wanted)
        if photo["length"] is not None and len(data) < wanted:
            return ImageRejected(
                "truncated",
                f"the shard ends {wanted - len(data)} bytes before the photo does: create or download it again",
            )
        return data
    except (ImageRejected, UrlRejected) as refused:
        return refused
    except OSError as error:
        if error.errno is not None and error.errno not in _NOT_THERE:
            raise
        return ImageRejected(
            "missing_file", f"the photo cannot be read ({error.strerror or type(error).__name__}): check the path"
        )


def _within(path: str, root: str) -> str:
    """The real path of a file. Raises ImageRejected if a link leads out of `root`, or the path is not a file."""
    real = os.path.join(_real(os.path.dirname(path)), os.path.basename(path))
    mode = os.lstat(real).st_mode
    if stat.S_ISLNK(mode):
        real = os.path.realpath(real)
        mode = os.stat(real).st_mode
    if not real.startswith(_real(root).rstrip("/") + "/"):
        raise ImageRejected("outside_source", "a link leads out of the source folder: copy the photo into the folder")
    if not stat.S_ISREG(mode):
        raise ImageRejected("missing_file", "the path is not a regular file: give the path of a photo")
    return real


_real = lru_cache(maxsize=4096)(os.path.realpath)


def _fetch(url: str, rules: PhotoRules) -> bytes:
    for attempt in range(1, rules.attempts + 1):
        try:
            return fetch_image(
                url,
                allow_hosts=rules.allow_hosts,
                max_bytes=rules.max_bytes,
                timeout_s=rules.timeout_s,
                allow_private=rules.allow_private,
            )
        except UrlRejected as refused:
            if attempt == rules.attempts or refused.reason not in ("url_timeout", "url_unreachable"):
                raise
    raise AssertionError("unreachable")
