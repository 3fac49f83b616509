"""What a vector becomes when it is stored, and what search loses by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shoplens.errors import ShoplensError
from shoplens.search.index import Index
from shoplens.search.items import ITEMS
from shoplens.search.scan import Range
from shoplens.search.storage import STORAGES, Storage, Stored, Vectors, encode
from tests.search.shops import TREE, Shop


def unit(n: int, dim: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_numbers_are_off_by_no_more_than_a_step() -> None:
    vectors = unit(200, 37, 0) * np.logspace(-20, 4, 200, dtype=np.float32)[:, None]
    vectors[7] = 0
    greatest = np.abs(vectors.astype(np.float64)).max(axis=1, keepdims=True)
    error = np.abs(encode(vectors, "int8").read().astype(np.float64) - vectors)
    assert (error <= greatest / 254 * (1 + 1e-5)).all()
    small = np.clip(vectors, -1, 1)
    np.testing.assert_array_equal(encode(small, "float16").read(), small.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(encode(vectors, "float32").read(), vectors)


@pytest.mark.parametrize("storage", STORAGES)
def test_parts_are_read_as_one(storage: Storage) -> None:
    vectors = unit(50, 8, 1)
    stored = encode(vectors, storage)
    parts = Vectors(*(stored.pick(np.arange(a, b)) for a, b in ((0, 20), (20, 20), (20, 21), (21, 50))))
    assert len(parts) == 50 and parts.shape == (50, 8)
    rows = np.random.default_rng(2).integers(50, size=200)
    np.testing.assert_array_equal(parts.take(rows), stored.read()[rows])
    np.testing.assert_array_equal(parts, stored.read())
    np.testing.assert_array_equal(parts.block(20, 21), stored.read()[20:21])
    np.testing.assert_array_equal(parts.block(30, 50), stored.read()[30:50])


@pytest.mark.parametrize(("storage", "bytes_a_vector", "least"), [("float16", 256, 0.998), ("int8", 132, 0.98)])
def test_search_is_exact_for_what_is_stored_and_near_to_what_was(
    tmp_path: Path, storage: Storage, bytes_a_vector: int, least: float
) -> None:
    """20,000 random unit vectors of 128 numbers, the hardest for a short code: none has a near neighbour."""
    n, k = 20_000, 20
    vectors, queries = unit(n, 128, 3), unit(50, 128, 4)
    rows = [{"image_id": str(row), "product_id": str(row), "sample": row} for row in range(n)]
    index = Index.build(tmp_path / "index", vectors, pa.Table.from_pylist(rows, ITEMS), TREE, {}, storage=storage)
    found = index.nearest(queries, k, [Range(0, n)]).rows
    kept = np.asarray(Index.load(tmp_path / "index").vectors, np.float64)
    exact = np.argsort(-(queries.astype(np.float64) @ kept.T), axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(found, exact)
    wanted = np.argsort(-(queries.astype(np.float64) @ vectors.T.astype(np.float64)), axis=1)[:, :k]
    recall = np.mean([len(set(a) & set(b)) / k for a, b in zip(found.tolist(), wanted.tolist(), strict=True)])
    assert recall >= least
    sizes = [part.codes.nbytes + (0 if part.scale is None else part.scale.nbytes) for part in index.vectors.parts]
    assert sum(sizes) == bytes_a_vector * n


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    shop = Shop(1, 5, 10)
    with pytest.raises(ShoplensError, match="stored as 'float8'"):
        shop.build(tmp_path / "index", "float8")  # type: ignore[arg-type]
    shop.vectors[3, 1] = 70_000
    with pytest.raises(ShoplensError, match="above 65504"):
        shop.build(tmp_path / "index", "float16")
    assert not list(tmp_path.iterdir())


def test_an_index_without_its_scales_is_refused(tmp_path: Path) -> None:
    Shop(1, 5, 10).build(tmp_path / "index", "int8")
    (tmp_path / "index" / "scales.npy").unlink()
    with pytest.raises(ShoplensError, match="scales.npy is missing"):
        Index.load(tmp_path / "index")


def test_of_float32_nothing_is_copied() -> None:
    vectors = unit(10, 4, 5)
    assert np.shares_memory(Vectors(Stored(vectors)).block(2, 7), vectors)
