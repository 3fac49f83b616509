"""The members of a tar and their byte ranges, so that one member can be read without unpacking."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

import fsspec

from shoplens.errors import ShoplensError

MOST_READ = 16 * 2**20
"""Bytes of the longest file that is read into memory."""


@dataclass(frozen=True)
class Member:
    """A regular file in a tar: `length` bytes at `offset`, and `data` if it was read. `./` before the name is dropped."""

    name: str
    offset: int
    length: int
    data: bytes | None


class BrokenTar(ShoplensError):
    """A tar that breaks off before its end mark. The members before the break were yielded."""


def members(path: str, read: tuple[str, ...] = ()) -> Iterator[Member]:
    """The regular files of an uncompressed tar.

    read   suffixes, in any case, of the names whose `data` is read, unless it is longer than `MOST_READ`

    Raises BrokenTar if the tar breaks off, which tarfile does not report, or if a header in it is nonsense.
    """
    try:
        with fsspec.open(path, "rb").open() as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (info := tar.next()) is not None:
                if info.size < 0:
                    raise tarfile.HeaderError(f"{info.name!r} has {info.size} bytes")
                if info.isreg() and not info.issparse():
                    data = None
                    if info.name.lower().endswith(read) and info.size <= MOST_READ:
                        file.seek(info.offset_data)
                        data = file.read(info.size)
                    yield Member(info.name.removeprefix("./"), info.offset_data, info.size, data)
                tar.members = []  # type: ignore[attr-defined]  # else tarfile keeps every header
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise BrokenTar(
                    f"{path} breaks off at byte {tar.offset}, before its end mark: create or download it again"
                )
    except (tarfile.TarError, OSError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        raise BrokenTar(
            f"{path} is not a readable, uncompressed tar ({error}): unzip it, or create it again"
        ) from error
