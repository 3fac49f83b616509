"""Fields of a product: a bad optional one costs itself and a note, never the product."""

from __future__ import annotations

import json
import math
import unicodedata
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoplens.datasets.importing.photo_lists import photos_of
from shoplens.datasets.importing.product import read_product
from shoplens.datasets.importing.shoppers import ShopperTables
from shoplens.datasets.importing.source import PhotoBytes, PhotoRef, Reject, SourceProduct
from shoplens.datasets.importing.table import Table
from shoplens.datasets.importing.tidy import tidy
from shoplens.schema import Product
from tests.datasets.importing.shops import jpeg, rejects, run_here, shop, write_table

NESTED: Any = 1
for _ in range(5000):
    NESTED = [NESTED]


def read(**fields: Any) -> tuple[Product, list[str]]:
    found = read_product({"id": "p", "title": "t", **fields}, "here")
    assert isinstance(found, SourceProduct), found
    assert all((note.reason, note.where, note.product_id) == ("field", "here", "p") for note in found.notes)
    return found.product, [note.detail for note in found.notes]


BAD = {
    "price": [-1, "ask us", float("inf"), [3], True, {"amount": 3}, "-5 USD"],
    "currency": ["coins", 5, ["USD"]],
    "stock": [-1, 1.5, "some", 2**63, [3], True, "-3"],
    "review_count": [-1, "many", 10**30],
    "split": ["Bad Split!", 5, ["train"]],
    "catalog_id": [7.5, ["a"], "x" * 300, True],
    "category_id": [7.5, {"a": 1}],
    "category_path": [5, [["a"], "b"], "A > " + "x" * 300, {"a": 1}],
    "description": [["a"], {"a": 1}, "\ud800", b"x"],
    "seller": [["a"], "\ud800"],
    "texts": [5, "no object", ["a"]],
    "attributes": [5, "no object", "[" * 2000, {"\ud800": "x"}, {"size": {"eu": 38}}],
    "notes": ["\ud800", b"x", NESTED],
    "\ud800": ["x"],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in BAD.items() for value in values])
def test_a_bad_optional_field_costs_the_field(field: str, value: Any) -> None:
    product, notes = read(**{field: value})
    assert len(notes) == 1 and "the field is left empty" in notes[0]
    assert product == Product(id="p", title="t")
    assert field.encode(errors="ignore").decode() in notes[0]


@pytest.mark.parametrize("empty", [None, "", "  ", math.nan, "nan", "NaN", "<NA>", "null", "N/A"])
@pytest.mark.parametrize("field", [*BAD, "heel_cm", "category"])
def test_no_value_is_no_value_in_every_field(field: str, empty: Any) -> None:
    product, notes = read(**{field: empty})
    assert (product, notes) == (Product(id="p", title="t"), [])
    product, notes = read(attributes={"colour": empty, "size": [empty, "M"]})
    assert (product.attributes, notes) == ({"size": ("M",)}, [])


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"title": "t"},
        {"id": 7.5, "title": "t"},
        {"id": "p", "title": ""},
        {"id": "p", "title": ["t"]},
        {"id": NESTED, "title": "t"},
        {"id": math.inf, "title": "t"},
    ],
)
def test_a_product_without_id_or_title_is_none(row: dict[str, Any]) -> None:
    found = read_product(row, "here")
    assert isinstance(found, Reject) and found.reason == "invalid_row"


@pytest.mark.parametrize("written", [7, 7.0, Decimal(7), "7", "7.0", " 7 ", "\u200b7"])
def test_whole_numbers_are_one_id(written: Any) -> None:
    product, _ = read(id=written, catalog_id=written, category_id=written)
    assert (product.id, product.catalog_id, product.category_id) == ("7", "7", "7")


@pytest.mark.parametrize("nobody", ["none", "None", "-", "NA"])
def test_no_word_for_nothing_joins_strangers(nobody: str) -> None:
    assert read(catalog_id=nobody) == (Product(id="p", title="t"), [])


def test_a_path_of_nine_levels_keeps_eight() -> None:
    product, [note] = read(category_path=" > ".join("ABCDEFGHI"), category_id="77")
    assert product.category_path == tuple("ABCDEFGH") and product.category_id is None
    assert "9 levels" in note


@pytest.mark.parametrize(
    ("fields", "price", "currency"),
    [
        ({"price": "15 USD"}, 15, "USD"),
        ({"price": "15", "currency": "usd"}, 15, "USD"),
        ({"price": "$15", "currency": "AUD"}, 15, "AUD"),
        ({"price": 15, "currency": "원"}, 15, "KRW"),
        ({"currency": "EUR", "price": "15 USD"}, 15, "USD"),
    ],
)
def test_the_currency_of_a_price(fields: dict[str, Any], price: float, currency: str) -> None:
    product, notes = read(**fields)
    assert (product.price, product.currency) == (price, currency)
    assert len(notes) == (fields.get("currency") == "EUR")


@given(st.text(st.sampled_from("한글éㅏa \u200b\u00a0\ufeff\u3000"), min_size=1))
def test_one_name_has_one_spelling(name: str) -> None:
    spellings = {
        tidy(f"{blank}{unicodedata.normalize(form, name)}{blank}")
        for form in ("NFC", "NFD")
        for blank in ("", " \u200b")
    }
    assert spellings == {tidy(tidy(name))}


def test_categories_and_attributes_in_both_unicode_forms_are_one(tmp_path: Path) -> None:
    rows = []
    for n, form in enumerate(["NFC", "NFD"]):
        (tmp_path / f"{n}.jpg").write_bytes(jpeg(n))
        path = [unicodedata.normalize(form, name) for name in (" 여성의류 ", "치마\u200b")]
        attributes = {unicodedata.normalize(form, "색상"): unicodedata.normalize(form, "검정 ")}
        rows.append({"id": f"p{n}", "title": "x", "image": f"{n}.jpg", "category_path": path, "attributes": attributes})
    dataset = run_here(Table(write_table(tmp_path, rows)), tmp_path / "out")
    assert [node.path for node in dataset.categories] == [("여성의류",), ("여성의류", "치마")]
    assert dataset.products["attributes"].to_pylist() == [[("색상", ["검정"])]] * 2


PHOTOS = {
    "a.jpg": ["a.jpg"],
    "a.jpg|b.jpg": ["a.jpg", "b.jpg"],
    "images\\a.jpg": ["images/a.jpg"],
    "a.jpg, b.PNG": ["a.jpg", "b.PNG"],
    "a.jpg; b.jpg;c.webp": ["a.jpg", "b.jpg", "c.webp"],
    "one, two.jpg": ["one, two.jpg"],
    "https://x.kr/a.jpg,https://x.kr/b.jpg": ["https://x.kr/a.jpg", "https://x.kr/b.jpg"],
    "https://x.kr/w_2,h_3/a.jpg https://x.kr/b": ["https://x.kr/w_2,h_3/a.jpg", "https://x.kr/b"],
    "https://x.kr/a.jpg\nb.jpg": ["https://x.kr/a.jpg", "b.jpg"],
    '["a.jpg", {"path": "b.jpg"}]': ["a.jpg", "b.jpg"],
    "['a.jpg', 'b.jpg']": ["a.jpg", "b.jpg"],
    "['a.jpg' 'b.jpg']": ["a.jpg", "b.jpg"],
    "": [],
    "nan": [],
}


@pytest.mark.parametrize(("cell", "paths"), PHOTOS.items())
def test_photos_of_a_cell(cell: str, paths: list[str]) -> None:
    assert photos_of({"id": "p", "images": cell}, "/root", "here") == [PhotoRef("/root", path) for path in paths]


def test_the_main_photo_comes_first_and_once() -> None:
    row = {"id": "p", "images": ["b.jpg", "a.jpg", None, float("nan")], "image": "a.jpg"}
    assert photos_of(row, "", "here") == [PhotoRef("", "a.jpg"), PhotoRef("", "b.jpg")]


def test_photos_that_lie_in_the_table(tmp_path: Path) -> None:
    photos = [jpeg(n) for n in range(4)]
    (tmp_path / "3.jpg").write_bytes(photos[3])
    rows = [
        {"id": "a", "title": "x", "image": photos[0], "images": [{"bytes": photos[1], "path": "1.jpg"}]},
        {
            "id": "b",
            "title": "x",
            "image": None,
            "images": [{"bytes": photos[2], "path": None}, {"path": "3.jpg", "bytes": None}],
        },
        {"id": "c", "title": "x", "image": b"no photo", "images": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "shop.parquet")
    dataset = run_here(Table(str(tmp_path / "shop.parquet")), tmp_path / "out")
    found = {row["image_id"]: dataset.read_image(n) for n, row in enumerate(dataset.images.to_pylist())}
    assert found == {"a_0": photos[0], "a_1": photos[1], "b_0": photos[2], "b_1": photos[3]}
    assert ("unreadable", "shop.parquet:3", "c", "in the table") in rejects(dataset)
    assert not list((tmp_path / "out").rglob("*.photos"))
    [uri] = photos_of({"id": "p", "image": "data:image/jpeg;base64,/9j/"}, "", "here")
    assert uri == PhotoBytes(b"\xff\xd8\xff", "in the table")


def test_a_log_in_the_ways_of_other_tools(tmp_path: Path) -> None:
    table = shop(tmp_path / "src")
    event = {"user_id": 7.0, "product_id": "p0", "kind": "Click"}
    rows = [
        {**event, "time": 1743501600000, "position": math.nan, "propensity": ""},
        {**event, "time": "2025-04-01 19:00:00+09:00", "position": 3.0},
        {**event, "time": "2025-04-01T10:00:00", "position": -1, "propensity": 2},
        {**event, "time": "soon"},
        {**event, "time": "2025-04-01T10:00:00", "user_id": json.loads("[" * 900 + "]" * 900)},
    ]
    log = write_table(tmp_path / "src", [json.dumps(row) for row in rows], "log.jsonl")
    dataset = run_here(Table(table), tmp_path / "out", shoppers=ShopperTables(interactions=log))
    events = dataset.table("interactions").to_pylist()
    assert [(e["time"], e["user_id"], e["kind"], e["position"]) for e in events] == [
        ("2025-04-01T10:00:00+00:00", "7", "click", position) for position in (None, 3, None)
    ]
    assert [(reason, source) for reason, source, *_ in rejects(dataset)] == [
        ("field", "log.jsonl:3"),
        ("field", "log.jsonl:3"),
        ("invalid_row", "log.jsonl:4"),
        ("invalid_row", "log.jsonl:5"),
    ]


VALUES = [
    *[
        None,
        "",
        math.nan,
        math.inf,
        -1,
        7.0,
        10**30,
        True,
        "x",
        "\ud800",
        "a\x00b",
        "[",
        "['a' 'b']",
        [],
        [[1]],
        {"a": {"b": 1}},
    ],
    *["1,299.00 USD", " > ", "a > b", "C:\\a.jpg", "http://x/a.jpg,b.jpg", "data:image/png;base64,@", {"bytes": None}],
    *[[None, "a", 5, {"path": "a.jpg"}, {"bytes": "xx"}], json.loads("[" * 200 + "]" * 200), "x" * 3000],
]
COLUMNS = [
    *["id", "title", "name", "image", "images", "image.1", "price", "currency", "stock", "category", "category_path"],
    *[
        "catalog_id",
        "attributes",
        "texts",
        "split",
        "image_link",
        "product_type",
        "availability",
        "Handle",
        "Variant Price",
    ],
    *[
        "Image Src",
        "Option1 Name",
        "Option1 Value",
        "Regular price",
        "Parent",
        "SKU",
        "Attribute 1 name",
        "tags",
        "\ud800",
    ],
    *[
        "Attribute 1 value(s)",
        "time",
        "user_id",
        "product_id",
        "kind",
        "position",
        "kwds",
        "product_ids",
        "date",
        "topic_id",
    ],
]


@given(st.lists(st.dictionaries(st.sampled_from(COLUMNS), st.sampled_from(VALUES), min_size=3), min_size=1, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_whatever_a_row_holds_the_import_goes_on(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    rows = [{"id": f"p{n}", "title": "x", **row} if n % 2 else row for n, row in enumerate(rows)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    for item in Table(str(path)):
        if isinstance(item, SourceProduct):
            item.product.to_json().encode()
    shoppers = ShopperTables(str(path), str(path))
    for row in [*shoppers.topic_rows(), *shoppers.interaction_rows({"p1"})]:
        if isinstance(row, dict):
            json.dumps(row, ensure_ascii=False).encode()
