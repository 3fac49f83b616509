"""Triton kernels against the tiles in PyTorch. Without CUDA they run in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytest.importorskip("triton", reason="Triton is for Linux")

from shoplens.objectives import tiles, tiles_triton  # noqa: E402

SIZES = [(1, 1, 1), (5, 9, 3), (33, 70, 20), (64, 64, 32), (70, 33, 40)]
SCALE, BIAS = 41.0, -3.0


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE == "cpu":
        sizes = {"BLOCK_ROWS": 16, "BLOCK_COLUMNS": 16, "BLOCK_FEATURES": 32, "STRIPE": 32, "SPLITS": 3}
        for name, value in {**sizes, "WEIGHT_COLUMNS": 48}.items():
            monkeypatch.setattr(tiles_triton, name, value)


def draw(n: int, m: int, d: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n * m + d)
    x, y = (functional.normalize(torch.randn(k, d, generator=generator), dim=1) for k in (n, m))
    return (*(rows.to(DEVICE, dtype) for rows in (x, y)), torch.tensor(SCALE).to(DEVICE), torch.tensor(BIAS).to(DEVICE))


def excluded(n: int, m: int) -> tiles.Excluded:
    keys = torch.randint(4, (m + n,), generator=torch.Generator().manual_seed(3)).to(DEVICE)
    first = max(0, m - n) // 2
    return tiles.Excluded(keys[first : first + n], keys[:m], first)


def close(ours: Tensor, exact: Tensor, tolerance: float = 2e-6) -> None:
    assert (ours.double() - exact.double()).norm() <= tolerance * exact.double().norm() + 1e-30


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("n", "m", "d"), SIZES)
def test_reduced_scores(n: int, m: int, d: int, masked: bool) -> None:
    x, y, scale, _ = draw(n, m, d)
    out = excluded(n, m) if masked else None
    ours = tiles_triton.reduce_scores(x, y, scale, out)
    exact = tiles.reduce_scores(x.double(), y.double(), scale.double(), out)
    for mine, other in zip(ours, exact, strict=True):
        torch.testing.assert_close(mine.logsumexp.double(), other.logsumexp, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("n", "m", "d"), SIZES)
def test_softmax_gradient(n: int, m: int, d: int, masked: bool) -> None:
    x, y, scale, _ = draw(n, m, d)
    out = excluded(n, m) if masked else None
    reduced = tiles.reduce_scores(x.double(), y.double(), scale.double(), out)
    by_row, by_column = (part.logsumexp.nan_to_num(neginf=0.0) for part in reduced)
    ours, exact = torch.ones_like(y), torch.ones_like(y).double()
    mine = list(tiles_triton.softmax_gradient(x, y, scale, by_row.float(), by_column.float(), out, ours))
    other = list(tiles.softmax_gradient(x.double(), y.double(), scale.double(), by_row, by_column, out, exact))
    close(torch.cat([rows for _, rows in mine]), torch.cat([rows for _, rows in other]), 1e-5)
    close(ours, exact, 1e-5)


@pytest.mark.parametrize(("n", "m", "d"), SIZES)
def test_sigmoid(n: int, m: int, d: int) -> None:
    x, y, scale, bias = draw(n, m, d)
    wide = (x.double(), y.double(), scale.double(), bias.double())
    close(tiles_triton.softplus_sum(x, y, scale, bias), tiles.softplus_sum(*wide), 1e-5)
    ours, exact = torch.zeros_like(y), torch.zeros_like(y).double()
    mass, exact_mass = torch.zeros(n, device=DEVICE), torch.zeros(n, device=DEVICE, dtype=torch.float64)
    mine = list(tiles_triton.sigmoid_gradient(x, y, scale, bias, ours, mass))
    other = list(tiles.sigmoid_gradient(*wide, exact, exact_mass))
    close(torch.cat([rows for _, rows in mine]), torch.cat([rows for _, rows in other]), 1e-5)
    close(ours, exact, 1e-5)
    close(mass, exact_mass, 1e-5)


def test_half_precision_rows_lose_no_more_than_their_weights_rounding() -> None:
    half = torch.bfloat16 if DEVICE == "cuda" else torch.float16  # the interpreter has no bfloat16 products
    x, y, scale, _ = draw(70, 33, 40, half)
    wide = (x.double(), y.double(), scale.double())
    reduced = tiles.reduce_scores(*wide, None)
    for mine, other in zip(tiles_triton.reduce_scores(x, y, scale, None), reduced, strict=True):
        torch.testing.assert_close(mine.logsumexp.double(), other.logsumexp, rtol=1e-6, atol=1e-5)
    by_row, by_column = (part.logsumexp for part in reduced)
    ours, exact = torch.zeros_like(y, dtype=torch.float32), torch.zeros_like(y, dtype=torch.float64)
    mine = list(tiles_triton.softmax_gradient(x, y, scale, by_row.float(), by_column.float(), None, ours))
    other = list(tiles.softmax_gradient(*wide, by_row, by_column, None, exact))
    close(torch.cat([rows for _, rows in mine]), torch.cat([rows for _, rows in other]), 2**-8)
    close(ours, exact, 2**-8)
