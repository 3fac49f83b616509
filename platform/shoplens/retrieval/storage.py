"""Vectors as they are stored: float32, float16, or int8 with a scale for each vector; read as float32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

Storage = Literal["float32", "float16", "int8"]
STORAGES: tuple[Storage, ...] = ("float32", "float16", "int8")

_NUMBERS_AT_ONCE = 1 << 23


class Stored(NamedTuple):
    """`codes` [n, d] and, of int8, `scale` float32 [n]: a vector is its codes times its scale."""

    codes: np.ndarray
    scale: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        n, dimension = self.codes.shape
        return n, dimension

    def read(self, rows: slice | np.ndarray) -> np.ndarray:
        """float32 [r, d]; of float32 and a slice it is the stored array itself."""
        codes = self.codes[rows] if isinstance(rows, slice) else self.codes.take(rows, axis=0)
        if self.scale is not None:
            return codes * self.scale[rows, None]
        return codes.astype(np.float32, copy=False)


class Vectors:
    """Stored vectors, one part behind the other, read as float32; read-only, safe from many threads."""

    def __init__(self, *parts: Stored) -> None:
        self.parts = parts
        self._ends = np.cumsum([part.shape[0] for part in parts])

    @property
    def shape(self) -> tuple[int, int]:
        return int(self._ends[-1]), self.parts[0].shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def block(self, start: int, end: int) -> np.ndarray:
        """float32 [end - start, d]: the vectors from `start` to `end`, which lie in one part."""
        which = int(np.searchsorted(self._ends, start, side="right")) if len(self.parts) > 1 else 0
        before = int(self._ends[which - 1]) if which else 0
        return self.parts[which].read(slice(start - before, end - before))

    def take(self, rows: np.ndarray) -> np.ndarray:
        """float32 [r, d]: the vectors of these rows [r]."""
        if len(self.parts) == 1:
            return self.parts[0].read(rows)
        taken = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        which = np.searchsorted(self._ends, rows, side="right")
        for number, part in enumerate(self.parts):
            here = np.flatnonzero(which == number)
            taken[here] = part.read(rows[here] - (self._ends[number] - part.shape[0]))
        return taken

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """All of them, float32 [n, d]."""
        whole = np.concatenate([part.read(slice(None)) for part in self.parts])
        return whole if dtype is None else whole.astype(dtype, copy=False)


def encode(vectors: np.ndarray, storage: Storage) -> Stored:
    """float32 [n, d] -> as `storage` keeps them.

    int8 is symmetric: the greatest magnitude of a vector becomes 127, so that an error is at most half a
    127th of it. float16 holds magnitudes up to 65504; greater ones become infinite.
    """
    if storage == "float32":
        return Stored(vectors)
    if storage == "float16":
        with np.errstate(over="ignore"):
            return Stored(vectors.astype(np.float16))
    scale = np.abs(vectors).max(axis=1, initial=0) / np.float32(127)
    divisor = np.where(scale > 0, scale, np.float32(1))
    return Stored(np.rint(vectors / divisor[:, None]).clip(-127, 127).astype(np.int8), scale)


def blocks(n: int, dimension: int) -> Iterator[slice]:
    """Consecutive slices of n rows, of some millions of numbers each."""
    step = max(1, _NUMBERS_AT_ONCE // max(1, dimension))
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def longest(parts: Sequence[Stored]) -> float:
    """The greatest length of a vector, in float64; 0 of none."""
    lengths = [
        np.sqrt(np.square(part.read(rows), dtype=np.float64).sum(axis=1)).max()
        for part in parts
        for rows in blocks(*part.shape)
    ]
    return float(max(lengths, default=0.0))
