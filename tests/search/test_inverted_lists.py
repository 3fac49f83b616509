"""Inverted lists against exact search of the same shop: recall on clustered vectors, rules, deltas, damage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shoplens.errors import ShoplensError
from shoplens.search import deltas, inverted_lists, rings
from shoplens.search.deltas import Changes
from shoplens.search.files import INVERTED_LISTS, LIST_ROWS
from shoplens.search.index import Index
from shoplens.search.inverted_lists import Approximate
from shoplens.search.items import ITEMS
from shoplens.search.rules import Rules
from shoplens.search.scan import Range
from shoplens.search.storage import Storage
from tests.search.shops import PATHS, TREE

ALWAYS = Approximate(least=1)


def _shop(n: int, photos: int, seed: int = 0) -> tuple[np.ndarray, pa.Table]:
    """Unit vectors around the centres of 60 looks, of n products with 1 to `photos` photos each."""
    looks = np.random.default_rng(42).normal(size=(60, 32))
    rng = np.random.default_rng(seed)
    count = rng.integers(1, photos + 1, size=n)
    product = np.repeat(np.arange(n), count)
    own = looks[rng.integers(60, size=n)] + 0.5 * rng.normal(size=(n, 32))
    vectors = own[product] + 0.2 * rng.normal(size=(len(product), 32))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    category = rng.integers(len(PATHS), size=n)
    rows = [
        {"image_id": f"i{seed}-{i}", "product_id": f"p{p}", "category_id": "/".join(PATHS[category[p]]), "sample": i}
        | {"price": float(p % 10)}
        for i, p in enumerate(product.tolist())
    ]
    return vectors.astype(np.float32), pa.Table.from_pylist(rows, schema=ITEMS)


def _pair(folder: Path, n: int, photos: int, approximate: Approximate, storage: Storage) -> tuple[Index, Index]:
    vectors, items = _shop(n, photos)
    exact = Index.build(folder / "exact", vectors, items, TREE, {}, storage=storage)
    return exact, Index.build(folder / "lists", vectors, items, TREE, {}, storage=storage, approximate=approximate)


def _others(m: int) -> np.ndarray:
    """Queries of the shop's looks that are no photo of it."""
    return _shop(m, 1, seed=9)[0]


@pytest.mark.parametrize(("storage", "photos"), [("float32", 1), ("float16", 3), ("int8", 1)])
def test_the_recall_asked_for_is_reached_and_scores_are_true(tmp_path: Path, storage: Storage, photos: int) -> None:
    exact, index = _pair(tmp_path, 12_000, photos, Approximate(least=3_000), storage)
    assert index.inverted_lists is not None and 20 <= index.inverted_lists.max_codes < 6_000
    queries = _others(200)
    half = np.random.default_rng(1).random(len(index.products)) < 0.5
    low, high = index.slices("a")[0]
    assert high - low >= 3_000
    for ranges in (
        [Range(0, 12_000)],
        [Range(low, high)],
        [Range(0, 12_000, half)],
        [Range(low, high, half[low:high])],
    ):
        want, found = exact.nearest(queries, 20, ranges), index.nearest(queries, 20, ranges)
        same = want.products[:, :, None] == found.products[:, None, :]
        assert 0.95 <= same.any(axis=2).mean() <= 1
        query, theirs, ours = np.nonzero(same)
        np.testing.assert_array_equal(found.scores[query, ours], want.scores[query, theirs])
        np.testing.assert_array_equal(found.rows[query, ours], want.rows[query, theirs])
        assert (np.diff(found.scores, axis=1) <= 0).all()
        if ranges[0].excluded is not None:
            assert not half[found.products].any()
    small = [Range(*index.slices("a/b/c")[0])]
    assert small[0].high - small[0].low < 3_000
    for one, other in zip(exact.nearest(queries, 20, small), index.nearest(queries, 20, small), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("k", [1, 30, 150, 400])
@pytest.mark.parametrize("photos", [1, 3])
def test_pieces_of_a_small_shop(tmp_path: Path, k: int, photos: int) -> None:
    """Where the lists hold too few of what may be found, or too little may be found, the search is exact."""
    exact, index = _pair(tmp_path, 300, photos, Approximate(least=1, recall=0.5), "float32")
    queries = _others(3)
    few, most = np.arange(300) % 150 != 0, np.arange(300) % 4 == 0
    for ranges in (
        [Range(0, 300, few)],
        [Range(0, 300, np.ones(300, dtype=bool))],
        [Range(0, 40), Range(90, 90), Range(120, 300)],
        [Range(7, 40, most[7:40]), Range(200, 290, most[200:290])],
    ):
        want, found = exact.nearest(queries, k, ranges), index.nearest(queries, k, ranges)
        assert want.products.shape == found.products.shape
        if ranges[0].excluded is few or k > 200:
            np.testing.assert_array_equal(want.products, found.products)
        inside = np.zeros(300, dtype=bool)
        for low, high, excluded in ranges:
            inside[low:high] = True if excluded is None else ~excluded
        assert inside[found.products].all()
        assert all(len(set(row)) == len(row) for row in found.products.tolist())
        assert (np.searchsorted(index.products.start, found.rows, side="right") - 1 == found.products).all()


@pytest.mark.parametrize("n", [1, 2, 7])
def test_shops_smaller_than_their_lists(tmp_path: Path, n: int) -> None:
    exact, index = _pair(tmp_path, n, 2, ALWAYS, "float32")
    want, found = (of.nearest(_others(4), 5, [Range(0, n)]) for of in (exact, index))
    np.testing.assert_array_equal(want.products, found.products)


def test_rings_widen_over_lists_as_over_slices(tmp_path: Path) -> None:
    exact, index = _pair(tmp_path, 2_000, 2, Approximate(least=1, recall=0.999), "float32")
    rules = Rules(price_max=4, cheapest=False)
    shared = []
    for seed in range(0, 2_000, 100):
        want, found = (
            rings.similar(of, f"p{seed}", 30, order=["a/b/c", "a", None], rules=rules).results for of in (exact, index)
        )
        assert len(found) == len(want) == 30
        assert all(int(result.product_id[1:]) % 10 <= 4 and result.product_id != f"p{seed}" for result in found)
        shared.append(len({r.product_id for r in want} & {r.product_id for r in found}) / 30)
    assert np.mean(shared) >= 0.95


def test_what_deltas_add_is_found_and_what_they_remove_is_not(tmp_path: Path) -> None:
    _pair(tmp_path, 1_500, 2, Approximate(least=1, recall=0.99), "float32")
    vectors, items = _shop(50, 2, seed=5)
    names = pa.array([f"new-{name}" for name in items["product_id"].to_pylist()])
    items = items.set_column(items.schema.get_field_index("product_id"), "product_id", names)
    removed = [f"p{place}" for place in range(0, 1_500, 3)]
    for folder in ("exact", "lists"):
        deltas.append(tmp_path / folder, Changes(removed=removed, items=items, vectors=vectors))
    exact, index = (deltas.load(tmp_path / folder) for folder in ("exact", "lists"))
    for compacted in (False, True):
        if compacted:
            exact, index = (deltas.compact(tmp_path / folder) for folder in ("exact", "lists"))
        assert index.inverted_lists is not None and index.inverted_lists.config.recall == 0.99
        shared = []
        for query in vectors[:40]:
            want, found = (
                {result.product_id for result in rings.search(of, query, 20, [None]).results} for of in (exact, index)
            )
            assert len(found) == 20 and not found & set(removed)
            assert {name for name in want if name.startswith("new")} <= found or compacted
            shared.append(len(want & found) / 20)
        assert np.mean(shared) >= 0.95


def test_lists_are_part_of_the_index(tmp_path: Path) -> None:
    _, index = _pair(tmp_path, 300, 1, ALWAYS, "float32")
    loaded = Index.load(tmp_path / "lists")
    assert (
        loaded.inverted_lists is not None
        and index.inverted_lists is not None
        and loaded.inverted_lists.parameters == index.inverted_lists.parameters
    )
    damaged = tmp_path / "lists" / INVERTED_LISTS
    data = bytearray(damaged.read_bytes())
    data[-9] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(ShoplensError, match="is damaged"):
        Index.load(tmp_path / "lists")
    damaged.unlink()
    with pytest.raises(ShoplensError, match=f"{INVERTED_LISTS} is missing"):
        Index.load(tmp_path / "lists")
    vectors, items = _shop(300, 1)
    assert Index.build(tmp_path / "lists", vectors, items, TREE, {}).inverted_lists is None
    assert not damaged.exists()


def test_lists_of_an_earlier_version_are_searched(tmp_path: Path) -> None:
    """They do not say which category a list belongs to."""
    exact, index = _pair(tmp_path, 2_000, 2, Approximate(least=1, recall=0.99), "float32")
    told = json.loads((tmp_path / "lists/index.json").read_text())
    del told["sha256"][LIST_ROWS]
    (tmp_path / "lists/index.json").write_text(json.dumps(told))
    (tmp_path / "lists" / LIST_ROWS).unlink()
    earlier = Index.load(tmp_path / "lists")
    low, high = index.slices("a/b")[0]
    for ranges in ([Range(low, high)], [Range(0, 2_000)]):
        want, *others = (of.nearest(_others(50), 20, ranges).products for of in (exact, index, earlier))
        for found in others:
            assert (want[:, :, None] == found[:, None, :]).any(axis=2).mean() >= 0.9
            assert ((found >= ranges[0].low) & (found < ranges[0].high)).all()


@pytest.mark.parametrize("few", [0, 10_000])
def test_a_range_reads_lists_of_its_own(tmp_path: Path, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the graph of all centroids and by comparison with those of the range."""
    monkeypatch.setattr(inverted_lists, "_FEW_LISTS", few)
    exact, index = _pair(tmp_path, 6_000, 2, Approximate(least=1, recall=0.98), "float32")
    low, high = index.slices("a")[0]
    for ranges in ([Range(low, high)], [Range(low + 17, high - 301)], [Range(0, len(index.products))]):
        want, found = (of.nearest(_others(100), 20, ranges).products for of in (exact, index))
        assert (want[:, :, None] == found[:, None, :]).any(axis=2).mean() >= 0.9
        assert ((found >= ranges[0].low) & (found < ranges[0].high)).all()
