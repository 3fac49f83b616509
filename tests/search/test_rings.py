"""Search through the category tree under the shop's rules, against a reference that looks at every product."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoplens.errors import ShoplensError
from shoplens.search import rings as module
from shoplens.search.index import Index, UnknownCategory, UnknownProduct
from shoplens.search.product_identity import Identifiers
from shoplens.search.rings import Result, Widening, rings, search, similar
from shoplens.search.rules import Rules
from tests.search.shops import TREE, Shop, nearest
from tests.search.test_product_identity import products as identified

IDENTIFIERS: list[Identifiers] = [(), (("brand", "mpn"),), (("gtin",), ("Mpn",))]
RULES = st.builds(
    Rules,
    in_stock=st.booleans(),
    price_min=st.sampled_from([None, None, 0.0, 3.0]),
    price_max=st.sampled_from([None, None, 6.0, 9.0]),
    currency=st.sampled_from([None, None, "KRW", "USD", "EUR"]),
    attributes=st.sampled_from([{}, {}, {"color": "red"}, {"color": "blue", "size": "S"}, {"size": "XL"}, {"no": "S"}]),
    seed_catalog=st.booleans(),
    cheapest=st.booleans(),
    identifiers=st.sampled_from(IDENTIFIERS),
    variants=st.sampled_from([(), ("size",), ("SIZE", "color", "no"), ("quantity", "color")]),
    component_cap=st.sampled_from([None, 1, 2]),
)
WIDENINGS = st.builds(
    Widening,
    rings=st.sampled_from([None, 0, 1, 2, 9]),
    margin=st.sampled_from([None, 0.0, 1.0, 2.5]),
    floor=st.sampled_from([None, None, -3.0, 0.0, 4.0]),
)
SHOPS = st.builds(Shop, seed=st.integers(0, 10_000), n_products=st.integers(1, 40), n_photos=st.integers(1, 70))
ORDERS = st.one_of(
    st.none(), st.permutations([None, *(node.id for node in TREE)]).map(lambda order: order[:4]), st.just(["e/f", "a"])
)


def product_rows(index: Index) -> list[dict[str, Any]]:
    """One row a product in the order of the index, with the rows of its photos and what it is by each `IDENTIFIERS`."""
    products: dict[str, dict[str, Any]] = {}
    for row, item in enumerate(index.items.to_pylist()):
        products.setdefault(item["product_id"], {**item, "photos": []})["photos"].append(row)
    rows = list(products.values())
    told = [[row[name] for row in rows] for name in ("catalog_id", "attributes")]
    by_each = [identified(*told, identifiers) for identifiers in (*IDENTIFIERS, Rules().identifiers)]
    priced = sorted(row["currency"] or "" for row in rows if row["price"] is not None)
    main = max(dict.fromkeys(priced), key=priced.count, default="")
    for row, *product in zip(rows, *by_each, strict=True):
        row["main_currency"] = main
        row["product"] = dict(zip((*IDENTIFIERS, Rules().identifiers), product, strict=True))
    return rows


def lies_in(category: str | None, ancestor: str | None) -> bool:
    return ancestor is None or category == ancestor or (category or "").startswith(ancestor + "/")


def passes(product: dict[str, Any], rules: Rules, seed: dict[str, Any]) -> bool:
    price, said = product["price"], dict(product["attributes"] or [])
    if product["product_id"] == seed["product_id"]:
        return False
    if not rules.seed_catalog and of(product, rules) is not None and of(product, rules) == of(seed, rules):
        return False
    if rules.in_stock and product["stock"] == 0:
        return False
    if rules.price_min is not None and (price is None or price < rules.price_min):
        return False
    if rules.price_max is not None and (price is None or price > rules.price_max):
        return False
    bounded = rules.price_min is not None or rules.price_max is not None
    if bounded and (product["currency"] or "") != (rules.currency or product["main_currency"]):
        return False
    return all(value in said.get(key, []) for key, value in rules.attributes.items())


def of(listing: dict[str, Any], rules: Rules) -> Any:
    return listing["product"][rules.identifiers]


def thing(product: dict[str, Any], rules: Rules) -> Any:
    """What it is a listing of."""
    if of(product, rules) is None:
        return product["product_id"]
    said = {key.lower(): set(values) for key, values in product["attributes"] or []}
    return of(product, rules), [said.get(key.lower(), set()) for key in rules.variants]


def comparable(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return None in (one["price"], other["price"]) or one["currency"] == other["currency"]


def rivals(product: dict[str, Any], products: list[dict[str, Any]], rules: Rules, seed: dict[str, Any]) -> list[Any]:
    """The listings of the same thing that pass and compare with it, the one to be shown first."""
    same = [other for other in products if thing(other, rules) == thing(product, rules)]
    same = [other for other in same if passes(other, rules, seed) and comparable(other, product)]
    return sorted(same, key=lambda other: (other["price"] is None, other["price"], other["product_id"]))


def reference(
    index: Index,
    query: np.ndarray,
    seed: dict[str, Any],
    k: int,
    order: Sequence[Any],
    rules: Rules,
    widening: Widening,
) -> list[Result]:
    products = product_rows(index)
    vectors = np.asarray(index.vectors, np.float64)
    for product in products:
        scores = [sum(a * float(b) for a, b in zip(vectors[row], query, strict=True)) for row in product["photos"]]
        product["score"], product["row"] = max(scores), product["photos"][int(np.argmax(scores))]
        inside = [number for number, category in enumerate(order) if lies_in(product["category_id"], category)]
        product["ring"] = min(inside, default=None)
    shown, of_component, capped = [], {}, set()
    for ring in range(len(order) if widening.rings is None else min(len(order), widening.rings + 1)):
        pool = [product for product in products if product["ring"] == ring and passes(product, rules, seed)]
        if rules.cheapest:
            pool = [product for product in pool if rivals(product, products, rules, seed)[0] is product]
        high = [product for product in pool if widening.floor is None or product["score"] >= widening.floor]
        for product in sorted(high, key=lambda product: -product["score"]):
            code = product["component"]
            if len(shown) == k:
                break
            if rules.component_cap and code is not None and of_component.get(code, 0) >= rules.component_cap:
                capped.add(code)
                continue
            of_component[code] = of_component.get(code, 0) + 1
            shown.append(product)
        if len(shown) == k or (ring > 0 and pool and not high):
            break
    if widening.margin is not None:
        shown.sort(key=lambda product: widening.margin * product["ring"] - product["score"])
    results = []
    for product in shown:
        code = product["component"]
        names = {
            "in_stock": rules.in_stock and product["stock"] is not None,
            "price": rules.price_min is not None or rules.price_max is not None,
            "attributes": bool(rules.attributes),
            "cheapest": rules.cheapest and len(rivals(product, products, rules, seed)) > 1,
            "shared_photo": code is not None and sum(other["component"] == code for other in shown) > 1,
            "capped": code in capped,
        }
        applied = tuple(name for name, applies in names.items() if applies)
        results.append(Result(product["product_id"], product["row"], product["score"], product["ring"], applied))
    return results


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shop=SHOPS,
    k=st.sampled_from([1, 3, 8, 50]),
    order=ORDERS,
    rules=RULES,
    widening=WIDENINGS,
    of=st.randoms(),
    few=st.sampled_from([1, 16]),
)
def test_results_are_those_of_a_reference_and_keep_every_promise(
    tmp_path_factory: pytest.TempPathFactory,
    shop: Shop,
    k: int,
    order: list[str | None] | None,
    rules: Rules,
    widening: Widening,
    of: Any,
    few: int,
) -> None:
    index = shop.build(tmp_path_factory.mktemp("index") / "index")
    products = {product["product_id"]: product for product in product_rows(index)}
    seed = products[of.choice(sorted(products))]
    own = seed["category_id"]
    asked = order or [own, *(own.rsplit("/", up)[0] for up in range(1, own.count("/") + 1))] if own else order or [None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_LARGE", few)
        found = similar(index, seed["product_id"], k, order=order, rules=rules, widening=widening)
    query = index.vector_of(seed["product_id"])
    expected = reference(index, query, seed, k, asked, rules, widening)
    assert [result._replace(score=0) for result in found.results] == [r._replace(score=0) for r in expected]
    np.testing.assert_allclose([r.score for r in found.results], [r.score for r in expected], rtol=1e-12, atol=1e-12)
    assert found.snapshot == index.snapshot

    results = found.results
    shown = [products[result.product_id] for result in results]
    assert len({result.product_id for result in results}) == len(results) <= k
    assert all(passes(product, rules, seed) for product in shown)
    if rules.cheapest:
        for product in shown:
            for other in rivals(product, list(products.values()), rules, seed):
                assert other is product or product["price"] is not None or other["price"] is None
                assert other["price"] is None or product["price"] <= other["price"]
    if widening.floor is None and rules.component_cap is None:
        last = len(asked) if widening.rings is None else widening.rings + 1
        reachable = [
            product
            for product in products.values()
            if any(lies_in(product["category_id"], category) for category in asked[:last])
            and passes(product, rules, seed)
            and (not rules.cheapest or rivals(product, list(products.values()), rules, seed)[0] is product)
        ]
        assert len(results) == min(k, len(reachable))
    for above, below in zip(results, results[1:], strict=False):
        if above.ring > below.ring:
            assert widening.margin is not None and above.score - below.score > widening.margin
        if above.ring == below.ring:
            assert above.score >= below.score


def test_rings_part_the_order_they_are_given(tmp_path: Path) -> None:
    index = Shop(1, 40, 90).build(tmp_path / "index")
    category = [product["category_id"] for product in product_rows(index)]
    ringed = [
        [category[place] for low, high in ring for place in range(low, high)]
        for ring in rings(index, ["a/b/c", "e", "a/b", "a", None, "a/d"])
    ]
    assert [set(ring) for ring in ringed] == [{"a/b/c"}, {"e", "e/f"}, {"a/b"}, {"a", "a/d"}, {None}, set()]
    assert sum(map(len, ringed)) == len(index)


def test_without_more_the_order_is_the_path_upwards(tmp_path: Path) -> None:
    index = Shop(1, 40, 90).build(tmp_path / "index")
    assert index.ring_order("a/b/c") == ["a/b/c", "a/b", "a"]
    assert index.ring_order("e") == ["e"]
    assert index.ring_order(None) == [None]
    with pytest.raises(UnknownCategory, match="'zzz'"):
        index.ring_order("zzz")


def test_an_order_that_was_learned_comes_before_the_ancestors(tmp_path: Path) -> None:
    shop = Shop(1, 40, 90)
    index = shop.build(tmp_path / "index", similar_categories={"a/b/c": ["e/f", "a/d"], "a": []})
    assert index.ring_order("a/b/c") == ["a/b/c", "e/f", "a/d", "a/b", "a"]
    assert index.ring_order("a") == ["a"]
    assert index.ring_order("e/f") == ["e/f", "e"]
    shows_all = Rules(in_stock=False, cheapest=False)
    products = product_rows(index)
    seed = next(product["product_id"] for product in products if product["category_id"] == "a/b/c")
    category = {product["product_id"]: product["category_id"] for product in products}
    found = similar(index, seed, 100, rules=shows_all).results
    ring = {"a/b/c": 0, "e/f": 1, "a/d": 2, "a/b": 3, "a": 4}
    assert [result.ring for result in found] == [ring[category[result.product_id]] for result in found]
    assert {result.ring for result in found} == {0, 1, 2, 3, 4}


def test_a_query_of_its_own_is_searched_like_a_product(tmp_path: Path) -> None:
    index = Shop(2, 30, 60).build(tmp_path / "index")
    query = np.array([1, -2, 0.5], np.float32)
    everything = search(index, query, 1000, [None], rules=Rules(in_stock=False, cheapest=False)).results
    assert [(r.product_id, r.row, r.score) for r in everything] == nearest(index, query, 1000)[0]


def test_wrong_questions_are_refused(tmp_path: Path) -> None:
    index = Shop(3, 10, 30).build(tmp_path / "index")
    query = np.ones(3, np.float32)
    with pytest.raises(UnknownProduct, match="'gone'"):
        similar(index, "gone", 3)
    with pytest.raises(UnknownCategory, match="'zzz'"):
        search(index, query, 3, ["zzz"])
    with pytest.raises(ShoplensError, match="at least the product's own"):
        search(index, query, 3, [])
    with pytest.raises(ShoplensError, match="k is 0"):
        search(index, query, 0, [None])
    with pytest.raises(ShoplensError, match="not finite"):
        search(index, query * np.nan, 3, [None])
