"""An index with deltas answers as one built from scratch; so does what they are compacted to."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shoplens.errors import ShoplensError
from shoplens.search.deltas import Changes, append, compact, load, stamp
from shoplens.search.index import Index
from shoplens.search.items import ITEMS
from shoplens.search.rings import Widening, similar
from shoplens.search.rules import Rules
from shoplens.search.storage import STORAGES, Storage
from tests.search.shops import TREE, Shop, nearest

SIMILAR = {"a/b/c": ["e/f", "a/d"], "e": ["a/d"]}
IDS = [f"p{number}" for number in range(12)]
STEPS = st.lists(
    st.fixed_dictionaries(
        {
            "removed": st.lists(st.sampled_from(IDS), max_size=4),
            "prices": st.dictionaries(st.sampled_from(IDS), st.sampled_from([None, 0.0, 4.0, 8.5]), max_size=4),
            "stocks": st.dictionaries(st.sampled_from(IDS), st.sampled_from([None, 0, 3]), max_size=4),
            "added": st.tuples(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 12)) | st.none(),
        }
    ),
    max_size=4,
)
FULL = [
    {"removed": ["p1"], "prices": {"p2": 4.0}, "stocks": {"p3": 0, "p4": None}, "added": (5, 9, 12)},
    {"removed": ["p2", "p6"], "prices": {"p2": 1.0, "p7": None}, "stocks": {"p5": 3}, "added": (6, 9, 12)},
    {"removed": [], "prices": {"p1": 2.0, "p9": 0.0}, "stocks": {}, "added": None},
]


class Ledger:
    """What a shop consists of after some changes: rows with their vectors by product, in the order of their addition."""

    def __init__(self, shop: Shop) -> None:
        self.products: dict[str, list[tuple[dict[str, Any], np.ndarray]]] = {}
        self.add(shop)

    def add(self, shop: Shop) -> None:
        for row in shop.rows:
            self.products.pop(row["product_id"], None)
        for row, vector in zip(shop.rows, shop.vectors, strict=True):
            self.products.setdefault(row["product_id"], []).append((row, vector))

    def apply(self, removed: list[str], added: Shop | None, told: dict[str, dict[str, Any]]) -> None:
        for product_id in removed:
            self.products.pop(product_id, None)
        if added is not None:
            self.add(added)
        for name, values in told.items():
            for product_id, value in values.items():
                photos = self.products.get(product_id, [])
                photos[:] = [({**row, name: value}, vector) for row, vector in photos]

    def build(self, folder: Path, storage: Storage) -> Index:
        rows, vectors = zip(*(photo for photos in self.products.values() for photo in photos), strict=True)
        items = pa.Table.from_pylist(list(rows), schema=ITEMS)
        return Index.build(
            folder, np.stack(vectors), items, TREE, {"model": "eclip"}, storage=storage, similar_categories=SIMILAR
        )


def more(step: int, seed: int, n_products: int, n_photos: int) -> Shop:
    """Products to be added, whose photos have ids of their own."""
    shop = Shop(seed, n_products, n_photos)
    shop.rows = [{**row, "image_id": f"{step}-{row['image_id']}"} for row in shop.rows]
    return shop


def answers(index: Index, queries: np.ndarray) -> list[Any]:
    """What an index says, with photos named by their ids."""
    image = index.items["image_id"].to_pylist()
    searched = [
        [(hit.product_id, image[hit.row], hit.score) for hit in hits]
        for category in (None, *(node.id for node in TREE))
        for k in (2, 100)
        for hits in nearest(index, queries, k, category)
    ]
    seeds = [product_id for product_id in IDS if product_id in index]
    return [
        len(index),
        [index.ring_order(category) for category in (None, *(node.id for node in TREE))],
        seeds,
        searched,
        [index.vector_of(seed).tolist() for seed in seeds],
        [
            [
                (r.product_id, image[r.row], *r[2:])
                for r in similar(index, seed, 6, rules=rules, widening=widening).results
            ]
            for seed in seeds
            for rules in (Rules(component_cap=1), Rules(price_min=1, attributes={"size": "S"}, seed_catalog=True))
            for widening in (Widening(), Widening(margin=1.0))
        ],
    ]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    base=st.tuples(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 30)),
    steps=STEPS,
    storage=st.sampled_from(STORAGES),
)
@example(base=(1, 12, 30), steps=FULL, storage="float32")
@example(base=(2, 12, 30), steps=FULL, storage="int8")
def test_deltas_answer_as_an_index_built_from_scratch(
    tmp_path_factory: pytest.TempPathFactory, base: tuple[int, int, int], steps: list[dict[str, Any]], storage: Storage
) -> None:
    folder = tmp_path_factory.mktemp("shop")
    shop = Shop(*base)
    ledger, snapshots = Ledger(shop), [shop.build(folder / "index", storage, SIMILAR).snapshot]
    for number, step in enumerate(steps):
        added = None if step["added"] is None else more(number, *step["added"])
        told = {"price": step["prices"], "stock": step["stocks"]}
        ledger.apply(step["removed"], added, told)
        given = {} if added is None else {"items": added.items, "vectors": added.vectors}
        append(folder / "index", Changes(step["removed"], prices=step["prices"], stocks=step["stocks"], **given))
        snapshots.append(load(folder / "index").snapshot)
    assert len(set(snapshots)) == len(snapshots)
    if not ledger.products:
        assert nearest(load(folder / "index"), np.ones(3, np.float32), 5) == [[]]
        with pytest.raises(ShoplensError, match="no product"):
            compact(folder / "index")
        return
    queries = np.random.default_rng(0).integers(-2, 3, size=(4, 3)).astype(np.float32)
    scratch = ledger.build(folder / "scratch", storage)
    expected = answers(scratch, queries)
    opened = load(folder / "index")
    assert answers(opened, queries) == expected
    assert opened.longest >= scratch.longest

    compacted = compact(folder / "index")
    assert answers(compacted, queries) == expected
    assert compacted.items.equals(scratch.items)
    np.testing.assert_array_equal(compacted.vectors, scratch.vectors)
    assert compacted.about == {"model": "eclip", "compacted_from": snapshots[-1]}
    assert compacted.snapshot == load(folder / "index").snapshot != snapshots[-1]
    assert {path.name for path in folder.iterdir()} == {"index", "scratch", ".index.lock"}


def test_a_delta_is_refused_whole(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    Shop(1, 10, 30).build(folder)
    before = load(folder).snapshot
    new = more(0, 2, 3, 4)

    def refused(match: str, **changes: Any) -> None:
        with pytest.raises(ShoplensError, match=match):
            append(folder, Changes(**{"items": new.items, "vectors": new.vectors, **changes}))

    refused(r"float32 \[4, 3\]", vectors=new.vectors[:3])
    refused("one for each photo", vectors=None)
    refused("not finite", vectors=new.vectors * np.nan)
    refused("'p5' is not a number", prices={"p5": -1.0})
    refused("'p5' is not a number", prices={"p5": float("nan")})
    refused("'p6' is not a number", stocks={"p6": -1})
    for price in (-7.0, float("inf"), float("nan")):
        free = [{"image_id": f"new {n}", "product_id": "new", "price": price, "sample": 0} for n in range(4)]
        refused("the price of product 'new' is", items=pa.Table.from_pylist(free, ITEMS))
    strange = [{"image_id": f"new {n}", "product_id": "new", "category_id": "zzz", "sample": 0} for n in range(4)]
    refused("not in the category tree", items=pa.Table.from_pylist(strange, ITEMS))
    taken = [{**row, "category_id": "e", "image_id": f"i{number}"} for number, row in enumerate(strange)]
    refused("has the image id of a photo of product", items=pa.Table.from_pylist(taken, ITEMS))
    refused("stands twice", items=pa.Table.from_pylist(strange[:1] * 4, ITEMS))
    with pytest.raises(ShoplensError, match="holds no index"):
        append(tmp_path / "none", Changes(removed=["p1"]))
    assert load(folder).snapshot == before
    assert not list(folder.glob("deltas/*"))


def test_damaged_missing_and_strange_deltas_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    Shop(1, 10, 30).build(folder)
    first, second = (append(folder, Changes(removed=[product_id])) for product_id in ("p1", "p2"))
    whole = second.read_bytes()
    second.write_bytes(whole[:-9])
    with pytest.raises(ShoplensError, match="000002.parquet is damaged"):
        load(folder)
    second.write_bytes(whole)
    kept = first.read_bytes()
    first.unlink()
    with pytest.raises(ShoplensError, match="delta 1 .* is missing"):
        load(folder)
    first.write_bytes(kept)
    assert "p1" not in load(folder)
    Shop(2, 10, 30).build(folder)
    assert "+" not in load(folder).snapshot
    first.parent.mkdir()
    first.write_bytes(kept)
    with pytest.raises(ShoplensError, match="a delta of another index"):
        load(folder)


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    shop = Shop(3, 40, 90)
    folder = tmp_path / "index"
    shop.build(folder)
    there = sorted({row["product_id"] for row in shop.rows})[:6]
    writers = [threading.Thread(target=append, args=(folder, Changes(removed=[product_id]))) for product_id in there]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    index = load(folder)
    assert not any(product_id in index for product_id in there)
    assert [path.name for path in sorted((folder / "deltas").iterdir())] == [f"{n:06d}.parquet" for n in range(1, 7)]


def test_who_has_opened_a_snapshot_keeps_it(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    Shop(4, 20, 60).build(folder)
    append(folder, Changes(removed=["p3"]))
    opened = load(folder)
    query = np.ones(3, np.float32)
    before = nearest(opened, query, 50)
    append(folder, Changes(removed=["p1", "p2"]))
    compact(folder)
    assert nearest(opened, query, 50) == before != nearest(load(folder), query, 50)


def test_the_stamp_changes_with_base_and_deltas_and_with_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    Shop(5, 20, 60).build(folder)
    stamps = [stamp(folder)]
    append(folder, Changes(removed=["p3"]))
    stamps.append(stamp(folder))
    append(folder, Changes(removed=["p4"]))
    stamps.append(stamp(folder))
    load(folder)
    assert stamp(folder) == stamps[-1]
    compact(folder)
    stamps.append(stamp(folder))
    Shop(6, 20, 60).build(folder)
    stamps.append(stamp(folder))
    assert len(set(stamps)) == len(stamps)
    with pytest.raises(FileNotFoundError):
        stamp(tmp_path / "none")


def test_hidden_products_cannot_be_found_and_hide_no_other(tmp_path: Path) -> None:
    shop, kept = Shop(7, 24, 60), Shop(7, 24, 60)
    hidden = {"p1", "p8", "p13", "p20"}
    kept.rows = [row for row in shop.rows if row["product_id"] not in hidden]
    kept.vectors = shop.vectors[[row["product_id"] not in hidden for row in shop.rows]]
    kept.build(tmp_path / "kept")
    shop.build(tmp_path / "index")
    append(tmp_path / "index", Changes(removed=["p13"]))
    index = load(tmp_path / "index")
    less = index.without(np.array([name in hidden for name in index.products.all_ids.to_pylist()]))
    queries = np.ones((1, 3), np.float32)
    assert answers(less, queries) == answers(load(tmp_path / "kept"), queries)
    assert {name for name in hidden if name in index} == hidden - {"p13"}
