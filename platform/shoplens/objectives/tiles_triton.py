# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# ruff: noqa: N803
"""Triton kernels with the functions of `tiles`. Scores stay on the chip; only the backward pass stores their weights.

Results equal those of `tiles` up to rounding. Tensor cores multiply bfloat16 and float16 rows and accumulate in
float32. float32 rows are multiplied in full float32 (no TF32). No addition is atomic, so the same input gives the
same bits. `TRITON_INTERPRET=1` runs the kernels on a CPU, as the tests do without CUDA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from shoplens.objectives.tiles import Excluded, Reduced

BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_FEATURES = 128, 128, 64
STRIPE = 2048
"""Rows in a stripe. The partial column sums, or the weights, of one stripe are held at a time."""
SPLITS = 32
"""Parts of the columns that run in parallel in a forward pass over one stripe."""
WEIGHT_COLUMNS = 16384
"""Columns whose weights the backward pass holds at a time."""


@triton.jit
def _scores(
    x, y, scale, row, column, n, m, d,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_FEATURES: tl.constexpr,
):  # fmt: skip
    """scale X Y^T of one block; 0 out of range."""
    sums = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    for start in range(0, d, BLOCK_FEATURES):
        feature = start + tl.arange(0, BLOCK_FEATURES)
        left = tl.load(
            x + row[:, None].to(tl.int64) * d + feature[None, :],
            mask=(row[:, None] < n) & (feature[None, :] < d),
            other=0.0,
        )
        right = tl.load(
            y + column[None, :].to(tl.int64) * d + feature[:, None],
            mask=(column[None, :] < m) & (feature[:, None] < d),
            other=0.0,
        )
        sums = tl.dot(left, right, sums, input_precision="ieee")
    return sums * scale


@triton.jit
def _keep(row, column, n, m, row_key, column_key, first, EXCLUDES: tl.constexpr):
    """Mask of the pairs of one block that are in range and not excluded."""
    keep = (row[:, None] < n) & (column[None, :] < m)
    if EXCLUDES:
        of_row = tl.load(row_key + row, mask=row < n, other=0)
        of_column = tl.load(column_key + column, mask=column < m, other=0)
        own = (row[:, None] + first) == column[None, :]
        keep = keep & ((of_row[:, None] != of_column[None, :]) | own)
    return keep


@triton.jit
def _reduce_kernel(
    x, y, scale, row_key, column_key, first, begin, stop, n, m, d, split_columns,
    row_largest, row_mass, column_largest, column_mass,
    EXCLUDES: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_FEATURES: tl.constexpr,
):  # fmt: skip
    """Largest score and mass of the rows of one block over one split, and of each column over the rows of the block."""
    block, split = tl.program_id(0), tl.program_id(1)
    row = begin + block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    factor = tl.load(scale)
    largest = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    mass = tl.zeros((BLOCK_ROWS,), tl.float32)
    for start in range(split * split_columns, tl.minimum(m, (split + 1) * split_columns), BLOCK_COLUMNS):
        column = start + tl.arange(0, BLOCK_COLUMNS)
        scores = _scores(x, y, factor, row, column, stop, m, d, BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_FEATURES)
        keep = _keep(row, column, stop, m, row_key, column_key, first, EXCLUDES)
        scores = tl.where(keep, scores, float("-inf"))

        grown = tl.maximum(largest, tl.max(scores, 1))
        floor = tl.where(grown == float("-inf"), 0.0, grown)
        mass = mass * tl.exp(largest - floor) + tl.sum(tl.exp(scores - floor[:, None]), 1)
        largest = grown

        highest = tl.max(scores, 0)
        floor = tl.where(highest == float("-inf"), 0.0, highest)
        place = block.to(tl.int64) * m + column
        tl.store(column_largest + place, highest, mask=column < m)
        tl.store(column_mass + place, tl.sum(tl.exp(scores - floor[None, :]), 0), mask=column < m)
    place = split.to(tl.int64) * n + row
    tl.store(row_largest + place, largest, mask=row < stop)
    tl.store(row_mass + place, mass, mask=row < stop)


@triton.jit
def _softmax_weights_kernel(
    x, y, scale, row_key, column_key, first, by_row, by_column, begin, stop, left, right, d, weights, width,
    EXCLUDES: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_FEATURES: tl.constexpr,
):  # fmt: skip
    """exp(S - row logsumexp) + exp(S - column logsumexp) for rows [begin, stop), columns [left, right)."""
    row = begin + tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = left + tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    scores = _scores(x, y, tl.load(scale), row, column, stop, right, d, BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_FEATURES)
    keep = _keep(row, column, stop, right, row_key, column_key, first, EXCLUDES)
    of_row = tl.load(by_row + row, mask=row < stop, other=0.0)
    of_column = tl.load(by_column + column, mask=column < right, other=0.0)
    value = tl.where(keep, tl.exp(scores - of_row[:, None]) + tl.exp(scores - of_column[None, :]), 0.0)
    place = (row[:, None] - begin).to(tl.int64) * width + (column[None, :] - left)
    tl.store(weights + place, value, mask=(row[:, None] < stop) & (column[None, :] < right))


@triton.jit
def _softplus_kernel(
    x, y, scale, bias, begin, stop, n, m, d, split_columns, sums,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_FEATURES: tl.constexpr,
):  # fmt: skip
    """Sum of log(1 + exp(S + b)) for the rows of one block over one split."""
    block, split = tl.program_id(0), tl.program_id(1)
    row = begin + block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    factor, offset = tl.load(scale), tl.load(bias)
    total = tl.zeros((BLOCK_ROWS,), tl.float32)
    for start in range(split * split_columns, tl.minimum(m, (split + 1) * split_columns), BLOCK_COLUMNS):
        column = start + tl.arange(0, BLOCK_COLUMNS)
        scores = offset + _scores(x, y, factor, row, column, stop, m, d, BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_FEATURES)
        value = tl.maximum(scores, 0.0) + _log1p(tl.exp(-tl.abs(scores)))
        total += tl.sum(tl.where(column[None, :] < m, value, 0.0), 1)
    tl.store(sums + split.to(tl.int64) * n + row, total, mask=row < stop)


@triton.jit
def _log1p(value):
    """log(1 + v) for 0 <= v <= 1, accurate for small v (Kahan)."""
    shifted = 1.0 + value
    rounding = shifted - 1.0
    return tl.where(rounding == 0.0, value, tl.log(shifted) * value / tl.where(rounding == 0.0, 1.0, rounding))


@triton.jit
def _sigmoid_weights_kernel(
    x, y, scale, bias, begin, stop, left, right, d, weights, width, row_mass,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_FEATURES: tl.constexpr,
):  # fmt: skip
    """sigmoid(S + b) for rows [begin, stop), columns [left, right), and its row sums by column block."""
    row = begin + tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = left + tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    scores = _scores(x, y, tl.load(scale), row, column, stop, right, d, BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_FEATURES)
    value = tl.sigmoid(scores + tl.load(bias))
    value = tl.where((row[:, None] < stop) & (column[None, :] < right), value, 0.0)
    place = (row[:, None] - begin).to(tl.int64) * width + (column[None, :] - left)
    tl.store(weights + place, value, mask=(row[:, None] < stop) & (column[None, :] < right))
    tl.store(row_mass + tl.program_id(1).to(tl.int64) * (stop - begin) + row - begin, tl.sum(value, 1), mask=row < stop)


def reduce_scores(x: Tensor, y: Tensor, scale: Tensor, excluded: Excluded | None) -> tuple[Reduced, Reduced]:
    n, m = len(x), len(y)
    by_column = Reduced.empty(m, x)
    splits, split_columns = _split(m)
    of_rows = [torch.full((splits, n), value, dtype=torch.float32, device=x.device) for value in (-torch.inf, 0.0)]
    blocks = triton.cdiv(min(STRIPE, n), BLOCK_ROWS)
    of_columns = [torch.empty((blocks, m), dtype=torch.float32, device=x.device) for _ in range(2)]
    for begin in range(0, n, STRIPE):
        stop = min(begin + STRIPE, n)
        blocks = triton.cdiv(stop - begin, BLOCK_ROWS)
        _reduce_kernel[blocks, splits](
            x, y, _float(scale), *_keys(excluded, x), begin, stop, n, m, x.shape[1], split_columns,
            *of_rows, *of_columns,
            EXCLUDES=excluded is not None, **_blocks(x),
        )  # fmt: skip
        by_column = by_column.merge(_merged(*(part[:blocks] for part in of_columns)))
    return _merged(*of_rows), by_column


def softmax_gradient(
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    by_row: Tensor,
    by_column: Tensor,
    excluded: Excluded | None,
    along_y: Tensor,
) -> Iterator[tuple[slice, Tensor]]:
    def fill(weights: Tensor, begin: int, stop: int, left: int, right: int, grid: tuple[int, int]) -> None:
        _softmax_weights_kernel[grid](
            x, y, _float(scale), *_keys(excluded, x), by_row, by_column, begin, stop, left, right, x.shape[1],
            weights, weights.stride(0), EXCLUDES=excluded is not None, **_blocks(x),
        )  # fmt: skip

    return _multiplied_away(x, y, fill, along_y)


def softplus_sum(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    n, m = len(x), len(y)
    splits, split_columns = _split(m)
    sums = torch.zeros((splits, n), dtype=torch.float32, device=x.device)
    _softplus_kernel[triton.cdiv(n, BLOCK_ROWS), splits](
        x, y, _float(scale), _float(bias), 0, n, n, m, x.shape[1], split_columns, sums, **_blocks(x)
    )
    return sums.sum(0)


def sigmoid_gradient(
    x: Tensor, y: Tensor, scale: Tensor, bias: Tensor, along_y: Tensor, mass: Tensor
) -> Iterator[tuple[slice, Tensor]]:
    def fill(weights: Tensor, begin: int, stop: int, left: int, right: int, grid: tuple[int, int]) -> None:
        part = torch.empty((grid[1], stop - begin), dtype=torch.float32, device=x.device)
        _sigmoid_weights_kernel[grid](
            x, y, _float(scale), _float(bias), begin, stop, left, right, x.shape[1],
            weights, weights.stride(0), part, **_blocks(x),
        )  # fmt: skip
        mass[begin:stop] += part.sum(0)

    return _multiplied_away(x, y, fill, along_y)


def _multiplied_away(
    x: Tensor, y: Tensor, fill: Callable[[Tensor, int, int, int, int, tuple[int, int]], None], along_y: Tensor
) -> Iterator[tuple[slice, Tensor]]:
    """Yields W Y, a stripe of rows at a time, and adds W^T X to `along_y`.

    fill   writes a part of W, in the type of the rows
    """
    n, m = len(x), len(y)
    held = torch.empty((min(STRIPE, n), min(WEIGHT_COLUMNS, m)), dtype=x.dtype, device=x.device)
    for begin in range(0, n, STRIPE):
        stop = min(begin + STRIPE, n)
        along_x = torch.zeros((stop - begin, x.shape[1]), dtype=torch.float32, device=x.device)
        for left in range(0, m, WEIGHT_COLUMNS):
            right = min(left + WEIGHT_COLUMNS, m)
            weights = held[: stop - begin, : right - left]
            grid = (triton.cdiv(stop - begin, BLOCK_ROWS), triton.cdiv(right - left, BLOCK_COLUMNS))
            fill(weights, begin, stop, left, right, grid)
            along_x += _product(weights, y[left:right])
            along_y[left:right] += _product(weights.T, x[begin:stop])
        yield slice(begin, stop), along_x


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Matrix product, accumulated and returned in float32."""
    if left.dtype == torch.float32:
        return left @ right
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()


def _merged(largest: Tensor, mass: Tensor) -> Reduced:
    """Merges partial logsumexps [parts, k] into [k]."""
    highest = largest.amax(0)
    floor = highest.masked_fill(highest == -torch.inf, 0)
    return Reduced(highest, (mass * (largest - floor).exp()).sum(0))


def _split(columns: int) -> tuple[int, int]:
    """Number of splits, and the number of columns in each, a multiple of the block size."""
    blocks = triton.cdiv(columns, BLOCK_COLUMNS)
    each = triton.cdiv(blocks, SPLITS)
    return triton.cdiv(blocks, each), each * BLOCK_COLUMNS


def _keys(excluded: Excluded | None, x: Tensor) -> tuple[Tensor, Tensor, int]:
    return (x, x, 0) if excluded is None else (excluded.rows, excluded.columns, excluded.first)


def _float(scalar: Tensor) -> Tensor:
    return scalar.detach().to(torch.float32)


def _blocks(x: Tensor) -> dict[str, int]:
    features = BLOCK_FEATURES if x.dtype != torch.float32 else BLOCK_FEATURES // 2
    return {"BLOCK_ROWS": BLOCK_ROWS, "BLOCK_COLUMNS": BLOCK_COLUMNS, "BLOCK_FEATURES": features, "num_warps": 8}
