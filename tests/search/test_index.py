from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoplens.datasets.staging import Staging
from shoplens.errors import ShoplensError
from shoplens.search import files, scan
from shoplens.search.deltas import Changes, append, load
from shoplens.search.index import Index, UnknownCategory, UnknownProduct
from shoplens.search.items import ITEMS, items
from tests.search.shops import TREE, Hit, Shop, nearest


def _brute(index: Index, query: np.ndarray, k: int, wanted: str | None, barred: set[str]) -> list[Hit]:
    best: dict[str, Hit] = {}
    for row, (item, vector) in enumerate(zip(index.items.to_pylist(), np.asarray(index.vectors), strict=True)):
        category = item["category_id"]
        if wanted is not None and not (category == wanted or (category or "").startswith(wanted + "/")):
            continue
        if item["product_id"] in barred:
            continue
        score = sum(float(a) * float(b) for a, b in zip(query, vector, strict=True))
        if item["product_id"] not in best or score > best[item["product_id"]].score:
            best[item["product_id"]] = Hit(item["product_id"], row, score)
    return sorted(best.values(), key=lambda hit: (-hit.score, hit.row))[:k]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shop=st.builds(Shop, seed=st.integers(0, 10_000), n_products=st.integers(1, 20), n_photos=st.integers(1, 60)),
    k=st.sampled_from([1, 2, 5, 1000]),
    category=st.sampled_from([None, *TREE._nodes]),
    barred=st.sets(st.sampled_from([*(f"p{n}" for n in range(20)), "gone"])),
    at_once=st.sampled_from([1, 7, 40, 1 << 23]),
    fold=st.sampled_from([1, 2, 8]),
    kept=st.sampled_from([0, 1, 8]),
)
def test_search_is_brute_force(
    tmp_path_factory: pytest.TempPathFactory,
    shop: Shop,
    k: int,
    category: str | None,
    barred: set[str],
    at_once: int,
    fold: int,
    kept: int,
) -> None:
    index = shop.build(tmp_path_factory.mktemp("index") / "index")
    queries = np.random.default_rng(0).integers(-2, 3, size=(5, 3)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "_SCORES_AT_ONCE", at_once)
        patch.setattr(scan, "_NUMBERS_AT_ONCE", at_once)
        patch.setattr(scan, "_QUERIES_AT_ONCE", 1 + at_once % 8)
        patch.setattr(scan, "_FOLD", fold)
        patch.setattr(scan, "_KEPT", kept)
        found = nearest(index, queries, k, category, barred)
    assert found == [_brute(index, query, k, category, barred) for query in queries]


def test_each_vector_stays_with_its_photo(tmp_path: Path) -> None:
    shop = Shop(1, 10, 50, dim=8)
    index = shop.build(tmp_path / "index")
    np.testing.assert_array_equal(index.vectors, shop.vectors[index.items["sample"].to_numpy()])
    assert index.items.to_pylist() == [shop.rows[sample] for sample in index.items["sample"].to_pylist()]
    order = [999 if c is None else TREE[c].order for c in index.items["category_id"].to_pylist()]
    assert order == sorted(order)


def test_items_are_those_of_the_dataset(tmp_path: Path) -> None:
    """Photos whose products lie in another order in the products table than the photos in theirs."""
    staging = Staging(str(tmp_path / "shop"), {})
    staging.begin()
    with staging.shard("train-000000.tar") as shard:
        images = [
            {
                "image_id": f"i{i}",
                "product_id": f"p{p}",
                "split": "train",
                "shard": "train-000000.tar",
                "offset": shard.add(f"i{i}", b"x", "jpg", "{}"),
            }
            for i, p in enumerate([2, 0, 2, 1])
        ]
    products = [
        {"product_id": f"p{p}", "catalog_id": f"c{p}", "title": "t", "price": 10.0 * p, "split": "train"}
        | {"currency": [" krw", "USD", ""][p]}
        | ({"category_path": ["a", "b"], "category_id": "a/b"} if p else {"category_path": []})
        | ({"attributes": [("size", ["M"])]} if p == 1 else {})
        | {"stock": [0, 5, None][p]}
        for p in range(3)
    ]
    staging.write_chunk("0", {"products": products, "images": images})
    dataset = staging.finish("shop", {})
    table = items(dataset, np.array([3, 0, 1]), photo_group=pa.array([None, 7, None], pa.int64()))
    assert table.schema == ITEMS
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        ("i3", "p1", "c1", "a/b", 10.0, "USD", 5, 7, [("size", ["M"])], 3),
        ("i0", "p2", "c2", "a/b", 20.0, None, None, None, None, 0),
        ("i1", "p0", "c0", None, 0.0, "KRW", 0, None, None, 1),
    ]
    given = items(dataset, np.array([3, 0, 1]), stock=pa.array([1, None, 2], pa.int64()))
    assert given["stock"].to_pylist() == [None, 2, 1]
    assert given["component"].null_count == 3
    index = Index.build(tmp_path / "index", np.eye(3, dtype=np.float32), table, dataset.categories, {})
    assert [hit.product_id for hit in nearest(index, np.array([3, 2, 1]), 9, "a")[0]] == ["p1", "p2"]


def test_answers_do_not_depend_on_what_is_asked_beside(tmp_path: Path) -> None:
    """Vectors of which many are equal, where float32 matrix products differ in the last bits by shape."""
    rng = np.random.default_rng(0)
    shop = Shop(2, 400, 900, dim=96)
    shop.vectors = rng.normal(size=(300, 96)).astype(np.float32)[rng.integers(300, size=900)]
    index = shop.build(tmp_path / "index")
    queries = rng.normal(size=(33, 96)).astype(np.float32)
    together = nearest(index, queries, 20)
    assert together == [nearest(index, query, 20)[0] for query in queries]
    shop_vectors = np.asarray(index.vectors, np.float64)
    best = max(range(900), key=lambda row: (shop_vectors[row] @ queries[0], -row))
    assert together[0][0].row == best


def test_saved_is_loaded_and_mapped(tmp_path: Path) -> None:
    shop = Shop(3, 10, 40)
    built = shop.build(tmp_path / "a" / "index")
    loaded = Index.load(tmp_path / "a" / "index")
    assert loaded.about == {"model": "eclip"} and loaded.dim == 3 and len(loaded) == len(built)
    assert isinstance(loaded.vectors.parts[0].codes.base, np.memmap)
    query = np.ones(3, np.float32)
    assert nearest(loaded, query, 5) == nearest(built, query, 5)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["index"]


def test_building_again_replaces_and_readers_keep_what_they_opened(tmp_path: Path) -> None:
    old = Shop(4, 10, 40).build(tmp_path / "index")
    before = nearest(old, np.ones(3, np.float32), 5)
    Shop(5, 20, 90).build(tmp_path / "index")
    assert nearest(old, np.ones(3, np.float32), 5) == before
    assert len(Index.load(tmp_path / "index").items) == 90
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_a_failed_build_leaves_what_was_there(tmp_path: Path) -> None:
    Shop(4, 10, 40).build(tmp_path / "index")
    broken = Shop(5, 10, 40)
    broken.vectors[3, 1] = np.nan
    with pytest.raises(ShoplensError, match="not finite"):
        broken.build(tmp_path / "index")
    with pytest.raises(TypeError):
        Index.build(
            tmp_path / "index",
            Shop(6, 1, 1).vectors,
            pa.Table.from_pylist(Shop(6, 1, 1).rows, schema=ITEMS),
            TREE,
            {"x": object()},
        )
    assert len(Index.load(tmp_path / "index").items) == 40
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_vector_of_a_product_is_the_unit_mean_of_its_photos(tmp_path: Path) -> None:
    shop = Shop(6, 5, 40)
    shop.vectors[:] = np.random.default_rng(0).normal(size=shop.vectors.shape)
    index = shop.build(tmp_path / "index")
    mean = np.mean([v for row, v in zip(shop.rows, shop.vectors, strict=True) if row["product_id"] == "p2"], axis=0)
    np.testing.assert_allclose(index.vector_of("p2"), mean / np.linalg.norm(mean), rtol=1e-5)
    assert "p2" in index and "gone" not in index
    with pytest.raises(UnknownProduct, match="'gone'"):
        index.vector_of("gone")


def test_wrong_questions_are_refused(tmp_path: Path) -> None:
    index = Shop(7, 5, 20).build(tmp_path / "index")
    query = np.ones(3, np.float32)
    for k in (0, -1):
        with pytest.raises(ShoplensError, match="at least 1 product"):
            nearest(index, query, k)
    with pytest.raises(ShoplensError, match="vectors of 3 numbers"):
        nearest(index, np.ones((2, 4)), 1)
    with pytest.raises(ShoplensError, match="not finite"):
        nearest(index, query * np.nan, 1)
    with pytest.raises(UnknownCategory, match="'zzz'"):
        index.slices("zzz")


def test_items_that_contradict_themselves_are_refused(tmp_path: Path) -> None:
    shop = Shop(8, 3, 10)
    good = shop.rows

    def refused(match: str, place: int, **change: Any) -> None:
        shop.rows = [{**row, **(change if i == place else {})} for i, row in enumerate(good)]
        with pytest.raises(ShoplensError, match=match):
            shop.build(tmp_path / "index")

    refused("stands twice", 3, image_id="i0")
    refused("disagree about its price", 1, price=77.0)
    refused("disagree about its catalog_id", 1, catalog_id="other")
    refused("not in the category tree", 0, product_id="new", category_id="other")
    refused("disagree about its currency", 1, currency="EUR")
    for price in (-7.0, -1e-300, float("inf"), float("-inf"), float("nan")):
        refused("price of product 'new' is .*: give a number from 0", 0, product_id="new", price=price)
    shop.rows = good[:-1]
    with pytest.raises(ShoplensError, match="9 photos"):
        shop.build(tmp_path / "index")
    assert not list(tmp_path.iterdir())


def test_similar_categories_are_kept_and_may_be_missing(tmp_path: Path) -> None:
    similar = {"a/b": ["e", "a/d"], "e": []}
    learned = Shop(9, 5, 20).build(tmp_path / "learned", similar_categories=similar)
    plain = Shop(9, 5, 20).build(tmp_path / "plain")
    assert Index.load(tmp_path / "learned").similar_categories == learned.similar_categories == similar
    assert not Index.load(tmp_path / "plain").similar_categories
    assert not (tmp_path / "plain" / files.AKIN_FILE).exists()
    assert learned.snapshot != plain.snapshot
    query = np.ones(3, np.float32)
    assert nearest(learned, query, 5) == nearest(plain, query, 5)
    for wrong in ({"zzz": ["a"]}, {"a": ["e", "zzz"]}):
        with pytest.raises(ShoplensError, match="category 'zzz'"):
            Shop(9, 5, 20).build(tmp_path / "wrong", similar_categories=wrong)
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize("name", [*files.FILES, files.AKIN_FILE])
def test_a_damaged_index_is_refused(tmp_path: Path, name: str) -> None:
    Shop(9, 5, 20).build(tmp_path / "index", similar_categories={"a": ["e"]})
    damaged = tmp_path / "index" / name
    data = bytearray(damaged.read_bytes())
    data[-5] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(ShoplensError, match="is damaged"):
        Index.load(tmp_path / "index")
    damaged.unlink()
    with pytest.raises(ShoplensError, match=f"{name} is missing"):
        Index.load(tmp_path / "index")


def test_no_index_and_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ShoplensError, match="holds no index"):
        Index.load(tmp_path)
    Shop(9, 5, 20).build(tmp_path / "index")
    summary = tmp_path / "index" / "index.json"
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "format_version": 99}))
    with pytest.raises(ShoplensError, match="format 99"):
        Index.load(tmp_path / "index")
    summary.write_text("[]")
    with pytest.raises(ShoplensError, match=r"index.json is damaged"):
        Index.load(tmp_path / "index")


def test_an_index_of_an_older_version_has_no_currency(tmp_path: Path) -> None:
    """Its items, and those of its deltas, lack the column."""
    index = Shop(9, 12, 20).build(tmp_path / "index")
    append(tmp_path / "index", Changes(prices={"p1": 3.0}))
    column = index.items.column_names.index("currency")
    pq.write_table(index.items.remove_column(column), tmp_path / "index/items.parquet")
    [delta] = (tmp_path / "index/deltas").iterdir()
    pq.write_table(pq.read_table(delta).drop_columns("currency"), delta)
    for opened in (Index.load(tmp_path / "index", verify=False), load(tmp_path / "index", verify=False)):
        assert opened.items.schema == ITEMS and opened.items["currency"].null_count == 20
        assert opened.products.main_currency is None
        priced = opened.products.in_price_range(np.arange(len(opened.products)), 0, None)
        assert priced.tolist() == (~np.isnan(opened.products.price)).tolist() and priced.any()
