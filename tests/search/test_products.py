"""The columns of an index against dictionaries of its products."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest

from shoplens.search.items import ITEMS
from shoplens.search.products import Products, members, run_starts

ROWS = [
    {"product_id": "나", "catalog_id": "c", "price": 3.0, "attributes": [("k", ["v", None, "v"]), ("l", None)]},
    {"product_id": "b", "catalog_id": "c", "price": None, "stock": 0},
    {"product_id": "a", "catalog_id": None, "price": 1.0, "component": 4, "attributes": [("l", ["v", "w"])]},
    {"product_id": "é", "catalog_id": "c", "price": 3.0, "attributes": [("k", ["w"]), ("l", ["v"])]},
    {"product_id": "B", "catalog_id": "d", "price": 2.0, "category_id": "x"},
]


@pytest.fixture
def products() -> Products:
    """Two photos of every product."""
    rows = [{"image_id": f"{row['product_id']}{n}", "sample": 0, **row} for row in ROWS for n in range(2)]
    items = pa.Table.from_pylist(rows, schema=ITEMS)
    return Products(items, np.append(run_starts(items["product_id"]), len(items)))


def test_columns_are_those_of_the_first_photo(products: Products) -> None:
    assert products.start.tolist() == [0, 2, 4, 6, 8, 10]
    np.testing.assert_array_equal(products.price, [3, np.nan, 1, 3, 2])
    assert products.stock.tolist() == [-1, 0, -1, -1, -1]
    assert products.photo_group.tolist() == [-1, -1, 4, -1, -1]
    assert [products.category(place) for place in (0, 4)] == [None, "x"]
    assert products.ids(np.array([4, 0, 0])) == ["B", "나", "나"]
    assert products.of_photos(np.array([9, 0, 1, 2])).tolist() == [4, 0, 0, 1]


def test_products_are_found_by_id(products: Products) -> None:
    assert [products.place(row["product_id"]) for row in ROWS] == list(range(len(ROWS)))
    for stranger in ("", "c", "aa", "힣", None, 3, b"a"):
        assert products.place(stranger) is None
    ids = [str(row["product_id"]) for row in ROWS]
    assert products.id_rank.tolist() == [sorted(ids).index(product_id) for product_id in ids]


def test_what_is_gone_gives_way_to_what_came_behind() -> None:
    items = pa.Table.from_pylist([{"product_id": name} for name in "xyyz"], schema=ITEMS)
    products = Products(items, np.arange(5), gone=np.array([False, True, False, True]))
    assert [products.place(name) for name in "xyz"] == [0, 2, None]


def test_what_left_the_shop_tells_nothing_of_a_product() -> None:
    """x was under d until a delta filed it anew; what is merely hidden tells as before."""
    said = [("brand", ["Ahn"]), ("mpn", ["A-100"])]
    rows = [("x", "d"), ("y", "c"), ("z", None), ("x", "c")]
    items = pa.Table.from_pylist([{"product_id": a, "catalog_id": b, "attributes": said} for a, b in rows], ITEMS)
    name = (("brand", "mpn"),)
    gone = np.array([True, False, False, False])
    for products in (Products(items, np.arange(5), gone), Products(items, np.arange(5), gone).without(~gone)):
        before, y, z, x = products.identity(name).tolist()
        assert before == -1 and x == y == z >= 0
    assert Products(items, np.arange(5)).identity(name)[2] == -1, "two catalogs have the name"


def test_members_of_a_catalog_stand_by_price_then_id(products: Products) -> None:
    offers = products.offers()
    assert offers.code[[4, 0, 2]].tolist() == [1, 0, -1]
    found = members(offers, offers.code[[4, 0]])
    assert found.group.tolist() == [0, 1, 1, 1]
    assert found.place.tolist() == [4, 3, 0, 1]


def test_attributes_are_found_by_key_and_value(products: Products) -> None:
    expected = defaultdict(list)
    for place, row in enumerate(ROWS):
        for key, values in row.get("attributes", []):
            for value in dict.fromkeys(values or []):
                expected[key, value].append(place)
    for key in ("k", "l", "m"):
        for value in ("v", "w", "x", ""):
            assert products.having(key, value).tolist() == expected[key, value]


def test_offers_of_a_catalog_agree_in_their_attributes(products: Products) -> None:
    """The first and the fourth, of one catalog, have other values of k."""
    offers = products.offers(("K",))
    assert offers.code[2] == -1
    assert len(set(offers.code.tolist())) == 5
    assert members(offers, offers.code[[3]]).place.tolist() == [3]
    assert products.offers(("no",)).code.tolist() == products.offers().code.tolist()
    for number in range(9):
        again = products.offers(("l", f"{number}")).code
        assert again[0] == again[1] != again[3]


def test_no_products_at_all() -> None:
    products = Products(ITEMS.empty_table(), np.zeros(1, np.int64))
    assert not len(products.offers(("size",)).code)
    assert len(products) == 0 and products.place("a") is None and not len(products.having("k", "v"))
    assert not len(run_starts(ITEMS.empty_table()["product_id"]))
