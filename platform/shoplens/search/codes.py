"""One-byte codes of vectors: a quarter of the bytes of float32, and products of integers instead of floats.

A vector x is coded as c in int8 [d] with a scale s of its own: x = center + s c + r. A query q is coded as b with a step
u: q = u b + e. So, with no approximation,

    q.x = q.center + s u (b.c) + e.(s c) + q.r

b.c is an integer, computed without error. By Cauchy and Schwarz the last two terms are at most |e| |s c| + |q| |r|. The
lengths |s c| and |r| are measured in float64 when a vector is coded, and the greatest of each page of vectors is kept.

A search that keeps every vector whose score from codes lies within twice this bound of the k-th best has kept the k best.
The center is the mean of the vectors. It shifts all scores of a query alike, and what the vectors have in common then
costs no precision.

A vector takes d + 4 bytes beside its own. Vectors that are stored as int8 are their own codes.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from typing_extensions import Self

from shoplens.search.storage import Stored, Vectors, blocks

PAGE = 256
_GREATEST_CODE = 127
_LEAST_SCALE = np.float32(1e-30)
"""A product of this scale and an integer is a normal float32."""
_LONGEST = 1e30
"""Codes of longer vectors could give scores beyond float32."""
_EPSILON, _TINY = float(np.finfo(np.float32).eps), float(np.finfo(np.float32).tiny)
_EPSILON_64 = 4 * float(np.finfo(np.float64).eps)
_UP = 1 + 1e-6
_ROUNDING = 1e-9
"""Both cover float64's rounding of the bound itself."""
_NUMBERS_AT_ONCE = 1 << 20


class Coded(NamedTuple):
    """One part of `Vectors` in codes: int8 [n, d] with a scale float32 [n] each.

    bounds  float64 [pages, 2]: the greatest length of a decoded vector, and of what decoding leaves, in each page of
            `PAGE` vectors
    """

    codes: np.ndarray
    scale: np.ndarray
    bounds: np.ndarray


class Codes:
    """The codes of vectors in the parts of `Vectors`, around `center` float32 [d]. Read-only, safe from many threads."""

    def __init__(self, parts: Sequence[Coded], center: np.ndarray) -> None:
        self.parts, self.center = tuple(parts), center
        self._ends = np.cumsum([len(part.codes) for part in self.parts])

    @classmethod
    def of(cls, vectors: Vectors) -> Self:
        """Codes the vectors, part by part; int8 vectors are not copied."""
        own = vectors.parts[0].scale is not None
        center = np.zeros(vectors.shape[1], np.float32) if own else _mean(vectors)
        return cls([_coded(part, center) for part in vectors.parts], center)

    def followed_by(self, stored: Stored) -> Self:
        """These codes and those of more vectors, around the same center."""
        return type(self)((*self.parts, _coded(stored, self.center)), self.center)

    @functools.cached_property
    def usable(self) -> bool:
        """Whether this processor has exact and fast products of codes, and scores from codes stay within float32."""
        return all(float(part.bounds.max(initial=0)) < _LONGEST for part in self.parts) and available(len(self.center))

    @functools.cached_property
    def tensors(self) -> list[tuple[Any, Any]]:
        """Codes and scales of each part as tensors that share their memory."""
        import torch

        return [(torch.from_numpy(part.codes), torch.from_numpy(part.scale)) for part in self.parts]

    def block(self, start: int, end: int) -> tuple[Any, Any, np.ndarray]:
        """Codes and scales of the vectors from `start` to `end`, which must lie in one part; and the two bounds of all."""
        which = int(np.searchsorted(self._ends, start, side="right")) if len(self.parts) > 1 else 0
        before = int(self._ends[which - 1]) if which else 0
        codes, scale = self.tensors[which]
        first, last = start - before, end - before
        bounds = self.parts[which].bounds[first // PAGE : (last - 1) // PAGE + 1]
        return codes[first:last], scale[first:last], bounds.max(axis=0)


class CodedQueries:
    """Queries float64 [m, d] of lengths [m] in codes. Scores from codes are in units of each query's step, from the center on."""

    def __init__(self, codes: Codes, wide: np.ndarray, lengths: np.ndarray) -> None:
        import torch

        step = np.abs(wide).max(axis=1) / _GREATEST_CODE
        step[step == 0] = 1.0
        rounded = np.rint(wide / step[:, None])
        left = wide - rounded * step[:, None]
        # float32 rounds the integer and its product with the scale
        rounding = 4 * _EPSILON * lengths + _ROUNDING * step
        self._codes, self._wide, self._lengths, self._step = codes, wide, lengths, step
        self._by_length = _UP / step * (np.sqrt(np.vecdot(left, left)) + rounding)
        self._by_residual = _UP / step * lengths
        self._queries = torch.from_numpy(rounded.astype(np.int8))

    def scores(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """float32 [m, end - start], the scores of the vectors from `start` to `end`; and float64 [m], their error bound.

        The next call in the same thread overwrites the scores.
        """
        import torch

        codes, scale, (length, residual) = self._codes.block(start, end)
        shape = len(self._queries), end - start
        products, scores = (torch.from_numpy(workspace(what, shape)) for what in (np.int32, np.float32))
        torch._int_mm(self._queries, codes.T, out=products)
        torch.mul(products, scale, out=scores)
        return scores.numpy(), self._by_length * length + self._by_residual * residual + _TINY

    def at_most(self, scores: np.ndarray) -> np.ndarray:
        """Inner products float32 [m] in the unit of `scores`, or a little less; float64."""
        return (scores - self._center - self._slack(scores)) / self._step

    def inner_products(self, scores: np.ndarray) -> np.ndarray:
        """`scores` float64 [m] as inner products, or a little less; float64."""
        products = scores * self._step + self._center
        return products - self._slack(products)

    @functools.cached_property
    def _center(self) -> np.ndarray:
        return np.vecdot(self._wide, self._codes.center.astype(np.float64))

    def _slack(self, products: np.ndarray) -> np.ndarray:
        """More than float64 rounds where the center is added or subtracted."""
        dimension = self._wide.shape[1]
        length = float(np.linalg.norm(self._codes.center.astype(np.float64)))
        return _EPSILON_64 * (dimension * self._lengths * length + np.abs(products))


def workspace(dtype: type, shape: tuple[int, int], use: str = "scores") -> np.ndarray:
    """An array whose memory the next call in the same thread for this type and use takes again.

    New memory of some megabytes costs more than what is computed in it: the system clears each of its pages.
    """
    held: dict[str, np.ndarray] = _held.__dict__
    size, name = shape[0] * shape[1], f"{use} {dtype.__name__}"
    if name not in held or held[name].size < size:
        held[name] = np.empty(size, dtype)
    return held[name][:size].reshape(shape)


_held = threading.local()


@functools.cache
def available(dimension: int) -> bool:
    """Whether products of int8 matrices are exact here, and faster than those of float32."""
    if not exact(dimension):
        return False
    import torch

    few, many = (torch.ones((n, dimension), dtype=torch.int8) for n in (8, 2048))
    few_wide, many_wide = few.float(), many.float()
    return _seconds(lambda: _product(few, many)) < _seconds(lambda: few_wide @ many_wide.T)


@functools.cache
def exact(dimension: int) -> bool:
    """Whether products of int8 matrices are exact.

    Processors without instructions for them (AVX-512 VNNI and its like) add pairs in 16 bits, which overflows. PyTorch's
    products of one column are wrong.
    """
    import torch

    rng = np.random.default_rng(0)
    few, many = (rng.choice(np.array([-127, 127], np.int8), size=(n, dimension)) for n in (8, 2048))
    few[0], many[0] = 127, 127
    products = _product(torch.from_numpy(few), torch.from_numpy(many)).numpy()
    return np.array_equal(products, few.astype(np.int32) @ many.T.astype(np.int32))


def _product(queries: Any, codes: Any) -> Any:
    """int32 [m, n]: the inner products of int8 tensors [m, d] and [n, d]."""
    import torch

    return torch._int_mm(queries, codes.T)


def _seconds(work: Any) -> float:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def _mean(vectors: Vectors) -> np.ndarray:
    total = np.zeros(vectors.shape[1])
    for part in vectors.parts:
        for rows in blocks(*part.shape):
            total += part.read(rows).sum(axis=0, dtype=np.float64)
    return (total / max(1, len(vectors))).astype(np.float32)


def _coded(stored: Stored, center: np.ndarray) -> Coded:
    n, dimension = stored.shape
    own = stored.scale is not None
    codes = stored.codes if own else np.empty((n, dimension), np.int8)
    scale = np.empty(n, np.float32) if stored.scale is None else stored.scale
    bounds = np.zeros((-(-n // PAGE), 2))
    step = max(1, _NUMBERS_AT_ONCE // max(1, dimension) // PAGE) * PAGE
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        vectors = stored.read(rows)
        if not own:
            codes[rows], scale[rows] = _encoded(vectors, center)
        decoded = codes[rows] * scale[rows, None].astype(np.float64)
        left = vectors - (center + decoded)
        lengths = np.sqrt(np.stack([np.vecdot(some, some) for some in (decoded, left)], axis=1))
        pages = np.arange(0, len(vectors), PAGE)
        bounds[start // PAGE : start // PAGE + len(pages)] = np.maximum.reduceat(lengths, pages, axis=0)
    # The second term is the rounding of `left` itself.
    return Coded(codes, scale, bounds * _UP + _EPSILON_64 * (bounds[:, :1] + np.linalg.norm(center.astype(np.float64))))


def _encoded(vectors: np.ndarray, center: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(over="ignore", invalid="ignore"):
        around = vectors - center
        scale = np.maximum(np.abs(around).max(axis=1, initial=0) / np.float32(_GREATEST_CODE), _LEAST_SCALE)
        return np.rint(around / scale[:, None]).clip(-_GREATEST_CODE, _GREATEST_CODE).astype(np.int8), scale
