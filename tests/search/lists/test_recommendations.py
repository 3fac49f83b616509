"""The lists of every seed on random shops: all rules at once against a slow reference, and what breaks them found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoplens.errors import ShoplensError
from shoplens.search import deltas
from shoplens.search.deltas import Changes
from shoplens.search.index import Index
from shoplens.search.lists.recommendations import Recommendations, recommend, table, violations, write
from shoplens.search.rings import Widening
from shoplens.search.rules import NAMES, Rules
from tests.search.shops import Shop
from tests.search.test_rings import RULES, WIDENINGS, comparable, of, passes, product_rows, reference, rivals, thing

TREES = st.lists(
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map(tuple), min_size=1, max_size=8, unique=True
)
SHOPS = st.builds(
    Shop, seed=st.integers(0, 10_000), n_products=st.integers(1, 25), n_photos=st.integers(1, 40), paths=TREES
)
random_shops = settings(max_examples=70, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def wrong_by_hand(index: Index, lists: Recommendations, rules: Rules) -> list[list[bool]]:
    """Each result judged by itself and by those before it, in plain loops."""
    products = product_rows(index)
    found = []
    for row, own in zip(lists.place, lists.seed, strict=True):
        judged: list[bool] = []
        for at, place in enumerate(row):
            if place < 0:
                judged.append(False)
                continue
            product, seed = products[place], products[own]
            faulty = not passes(product, rules, seed)
            before = [products[other] for other in row[:at]]
            if rules.cheapest and of(product, rules) is not None:
                faulty |= any(
                    thing(other, rules) == thing(product, rules)
                    and (product["price"] is None or (other["price"] is not None and comparable(other, product)))
                    for other in before
                )
                for other in rivals(product, products, rules, seed):
                    faulty |= other["price"] is not None and (
                        product["price"] is None or other["price"] < product["price"]
                    )
            if rules.component_cap is not None and product["component"] is not None:
                alike = sum(other["component"] == product["component"] for other in before)
                faulty |= alike >= rules.component_cap
            judged.append(faulty)
        found.append(judged)
    return found


@random_shops
@given(shop=SHOPS, k=st.sampled_from([1, 4, 30]), rules=RULES, widening=WIDENINGS)
def test_every_list_is_that_of_a_reference_and_breaks_no_rule(
    tmp_path_factory: pytest.TempPathFactory, shop: Shop, k: int, rules: Rules, widening: Widening
) -> None:
    index = shop.build(tmp_path_factory.mktemp("index") / "index")
    products = {product["product_id"]: product for product in product_rows(index)}
    lists = recommend(index, [*products, "no such product"], k, rules=rules, widening=widening)
    assert not violations(index, lists, rules).any()
    assert not np.array(wrong_by_hand(index, lists, rules)).any()
    told = table(index, lists).to_pylist()
    assert [row["seed"] for row in told] == [*products, "no such product"]
    assert told[-1]["product_ids"] == [] and told[-1]["seconds"] is None
    for row in told[:-1]:
        seed = products[row["seed"]]
        own = seed["category_id"]
        order = [own, *(own.rsplit("/", up)[0] for up in range(1, own.count("/") + 1))] if own else [None]
        expected = reference(index, index.vector_of(row["seed"]), seed, k, order, rules, widening)
        assert row["product_ids"] == [one.product_id for one in expected]
        assert row["rings"] == [one.ring for one in expected]
        assert row["rules"] == [list(one.rules) for one in expected]
        assert row["scores"] == pytest.approx([one.score for one in expected])


@random_shops
@given(shop=SHOPS, rules=RULES, seed=st.integers(0, 10_000))
def test_what_breaks_a_rule_is_found_wherever_it_stands(
    tmp_path_factory: pytest.TempPathFactory, shop: Shop, rules: Rules, seed: int
) -> None:
    """Lists of whatever products, as no search would make them."""
    index = shop.build(tmp_path_factory.mktemp("index") / "index")
    rng = np.random.default_rng(seed)
    n, k = len(index.products), 5
    place = np.stack([rng.permutation(np.arange(max(n, k)))[:k] for _ in range(6)])
    place = np.where((place < n) & (np.arange(k) < rng.integers(k + 1, size=6)[:, None]), place, -1)
    place = np.array([[*one[one >= 0], *one[one < 0]] for one in place])
    empty = np.full(place.shape, -1)
    ids = index.products.all_ids.to_pylist()
    own = rng.integers(n, size=6)
    lists = Recommendations(
        [ids[at] for at in own], own, place, empty, empty, empty * np.nan, empty.astype(np.uint8), own * 1.0, "s"
    )
    assert violations(index, lists, rules).tolist() == wrong_by_hand(index, lists, rules)


def test_what_left_the_shop_is_no_seed_and_in_no_list(tmp_path: Path) -> None:
    shop = Shop(5, 30, 60)
    index = shop.build(tmp_path / "index")
    before = recommend(index, ["p1"], 30)
    gone = table(index, before)["product_ids"][0].as_py()[0]
    deltas.append(tmp_path / "index", Changes(removed=[gone]))
    left = deltas.load(tmp_path / "index")
    after = recommend(left, ["p1", gone], 30)
    assert gone not in table(left, after)["product_ids"][0].as_py()
    assert after.seed[1] == -1 and (after.place[1] == -1).all() and np.isnan(after.seconds[1])
    assert after.snapshot != before.snapshot
    assert violations(left, before, Rules())[0].tolist() == [True] + [False] * 29


def test_the_table_says_how_it_was_made_and_is_whole_or_not_there(tmp_path: Path) -> None:
    index = Shop(2, 20, 30).build(tmp_path / "index")
    rules, widening, done = Rules(price_max=5, component_cap=1), Widening(rings=1), []
    seeds = index.products.all_ids.to_pylist()
    lists = recommend(index, seeds, 3, rules=rules, widening=widening, done=done.append)
    assert sum(done) == len(seeds)
    write(tmp_path / "out/lists.parquet", index, lists, rules, widening)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["lists.parquet"]
    kept = pq.read_table(tmp_path / "out/lists.parquet")
    assert kept.equals(table(index, lists))
    made: dict[bytes, Any] = kept.schema.metadata
    assert made[b"snapshot"].decode() == index.snapshot and made[b"k"] == b"3"
    assert Rules.model_validate_json(made[b"rules"]) == rules
    assert Widening.model_validate_json(made[b"widening"]) == widening
    assert set(kept["rules"].combine_chunks().flatten().flatten().to_pylist()) <= set(NAMES)
    with pytest.raises(ShoplensError, match="k is 0"):
        recommend(index, seeds, 0)
