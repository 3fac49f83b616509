"""What an importer reads from: a stream of products with references to their photos, and of rejects."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from shoplens.schema import Product


@dataclass(frozen=True)
class PhotoRef:
    """Where one photo lies: a path below `root` or a URL; with `offset` and `length`, a range of that file.

    `split` is the product's own where it is None. `image_id` is made from the product's id where it is None.
    """

    root: str
    path: str
    role: str = "photo"
    split: str | None = None
    image_id: str | None = None
    offset: int | None = None
    length: int | None = None


@dataclass(frozen=True)
class Reject:
    """Something that was kept out. `reason` is a short code, `detail` a sentence, `where` a file and line."""

    reason: str
    detail: str
    where: str
    product_id: str | None = None
    image: str | None = None


@dataclass(frozen=True)
class SourceProduct:
    """One product as the source has it; photos that the source itself had to refuse are among `photos`."""

    product: Product
    photos: Sequence[PhotoRef | Reject]
    where: str


class Source(Protocol):
    """Iterating reads the source from its start, in the same order every time."""

    @property
    def name(self) -> str:
        """What the dataset is called unless the user says otherwise."""

    @property
    def inputs(self) -> list[str]:
        """The tables, or tars, that are read: if one has changed, an interrupted import starts anew."""

    @property
    def repeats(self) -> bool:
        """Whether one product may come several times, each time with some of its photos."""

    def __iter__(self) -> Iterator[SourceProduct | Reject]: ...


def webdataset_key(identifier: str) -> str:
    """The identifier itself if it can be a WebDataset key (no dot, slash, space), else a safe one.

    `"24-WG081"` -> `"24-WG081"`; `"a/b.c"` -> `"a-b-c-1f2e3d4c"`, the hash keeping different ids apart.
    """
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", identifier).strip("-")[:80]
    if safe == identifier:
        return safe
    return f"{safe}-{hashlib.sha256(identifier.encode()).hexdigest()[:8]}".lstrip("-")
