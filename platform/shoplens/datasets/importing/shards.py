"""The second half of an import: one chunk of photos read, checked in full, and written as one shard."""

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
"""Photos of one chunk that are fetched at the same time where they lie elsewhere."""
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
    """Which photos are taken. `min_side` and `max_pixels` are in pixels; hosts as in `fetch_image`."""

    min_side: int = 8
    max_bytes: int = MAX_BYTES
    max_pixels: int = MAX_PIXELS
    allow_hosts: tuple[str, ...] | None = None
    allow_private: bool = False
    timeout_s: float = 20.0
    attempts: int = 3


def write_shard(staging: Staging, chunk: str, rules: PhotoRules) -> tuple[int, int]:
    """Writes the chunk's shard and rows, unless it is done; returns photos and rejects.

    The result depends on the plan and the photos alone: chunks may run anywhere, in any order, again.
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
                        "too_small", f"the photo is {size}; at least {rules.min_side} a side are needed"
                    )
                sha256 = hashlib.sha256(data).hexdigest()
                if (photo["product_id"], sha256) in seen:
                    raise ImageRejected("duplicate_photo", "the product has this very photo already")
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
    """Product ids and SHA-256 of photos of this chunk that an earlier chunk keeps; see `reopen_repeated`."""
    path = f"{staging.root}/parts/plan/{chunk}.repeated.json"
    if not staging.fs.exists(path):
        return set()
    return {(product_id, sha256) for product_id, sha256 in json.loads(staging.fs.cat_file(path))}


def reopen_repeated(staging: Staging, chunks: Iterable[str]) -> list[str]:
    """Finds photos that one product has in two chunks; the later chunks are to be written again without them.

    A chunk sees only itself, but a photo of a product in both `train` and `test` would be a leak.
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
    """Every photo with its bytes, in order; those from elsewhere are fetched a few at a time."""
    with ThreadPoolExecutor(_TOGETHER) as pool:
        for start in range(0, len(photos), _TOGETHER):
            together = photos[start : start + _TOGETHER]
            if any("://" in photo["uri"] for photo in together):
                yield from zip(together, pool.map(lambda photo: _read(photo, rules), together), strict=True)
            else:
                yield from ((photo, _read(photo, rules)) for photo in together)


def _read(photo: dict[str, Any], rules: PhotoRules) -> bytes | ImageRejected | UrlRejected:
    """The photo's bytes as they are, or why they cannot be had; more than `max_bytes` are never read.

    Raises OSError where the machine is at fault rather than the path (a disk error, too many open files).
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
            return ImageRejected("truncated", f"the shard ends {wanted - len(data)} bytes before the photo does")
        return data
    except (ImageRejected, UrlRejected) as refused:
        return refused
    except OSError as error:
        if error.errno is not None and error.errno not in _NOT_THERE:
            raise
        return ImageRejected("missing_file", f"the photo cannot be read: {error.strerror or type(error).__name__}")


def _within(path: str, root: str) -> str:
    """The file that `path` names. Raises ImageRejected if a link leads out of `root`, or it is no file."""
    real = os.path.join(_real(os.path.dirname(path)), os.path.basename(path))
    mode = os.lstat(real).st_mode
    if stat.S_ISLNK(mode):
        real = os.path.realpath(real)
        mode = os.stat(real).st_mode
    if not real.startswith(_real(root).rstrip("/") + "/"):
        raise ImageRejected("outside_source", "a link leads out of the source's folder")
    if not stat.S_ISREG(mode):
        raise ImageRejected("missing_file", "there is something else than a file at this path")
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
