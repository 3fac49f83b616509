"""What lies where in a tar, so that a member can be read alone and nothing is ever unpacked."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

import fsspec

from shoplens.errors import ShoplensError


@dataclass(frozen=True)
class Member:
    name: str
    offset: int
    length: int
    data: bytes | None


class BrokenTar(ShoplensError):
    """The tar ends or breaks off before its end mark; what came before the break has been given."""


def members(path: str, read: tuple[str, ...] = ()) -> Iterator[Member]:
    """The regular files of an uncompressed tar; with their bytes where the name ends in one of `read`.

    Raises BrokenTar where the tar breaks off, which tarfile alone passes over in silence.
    """
    try:
        with fsspec.open(path, "rb").open() as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (info := tar.next()) is not None:
                if info.isreg() and not info.issparse():
                    data = None
                    if info.name.endswith(read):
                        file.seek(info.offset_data)
                        data = file.read(info.size)
                    yield Member(info.name, info.offset_data, info.size, data)
                tar.members = []  # type: ignore[attr-defined]  # or tarfile keeps every header
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise BrokenTar(f"{path} breaks off at byte {tar.offset}, before its end mark")
    except (tarfile.TarError, OSError) as error:
        raise BrokenTar(f"{path} is not a readable, uncompressed tar: {error}") from error
