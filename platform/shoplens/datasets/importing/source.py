"""The interface of importers: a source is a stream of products with photo references, and of rejects."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from shoplens.schema import Product


@dataclass(frozen=True)
class PhotoRef:
    """The place of one photo: a path below `root` or a URL. `offset` and `length` select a byte range of that file.

    If `split` is None, the photo has the split of its product. If `image_id` is None, it is made from the product's id.
    """

    root: str
    path: str
    role: str = "photo"
    split: str | None = None
    image_id: str | None = None
    offset: int | None = None
    length: int | None = None


@dataclass(frozen=True)
class PhotoBytes:
    """One photo that lies in the table itself. `path` is what the table calls it; the rest as in `PhotoRef`."""

    data: bytes
    path: str
    role: str = "photo"
    split: str | None = None
    image_id: str | None = None


@dataclass(frozen=True)
class Reject:
    """An item that was left out. `reason` is a short code, `detail` a sentence, `where` a file and line."""

    reason: str
    detail: str
    where: str
    product_id: str | None = None
    image: str | None = None


@dataclass(frozen=True)
class Told:
    """A sentence about how a source was read, for the summary of the import."""

    sentence: str


@dataclass(frozen=True)
class SourceProduct:
    """One product of a source.

    photos   includes rejects of photos that the source could not use
    notes    fields that were left empty, with a reason of `datasets.rejects.NOTES`
    """

    product: Product
    photos: Sequence[PhotoRef | PhotoBytes | Reject]
    where: str
    notes: Sequence[Reject] = ()


class Source(Protocol):
    """A source of products. Each iteration reads it from the start, in the same order."""

    @property
    def name(self) -> str:
        """Default name of the dataset."""

    @property
    def inputs(self) -> list[str]:
        """The tables or tars that are read. If one has changed, an interrupted import starts from scratch."""

    @property
    def repeats(self) -> bool:
        """Whether a product may occur several times, each time with some of its photos."""

    def __iter__(self) -> Iterator[SourceProduct | Reject | Told]: ...


def webdataset_key(identifier: str) -> str:
    """The identifier itself if it can be a WebDataset key (no dot, slash or space), else a safe key with a hash.

    `"24-WG081"` -> `"24-WG081"`; `"a/b.c"` -> `"a-b-c-1f2e3d4c"`. The hash makes keys of different ids differ.
    """
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", identifier).strip("-")[:80]
    if safe == identifier:
        return safe
    return f"{safe}-{hashlib.sha256(identifier.encode()).hexdigest()[:8]}".lstrip("-")
