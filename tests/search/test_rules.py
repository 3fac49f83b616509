"""What may be shown, and what of the same product or photo is shown once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from shoplens.config import ConfigError, validate
from shoplens.search.index import Index
from shoplens.search.items import ITEMS
from shoplens.search.rings import similar
from shoplens.search.rules import Rules, under_cap
from tests.search.shops import TREE


def shop_of(folder: Path, *products: dict[str, Any]) -> Index:
    """Products named a, b, c, ... in category a; the first is the seed, each less similar to it than the one before."""
    rows = [
        {"image_id": name, "product_id": name, "category_id": "a", "sample": number, **product}
        for number, (name, product) in enumerate(zip("abcdefgh", products, strict=False))
    ]
    vectors = np.array([[1, -0.1 * number] for number in range(len(rows))], dtype=np.float32)
    return Index.build(folder, vectors, pa.Table.from_pylist(rows, schema=ITEMS), TREE, {})


def shown(index: Index, rules: Rules | None = None, k: int = 9) -> dict[str, tuple[str, ...]]:
    return {result.product_id: result.rules for result in similar(index, "a", k, rules=rules or Rules()).results}


def test_the_cheapest_in_stock_stands_for_its_catalog(tmp_path: Path) -> None:
    index = shop_of(
        tmp_path / "index",
        {},
        {"catalog_id": "c", "price": 9.0, "stock": 5},
        {"catalog_id": "c", "price": 5.0, "stock": 0},
        {"catalog_id": "c", "price": 7.0, "stock": 1},
        {"catalog_id": "c", "price": 7.0},
        {"catalog_id": "c"},
        {"catalog_id": "d"},
    )
    assert shown(index) == {"d": ("in_stock", "cheapest"), "g": ()}
    assert shown(index, Rules(in_stock=False)) == {"c": ("cheapest",), "g": ()}
    assert shown(index, Rules(price_min=8)) == {"b": ("in_stock", "price")}
    assert list(shown(index, Rules(cheapest=False))) == ["b", "d", "e", "f", "g"]


def test_prices_in_different_currencies_are_not_compared(tmp_path: Path) -> None:
    """35 USD is not cheaper than 39,000 KRW."""
    won, dollar = {"catalog_id": "c", "currency": "KRW"}, {"catalog_id": "c", "currency": "USD"}
    index = shop_of(
        tmp_path / "index",
        {"price": 5.0, "currency": "KRW"},
        {**won, "price": 39_000.0},
        {**won, "price": 42_000.0},
        {**dollar, "price": 35.0},
        {**dollar},
        {"catalog_id": "c", "price": 20.0},
        {"catalog_id": "d", "currency": "USD"},
    )
    assert index.products.main_currency == "KRW"
    assert shown(index) == {"b": ("cheapest",), "d": ("cheapest",), "f": ("cheapest",), "g": ()}
    assert list(shown(index, Rules(price_max=50_000))) == ["b"]
    assert list(shown(index, Rules(price_max=50_000, currency="USD"))) == ["d"]
    assert list(shown(index, Rules(price_min=36, currency="USD"))) == []
    assert list(shown(index, Rules(price_min=0, currency="JPY"))) == []


def test_sizes_and_quantities_are_different_things(tmp_path: Path) -> None:
    """Unless the shop names other attributes; one that gives no size is a thing of its own."""
    index = shop_of(
        tmp_path / "index",
        {},
        {"catalog_id": "c", "price": 9.0, "attributes": [("Size", ["M"]), ("color", ["red"])]},
        {"catalog_id": "c", "price": 5.0, "attributes": [("size", ["L"])]},
        {"catalog_id": "c", "price": 7.0, "attributes": [("size", ["M"])]},
        {"catalog_id": "c", "price": 8.0, "attributes": [("color", ["red"])]},
        {"catalog_id": "c", "price": 6.0, "attributes": [("size", ["L", "M"])]},
        {"catalog_id": "c", "price": 6.5, "attributes": [("size", ["M", "L", "M"]), ("수량", [])]},
        {"catalog_id": "c", "price": 1.0, "attributes": [("size", ["M"]), ("수량", ["3"])]},
    )
    assert shown(index) == {"c": (), "d": ("cheapest",), "e": (), "f": ("cheapest",), "h": ()}
    assert list(shown(index, Rules(variants=("color",)))) == ["e", "h"]
    assert shown(index, Rules(variants=())) == {"h": ("cheapest",)}


def test_the_seed_is_never_shown_and_its_catalog_may_be_left_out(tmp_path: Path) -> None:
    index = shop_of(tmp_path / "index", {"catalog_id": "c", "price": 1.0}, {"catalog_id": "c", "price": 2.0}, {})
    assert shown(index) == {"b": (), "c": ()}
    assert shown(index, Rules(seed_catalog=False)) == {"c": ()}


def test_products_that_share_a_photo_are_kept_unless_capped(tmp_path: Path) -> None:
    index = shop_of(tmp_path / "index", {}, *({"component": 7} for _ in range(4)), {"component": 8}, {})
    shared = ("shared_photo",)
    assert shown(index) == {"b": shared, "c": shared, "d": shared, "e": shared, "f": (), "g": ()}
    capped = ("shared_photo", "capped")
    assert shown(index, Rules(component_cap=2)) == {"b": capped, "c": capped, "f": (), "g": ()}
    assert shown(index, Rules(component_cap=2), k=2) == {"b": shared, "c": shared}
    assert shown(index, Rules(component_cap=1), k=3) == {"b": ("capped",), "f": (), "g": ()}


def test_an_attribute_has_one_of_its_values(tmp_path: Path) -> None:
    index = shop_of(
        tmp_path / "index",
        {},
        {"attributes": [("색상", ["빨강", "파랑"]), ("size", ["S"])]},
        {"attributes": [("색상", ["파랑", "파랑"])]},
        {"attributes": [("size", ["빨강"]), ("color", [])]},
        {"attributes": []},
    )
    assert shown(index, Rules(attributes={"색상": "파랑"})) == {"b": ("attributes",), "c": ("attributes",)}
    assert shown(index, Rules(attributes={"색상": "파랑", "size": "S"})) == {"b": ("attributes",)}
    assert shown(index, Rules(attributes={"색상": "S"})) == shown(index, Rules(attributes={"color": "S"})) == {}


def test_the_cap_counts_what_is_shown_already() -> None:
    assert under_cap([1, -1, 1, 2, -1, 2], 4, 1, {1: 1}) == ([1, 3, 4], {1, 2})
    assert under_cap([1, -1, 1, 2], 2, 1, {}) == ([0, 1], set())
    assert under_cap([1, 1, 1], 2, None, {1: 5}) == ([0, 1], set())


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="swap its ends"):
        validate(Rules, {"price_min": 5, "price_max": 4}, "rules")
    with pytest.raises(ConfigError, match="did you mean component_cap"):
        validate(Rules, {"component_caps": 4}, "rules")
    with pytest.raises(ConfigError, match="names nothing"):
        validate(Rules, {"identifiers": [["gtin"], []]}, "rules")
    with pytest.raises(ConfigError, match="currency"):
        validate(Rules, {"currency": "won"}, "rules")
    with pytest.raises(ConfigError, match="component_cap"):
        validate(Rules, {"component_cap": 0}, "rules")
