"""Photos where a table says they are: files of a folder, byte ranges of tars, objects of a store, URLs.

What comes from outside is read within limits. A local path leads out of no folder, through links neither.
"""

from __future__ import annotations

import errno
import os
import posixpath
import random
import re
import stat
import threading
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import NamedTuple, TypeAlias, TypeVar

import fsspec

from shoplens.datasets.fetch import UrlRejected, fetch_image
from shoplens.datasets.images import MAX_BYTES, MAX_PIXELS, ImageRejected

T = TypeVar("T")
Rejected: TypeAlias = ImageRejected | UrlRejected

_TOGETHER = 16
"""Photos of a chunk that are fetched at the same time from remote places."""
_FIRST_PAUSE_S = 1.0
_PATIENCE_S = 300.0
"""How long a chunk waits for busy hosts in all. Later photos of such hosts are given up after one attempt."""
NOT_THERE = {
    errno.ENOENT,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EINVAL,
}
"""Errors that say that a path is wrong, not the machine."""


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


class Place(NamedTuple):
    """Where a photo is: `length` bytes at `offset` of `uri`, or all of it. A local path must lie in the folder `root`."""

    uri: str
    root: str = ""
    offset: int | None = None
    length: int | None = None


_URL = re.compile(r"https?://|//[^/\\]+\.[^/\\]+/", re.IGNORECASE)


def is_url(path: str) -> bool:
    """Whether it is a URL, with a scheme or without: `//cdn.shop.kr/1.jpg`."""
    return _URL.match(path) is not None


def locate(root: str, path: str) -> str | None:
    """`path` joined to the folder `root`, or an unchanged URL. None if `path` is empty or leads out of `root`."""
    if is_url(path):
        return path
    if "\0" in path or not path:
        return None
    if "://" in root:
        if "::" in path:  # fsspec would chain to another filesystem
            return None
        scheme, _, folder = root.partition("://")
        path = path.removeprefix(f"{root}/")
        joined = posixpath.normpath(posixpath.join(folder, path))
        return f"{scheme}://{joined}" if joined.startswith(posixpath.normpath(folder) + "/") else None
    base = os.path.abspath(root)
    joined = os.path.normpath(os.path.join(base, path))
    return joined if joined.startswith(base.rstrip("/") + "/") else None


def read_photos(
    places: Sequence[Place], rules: PhotoRules, use: Callable[[bytes], T], decoders: int = 1
) -> Iterator[T | Rejected]:
    """`use` of every photo's bytes, or the error that prevents it, in order. `use` may raise ImageRejected.

    Remote photos are fetched 16 at a time. At most `decoders` photos are in `use` at a time.
    Raises OSError if the fault is the machine's and not the path's (a disk error, too many open files).
    """
    remote = any("://" in place.uri or is_url(place.uri) for place in places)
    patience, decoding = _Patience(), threading.Semaphore(decoders)

    def photo(place: Place) -> T | Rejected:
        data = _read(place, rules, patience)
        if isinstance(data, Exception):
            return data
        try:
            with decoding:
                return use(data)
        except ImageRejected as refused:
            return refused

    if decoders == 1 and not remote:
        yield from map(photo, places)
        return
    with ThreadPoolExecutor(_TOGETHER if remote else decoders) as pool:
        waiting: deque[Future[T | Rejected]] = deque()
        for place in places:
            waiting.append(pool.submit(photo, place))
            if len(waiting) > _TOGETHER:
                yield waiting.popleft().result()
        for result in waiting:
            yield result.result()


def _read(place: Place, rules: PhotoRules, patience: _Patience) -> bytes | Rejected:
    """The encoded photo, or the error that prevents reading it. At most `max_bytes` + 1 bytes are read.

    Raises OSError if the fault is the machine's and not the path's (a disk error, too many open files).
    """
    try:
        if is_url(place.uri):
            return _fetch(place.uri, rules, patience)
        start = place.offset or 0
        wanted = rules.max_bytes + 1 if place.length is None else min(place.length, rules.max_bytes + 1)
        if "://" in place.uri:
            data = _read_remote(place.uri, start, start + wanted)
        else:
            data = _read_local(place.uri, place.root, start, wanted)
        if place.length is not None and len(data) < wanted:
            return ImageRejected(
                "truncated",
                f"the shard ends {wanted - len(data)} bytes before the photo does: create or download it again",
            )
        return data
    except (ImageRejected, UrlRejected) as refused:
        return refused
    except OSError as error:
        if error.errno is not None and error.errno not in NOT_THERE:
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
