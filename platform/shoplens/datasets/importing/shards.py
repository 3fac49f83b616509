"""Shards, the second half of an import: a chunk of photos is read, fully checked and written as one shard."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import stat
import threading
import time
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any

import fsspec

from shoplens.datasets.fetch import UrlRejected, fetch_image
from shoplens.datasets.images import MAX_BYTES, MAX_PIXELS, ImageRejected, decode, perceptual_hash
from shoplens.datasets.importing.plan import is_url, planned_photos, reject_row
from shoplens.datasets.staging import Shard, Staging

_TOGETHER = 16
"""Photos of a chunk that are fetched at the same time from remote places."""
_FIRST_PAUSE_S = 1.0
_PATIENCE_S = 300.0
"""How long a chunk waits for busy hosts in all. Later photos of such hosts are given up after one attempt."""
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
    """Limits on photos: `min_side` and `max_pixels` in pixels; hosts as in `fetch_image`.

    A URL is fetched in at most `attempts` attempts of `timeout_s` seconds, with pauses of at most `longest_wait_s`.
    """

    min_side: int = 8
    max_bytes: int = MAX_BYTES
    max_pixels: int = MAX_PIXELS
    allow_hosts: tuple[str, ...] | None = None
    allow_private: bool = False
    timeout_s: float = 20.0
    attempts: int = 3
    longest_wait_s: float = 20.0


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
        for photo, checked in _check_all(list(planned_photos(staging, chunk)), rules, decoders):
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


def _check_all(
    photos: Sequence[dict[str, Any]], rules: PhotoRules, decoders: int
) -> Iterator[tuple[dict[str, Any], _Checked | ImageRejected | UrlRejected]]:
    """Every photo with what is known of it, or an error, in order.

    Remote photos are fetched 16 at a time. `decoders` photos are decoded at a time.
    """
    remote = any(is_url(photo["uri"]) or "://" in photo["uri"] for photo in photos)
    patience, decoding = _Patience(), threading.Semaphore(decoders)

    def check(photo: dict[str, Any]) -> _Checked | ImageRejected | UrlRejected:
        return _check(_read(photo, rules, patience), rules, decoding)

    if decoders == 1 and not remote:
        yield from ((photo, check(photo)) for photo in photos)
        return
    with ThreadPoolExecutor(_TOGETHER if remote else decoders) as pool:
        waiting: deque[tuple[dict[str, Any], Future[_Checked | ImageRejected | UrlRejected]]] = deque()
        for photo in photos:
            waiting.append((photo, pool.submit(check, photo)))
            if len(waiting) > _TOGETHER:
                photo, result = waiting.popleft()
                yield photo, result.result()
        for photo, result in waiting:
            yield photo, result.result()


def _check(
    data: bytes | ImageRejected | UrlRejected, rules: PhotoRules, decoding: threading.Semaphore
) -> _Checked | ImageRejected | UrlRejected:
    if isinstance(data, Exception):
        return data
    try:
        with decoding:
            photo = decode(data, max_bytes=rules.max_bytes, max_pixels=rules.max_pixels)
            phash = perceptual_hash(photo.image)
    except ImageRejected as refused:
        return refused
    if min(photo.width, photo.height) < rules.min_side:
        size = f"{photo.width}x{photo.height}"
        return ImageRejected("too_small", f"the photo has {size} pixels; each side needs at least {rules.min_side}")
    facts = {"width": photo.width, "height": photo.height, "format": photo.format}
    return _Checked(data, {**facts, "sha256": hashlib.sha256(data).hexdigest(), "phash": phash})


def _read(photo: dict[str, Any], rules: PhotoRules, patience: _Patience) -> bytes | ImageRejected | UrlRejected:
    """The encoded photo, or the error that prevents reading it. At most `max_bytes` + 1 bytes are read.

    Raises OSError if the fault is the machine's and not the path's (a disk error, too many open files).
    """
    try:
        if is_url(photo["uri"]):
            return _fetch(photo["uri"], rules, patience)
        start = photo["offset"] or 0
        wanted = rules.max_bytes + 1 if photo["length"] is None else min(photo["length"], rules.max_bytes + 1)
        if "://" in photo["uri"]:
            data = _read_remote(photo["uri"], start, start + wanted)
        else:
            data = _read_local(photo["uri"], photo["root"], start, wanted)
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


def _read_local(path: str, root: str, start: int, length: int) -> bytes:
    """At most `length` bytes of a file. Raises ImageRejected if a link leads out of `root`, or it is not a file."""
    real = os.path.join(_real(os.path.dirname(path)), os.path.basename(path))
    try:
        mode = os.lstat(real).st_mode
    except FileNotFoundError:
        path = _respelled(path, root)
        real = os.path.join(_real(os.path.dirname(path)), os.path.basename(path))
        mode = os.lstat(real).st_mode
    if stat.S_ISLNK(mode):
        real = os.path.realpath(real)
        mode = os.stat(real).st_mode
    if not real.startswith(_real(root).rstrip("/") + "/"):
        raise ImageRejected("outside_source", "a link leads out of the source folder: copy the photo into the folder")
    if not stat.S_ISREG(mode):
        raise ImageRejected("missing_file", "the path is not a regular file: give the path of a photo")
    with open(real, "rb", buffering=0) as file:
        file.seek(start)
        # The size is asked first: to read 17 kB with a limit of 32 MB would allocate 32 MB for each photo.
        return file.read(min(length, max(0, os.fstat(file.fileno()).st_size - start))) or b""


_real = lru_cache(maxsize=4096)(os.path.realpath)


def _respelled(path: str, root: str) -> str:
    """The path of an existing file below `root` whose name is the same text in another Unicode form, else `path`.

    A Mac writes names decomposed, where other systems and tables compose them.
    """
    found = os.path.abspath(root)
    for part in os.path.relpath(path, found).split(os.sep):
        if not os.path.lexists(os.path.join(found, part)):
            composed = unicodedata.normalize("NFC", part)
            part = _composed_names(found, os.stat(found).st_mtime_ns).get(composed, part)
        found = os.path.join(found, part)
    return found


@lru_cache(maxsize=64)
def _composed_names(folder: str, changed: int) -> dict[str, str]:
    """The names in a folder by their composed form. `changed` is the folder's time of change."""
    return {unicodedata.normalize("NFC", name): name for name in sorted(os.listdir(folder))}


def _read_remote(uri: str, start: int, end: int) -> bytes:
    fs, path = fsspec.core.url_to_fs(uri)
    spellings = dict.fromkeys([path, *(unicodedata.normalize(form, path) for form in ("NFC", "NFD"))])
    missing: FileNotFoundError | None = None
    for spelling in spellings:
        try:
            return bytes(fs.cat_file(spelling, start=start, end=end))
        except FileNotFoundError as error:
            missing = missing or error
    assert missing is not None
    raise missing


class _Patience:
    """What is left of the time that a chunk may wait for busy hosts, in seconds over all its threads."""

    def __init__(self) -> None:
        self._left = float(_TOGETHER * _PATIENCE_S)
        self._lock = threading.Lock()

    def wait(self, seconds: float) -> bool:
        """Waits, and returns whether it did: not if the time left is shorter."""
        with self._lock:
            if seconds > self._left:
                return False
            self._left -= seconds
        time.sleep(seconds)
        return True


def _fetch(url: str, rules: PhotoRules, patience: _Patience) -> bytes:
    """The photo at `url`. A host that is busy, slow or away is asked again after a pause that doubles each time.

    A `Retry-After` of the host makes the pause longer, up to `longest_wait_s`.
    """
    for attempt in count(1):
        try:
            return fetch_image(
                url,
                allow_hosts=rules.allow_hosts,
                max_bytes=rules.max_bytes,
                timeout_s=rules.timeout_s,
                allow_private=rules.allow_private,
            )
        except UrlRejected as refused:
            if attempt >= rules.attempts or refused.retry_after_s is None:
                raise
            pause = _FIRST_PAUSE_S * 2 ** (attempt - 1) * random.uniform(0.5, 1)
            if not patience.wait(min(max(pause, refused.retry_after_s), rules.longest_wait_s)):
                raise
    raise AssertionError("unreachable")
