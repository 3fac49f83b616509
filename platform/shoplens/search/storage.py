"""Stored vectors: float32, float16, or int8 with a scale for each vector; always read as float32.

A vector of d numbers takes 4d, 2d or d + 4 bytes. On 20,000 random unit vectors of 128 numbers recall@20 is at least
0.998 with float16 and 0.98 with int8.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol

import numpy as np

from shoplens.errors import ShoplensError

Storage = Literal["float32", "float16", "int8"]
STORAGES: tuple[Storage, ...] = ("float32", "float16", "int8")

_NUMBERS_AT_ONCE = 1 << 23


class Stored(NamedTuple):
    """`codes` [n, d], and for int8 `scale` float32 [n]. A vector is its codes times its scale."""

    codes: np.ndarray
    scale: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        n, dimension = self.codes.shape
        return n, dimension

    def read(self, rows: slice = slice(None)) -> np.ndarray:
        """float32 [r, d]. Codes that are float32 are returned without a copy."""
        codes = self.codes[rows]
        if self.scale is not None:
            return codes * self.scale[rows, None]
        return codes.astype(np.float32, copy=False)

    def pick(self, rows: np.ndarray) -> Stored:
        return Stored(self.codes.take(rows, axis=0), None if self.scale is None else self.scale.take(rows))


class Coding(Protocol):
    """What is kept of vectors for a faster search (`codes.Codes`)."""

    def followed_by(self, stored: Stored) -> Coding: ...


class Vectors:
    """Stored vectors in one or more parts, concatenated; read as float32. Read-only, safe from many threads.

    `codes` are their one-byte codes, if a search is to use them; `plain` the float32 array, if they are just that.
    """

    def __init__(self, *parts: Stored, codes: Coding | None = None) -> None:
        self.parts, self.codes = parts, codes
        alone = parts[0].codes
        self.plain = alone if len(parts) == 1 and alone.dtype == np.float32 and alone.flags.c_contiguous else None
        self._ends = np.cumsum([part.shape[0] for part in parts])

    @property
    def shape(self) -> tuple[int, int]:
        return int(self._ends[-1]), self.parts[0].shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def followed_by(self, part: Stored) -> Vectors:
        """These vectors and those of one more part."""
        return Vectors(*self.parts, part, codes=self.codes and self.codes.followed_by(part))

    def block(self, start: int, end: int) -> np.ndarray:
        """float32 [end - start, d]: the vectors from `start` to `end`, which must lie in one part."""
        which = int(np.searchsorted(self._ends, start, side="right")) if len(self.parts) > 1 else 0
        before = int(self._ends[which - 1]) if which else 0
        return self.parts[which].read(slice(start - before, end - before))

    def pick(self, rows: np.ndarray) -> Stored:
        """The vectors of these rows [r], as stored."""
        if len(self.parts) == 1:
            return self.parts[0].pick(rows)
        which = np.searchsorted(self._ends, rows, side="right")
        places = [np.flatnonzero(which == number) for number in range(len(self.parts))]
        picked = [
            part.pick(rows[here] - (end - part.shape[0]))
            for here, part, end in zip(places, self.parts, self._ends, strict=True)
        ]
        back = np.argsort(np.concatenate(places))
        scales = [part.scale for part in picked if part.scale is not None]
        joined = Stored(np.concatenate([part.codes for part in picked]), np.concatenate(scales) if scales else None)
        return joined.pick(back)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """float32 [r, d]: the vectors of these rows [r]."""
        return self.pick(rows).read()

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """All vectors, float32 [n, d]."""
        whole = np.concatenate([part.read() for part in self.parts])
        return whole if dtype is None else whole.astype(dtype, copy=False)


def encode(vectors: np.ndarray, storage: Storage) -> Stored:
    """Encodes vectors float32 [n, d] in the number format `storage`.

    int8 is symmetric: the greatest magnitude of a vector becomes 127, so the error of a number is at most 1/254 of it.
    float16 holds magnitudes up to 65504 (`check_range`).
    """
    if storage == "float32":
        return Stored(vectors)
    if storage == "float16":
        return Stored(vectors.astype(np.float16))
    scale = np.abs(vectors).max(axis=1, initial=0) / np.float32(127)
    divisor = np.where(scale > 0, scale, np.float32(1))
    return Stored(np.rint(vectors / divisor[:, None]).clip(-127, 127).astype(np.int8), scale)


def blocks(n: int, dimension: int) -> Iterator[slice]:
    """Consecutive slices of n rows, each of at most some millions of numbers."""
    step = max(1, _NUMBERS_AT_ONCE // max(1, dimension))
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def longest(stored: Stored) -> float:
    """The greatest length of a vector, in float64; 0 without vectors."""
    return float(np.sqrt(np.square(stored.read(), dtype=np.float64).sum(axis=1)).max(initial=0))


def check_range(vectors: np.ndarray, storage: Storage) -> None:
    """Raises ShoplensError if numbers of the vectors [n, d] are too great for the number format `storage`."""
    if storage == "float16" and any(np.abs(vectors[rows]).max() > 65504 for rows in blocks(*vectors.shape)):
        raise ShoplensError("some numbers of the vectors are above 65504, float16's greatest: store them as int8")
