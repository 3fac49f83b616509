"""Append-only event log: acknowledged events are durable, and each event is read exactly once.

    ROOT/WRITER/lock                    held by the only process that writes to this folder
    ROOT/WRITER/000000000007.events     the current segment: frames of JSON lines
    ROOT/WRITER/000000000006.parquet    a sealed segment

A frame holds its length, its CRC-32 and the lines of one write. The next frame is written only after the fsync of
the previous one. So only the last frame of a segment can be torn. Sealing writes a Parquet file under another name,
fsyncs it, renames it and then deletes the segment. If both files exist, the Parquet file is complete and only it is
read.
"""

from __future__ import annotations

import logging
import os
import re
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from pydantic import Field

from shoplens.config import Config
from shoplens.errors import ShoplensError
from shoplens.experiments.events import EVENTS, Event

LOCK, SEGMENT, SEALED, PARTIAL = "lock", ".events", ".parquet", ".partial"
MAGIC = b"\x89ev\n"
"""First bytes of a frame. No JSON line in UTF-8 contains them."""
_HEADER = struct.Struct(">4sII")
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_log = logging.getLogger(__name__)


class FolderTaken(ShoplensError):
    """Another writer holds the lock of the folder."""


class Sealing(Config):
    """When the event log seals a segment, that is, turns it into Parquet. The first limit reached applies."""

    after_bytes: int = Field(32 << 20, ge=1, description="Seal a segment when it reaches this size, in bytes.")
    after_seconds: float = Field(3600.0, gt=0, description="Seal a segment at this age, in seconds.")


@dataclass
class _Batch:
    """The lines of one call of `append`. `settled`: they are durable, or writing them failed with `error`."""

    lines: bytes
    settled: bool = False
    error: BaseException | None = None


class EventLog:
    """The writer of one folder, safe for the threads of its process. Close it, or use it in a `with` statement.

    Each replica writes to its own folder under one root. Opening a folder seals the segments that an earlier process
    left, even if that process was killed.
    """

    def __init__(self, root: str | os.PathLike[str], writer: str, sealing: Sealing | None = None) -> None:
        """Opens the folder ROOT/WRITER.

        Raises FolderTaken if the folder has a writer, and ShoplensError if the folder is not writable or one of its
        segments is damaged.
        """
        if not _NAME.fullmatch(writer):
            raise ShoplensError(f"{writer[:100]!r} cannot name a folder: use letters, digits, '.', '_' and '-'")
        self.folder = Path(root).absolute() / writer
        self._sealing = sealing or Sealing()
        self._lock = FileLock(self.folder / LOCK, timeout=0, thread_local=False)
        try:
            _make(self.folder)
            self._lock.acquire()
        except Timeout:
            raise FolderTaken(f"{self.folder} has a writer already: give every replica a name of its own") from None
        except OSError as error:
            raise ShoplensError(f"{self.folder} cannot be written to: {error}") from error
        self._waiting: list[_Batch] = []
        self._arrivals = threading.Lock()
        self._writing = threading.Lock()
        self._segment: int | None = None
        self._size, self._began = 0, 0.0
        self._closed = False
        self._wake = threading.Event()
        try:
            for partial in self.folder.glob(f"*{PARTIAL}"):
                partial.unlink()
            for path in self._ended():
                _seal(path)
            self._next = 1 + max((int(stem) for stem in _stems(self.folder)), default=0)
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError):
                raise ShoplensError(f"what was left in {self.folder} cannot be sealed: {error}") from error
            raise
        self._sealer = threading.Thread(target=self._seal_in_background, name="event-log-sealer", daemon=True)
        self._sealer.start()

    def append(self, events: Sequence[Event]) -> None:
        """Appends events and returns when they are durable. Concurrent calls share one write and one fsync.

        Raises ShoplensError if the write failed. Some events may have reached the disk, so send all of them again
        under the same ids.
        """
        if not events:
            return
        batch = _Batch(b"".join(event.model_dump_json().encode() + b"\n" for event in events))
        with self._arrivals:
            self._waiting.append(batch)
        with self._writing:
            if not batch.settled:
                self._commit()
        if batch.error is not None:
            raise ShoplensError(f"the events could not be logged: {batch.error}") from batch.error

    def close(self) -> None:
        """Seals all segments and releases the folder. Raises ShoplensError if a segment could not be sealed."""
        with self._writing:
            self._closed = True
        self._wake.set()
        self._sealer.join()
        left = self._ended()
        self._lock.release()
        if left:
            raise ShoplensError(f"{left[0]} could not be sealed; it stays readable, and the next opening seals it")

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _commit(self) -> None:
        """Writes all waiting batches as one frame and settles them. The caller holds `_writing`."""
        with self._arrivals:
            group, self._waiting = self._waiting, []
        error: BaseException | None = None
        try:
            self._write(frame(b"".join(batch.lines for batch in group)))
        except BaseException as caught:
            error = caught
            self._end()  # its tail may be torn: no frame may follow it
            if not isinstance(caught, Exception):
                raise
        finally:
            for batch in group:
                batch.settled, batch.error = True, error

    def _write(self, data: bytes) -> None:
        if self._closed:
            raise ShoplensError(f"the log {self.folder} is closed")
        if self._segment is None:
            path = self.folder / f"{self._next:012d}{SEGMENT}"
            self._next += 1
            self._segment = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o644)
            self._size, self._began = 0, time.monotonic()
            _sync(self.folder)
            self._wake.set()
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._segment, rest) :]
        os.fsync(self._segment)
        self._size += len(data)
        if self._size >= self._sealing.after_bytes:
            self._end()

    def _end(self) -> None:
        """Closes the segment for the sealer. The next write opens a new one."""
        if self._segment is not None:
            os.close(self._segment)
            self._segment = None
            self._wake.set()

    def _ended(self) -> list[Path]:
        """Segments that are closed and not yet sealed."""
        paths = sorted(self.folder.glob(f"*{SEGMENT}"))
        return paths if self._segment is None else paths[:-1]

    def _seal_in_background(self) -> None:
        closed = False
        while not closed:
            due = None if self._segment is None else self._began + self._sealing.after_seconds
            self._wake.wait(None if due is None else max(0.0, due - time.monotonic()))
            self._wake.clear()
            with self._writing:
                closed = self._closed
                old = time.monotonic() - self._began >= self._sealing.after_seconds
                if closed or (self._segment is not None and old):
                    self._end()
                ended = self._ended()
            for path in ended:
                try:
                    _seal(path)
                except (OSError, pa.ArrowException, ShoplensError) as error:
                    _log.error("%s could not be sealed and stays as it is: %s", path, error)


def read(root: str | os.PathLike[str]) -> pa.Table:
    """Reads all events under `root`, with the columns of `EVENTS`, also while writers append.

    Each id appears once: the first event of the first folder is kept.
    Raises ShoplensError if there is no log, or one of its files is damaged.
    """
    root = Path(root)
    if not root.is_dir():
        raise ShoplensError(f"there is no event log {root}")
    tables = [_segment(folder, stem) for folder in sorted(root.iterdir()) for stem in _stems(folder)]
    if not tables and not any((folder / LOCK).exists() for folder in root.iterdir()):
        raise ShoplensError(f"{root} is no event log: name the folder that holds the writers' folders")
    table = pa.concat_tables([EVENTS.empty_table(), *tables], promote_options="default")
    rows = pa.array(np.arange(table.num_rows))
    first = table.select(["event_id"]).append_column("row", rows).group_by("event_id").aggregate([("row", "min")])
    if first.num_rows == table.num_rows:
        return table
    return table.take(np.sort(first["row_min"].to_numpy()))


def frame(lines: bytes) -> bytes:
    """A frame with these lines."""
    return _HEADER.pack(MAGIC, len(lines), zlib.crc32(lines)) + lines


def whole_frames(data: bytes, name: str) -> tuple[list[bytes], int]:
    """The lines of each whole frame of a segment, and the number of bytes of a torn frame at its end.

    Raises ShoplensError if a whole frame follows a broken one: the broken frame was damaged after its acknowledgement.
    """
    found, at = [], 0
    while (lines := _frame_at(data, at)) is not None:
        found.append(lines)
        at += _HEADER.size + len(lines)
    later = data.find(MAGIC, at + 1)
    while later >= 0:
        if _frame_at(data, later) is not None:
            raise ShoplensError(
                f"{name} is damaged at byte {at}, and what follows is whole: restore it from a copy, or move it away"
            )
        later = data.find(MAGIC, later + 1)
    return found, len(data) - at


def _frame_at(data: bytes, at: int) -> bytes | None:
    if len(data) < at + _HEADER.size:
        return None
    magic, length, crc = _HEADER.unpack_from(data, at)
    lines = data[at + _HEADER.size : at + _HEADER.size + length]
    return lines if magic == MAGIC and len(lines) == length and zlib.crc32(lines) == crc else None


def _stems(folder: Path) -> Iterator[str]:
    """Numbers of all segments in order, sealed or not."""
    paths = folder.iterdir() if folder.is_dir() else ()
    yield from sorted({path.stem for path in paths if path.suffix in (SEGMENT, SEALED) and path.stem.isdigit()})


def _segment(folder: Path, stem: str) -> pa.Table:
    sealed = folder / f"{stem}{SEALED}"
    if not sealed.exists():
        try:
            return _parsed(folder / f"{stem}{SEGMENT}")[0]
        except FileNotFoundError:  # sealed just now, or deleted because it held no events
            if not sealed.exists():
                return EVENTS.empty_table()
    try:
        with pq.ParquetFile(sealed, pre_buffer=False) as file:
            return file.read(use_threads=False)  # https://github.com/apache/arrow/issues/33975
    except pa.ArrowException as error:
        raise ShoplensError(f"{sealed} is damaged ({error}): restore it from a copy, or move it away") from error


def _parsed(path: Path) -> tuple[pa.Table, int]:
    frames, torn = whole_frames(path.read_bytes(), str(path))
    if not frames:
        return EVENTS.empty_table(), torn
    options = pj.ParseOptions(explicit_schema=EVENTS, unexpected_field_behavior="error")
    alone = pj.ReadOptions(use_threads=False)  # https://github.com/apache/arrow/issues/33975
    return pj.read_json(pa.BufferReader(b"".join(frames)), alone, options).select(EVENTS.names), torn


def _seal(path: Path) -> None:
    """Turns a segment into Parquet. It may be interrupted at any point and repeated."""
    sealed = path.with_suffix(SEALED)
    if not sealed.exists():
        table, torn = _parsed(path)
        if torn:
            _log.warning("%s: %d bytes of a write that was never acknowledged are left out", path, torn)
        if table.num_rows:
            aside = path.with_suffix(PARTIAL)
            with open(aside, "wb") as file:
                pq.write_table(table, file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            aside.replace(sealed)
            _sync(path.parent)
    path.unlink()
    _sync(path.parent)


def _make(folder: Path) -> None:
    """Creates the folder and its parents durably."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        _sync(path.parent)


def _sync(folder: Path) -> None:
    """Makes the file names of a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
