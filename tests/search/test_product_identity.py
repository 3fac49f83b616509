"""What listings are of one product, against plain loops over dictionaries."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from shoplens.search.items import ITEMS
from shoplens.search.product_identity import UNLISTED, Identifiers, products_of

GTIN_OR_MPN: Identifiers = (("gtin",), ("Brand", "mpn"))
KEYS = st.sampled_from(["gtin", "GTIN", "brand", "mpn"])
VALUES = st.sampled_from(["A-100", "a100", "B 200", "ahn", "Ahn!", "10", "!", "Nº12³", None])


def name_of(attributes: list[Any] | None, identifiers: Identifiers) -> Any:
    said: dict[str, set[str]] = {}
    for key, values in attributes or []:
        spelled = {"".join(c for c in value.lower() if c.isalnum()) for value in values or [] if value is not None}
        said.setdefault(key.lower(), set()).update(spelled)
    for identifier in identifiers:
        words = [said.get(key.lower(), set()) for key in identifier]
        if all(len(word) == 1 for word in words):
            *_, number = whole = [next(iter(word)) for word in words]
            if all(whole) and len(number) >= 4 and any(c.isnumeric() for c in number):
                return identifier, whole
    return None


def products(catalogs: list[Any], attributes: list[Any], identifiers: Identifiers) -> list[Any]:
    """Something equal for listings of one product, None of one that is alone."""
    names = [name_of(one, identifiers) for one in attributes]
    listings = list(zip(map(repr, names), catalogs, strict=True))
    own = {}
    for catalog in {catalog for catalog in catalogs if catalog is not None}:
        first = Counter(name for name, under in listings if under == catalog and name != "None").most_common(2)
        if first and (len(first) == 1 or first[0][1] > first[1][1]):
            own[catalog] = first[0][0]
    homes = {}
    for name in {name for name, _ in listings if name != "None"}:
        homes[name] = [catalog for catalog in own if own[catalog] == name]
    found = []
    for name, catalog in listings:
        under = [other for named, other in listings if named == name]
        home = homes.get(name, [])
        if name == "None" or (catalog is not None and own.get(catalog) == name):
            found.append(catalog)
        elif len(home) == 1 and 2 * under.count(home[0]) >= len(under):
            found.append(home[0])
        elif set(under) == {None} and 1 < len(under) <= UNLISTED:
            found.append(name)
        else:
            found.append(catalog)
    return found


def numbered(catalogs: list[Any], attributes: list[Any], identifiers: Identifiers = GTIN_OR_MPN) -> list[int]:
    catalog = np.array([-1 if one is None else one for one in catalogs], dtype=np.int64)
    column = pa.array(attributes, ITEMS.field("attributes").type)
    return products_of(catalog, column, identifiers).tolist()


@settings(max_examples=400, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from([None, None, 0, 1, 2]),
            st.none() | st.dictionaries(KEYS, st.none() | st.lists(VALUES, max_size=2), max_size=3),
        ),
        max_size=12,
    ),
    identifiers=st.sampled_from([GTIN_OR_MPN, (("mpn",),), (("no", "gtin"), ("gtin",)), ()]),
)
def test_products_are_those_of_plain_loops(rows: list[tuple[Any, Any]], identifiers: Identifiers) -> None:
    catalogs = [catalog for catalog, _ in rows]
    attributes = [None if said is None else list(said.items()) for _, said in rows]
    found, expected = numbered(catalogs, attributes, identifiers), products(catalogs, attributes, identifiers)
    assert [one < 0 for one in found] == [one is None for one in expected]
    assert len(set(zip(found, map(str, expected), strict=True))) == len(set(found)) == len({*map(str, expected)})


def code(number: str, brand: str = "Ahn") -> list[Any]:
    return [("brand", [brand]), ("mpn", [number])]


def test_a_listing_without_a_catalog_or_under_a_wrong_one_joins_the_one_that_has_its_number() -> None:
    listings = [(7, "A-100"), (7, "a 100"), (None, "A100"), (9, "B-200"), (9, "B-200"), (9, "A-100"), (None, "C-300")]
    catalogs, numbers = zip(*listings, strict=True)
    assert numbered([*catalogs], [code(number) for number in numbers]) == [7, 7, 7, 9, 9, 7, -1]
    assert numbered([7, None], [code("A-100"), code("A-100", brand="Bae")]) == [7, -1]


def test_a_name_that_does_not_tell_joins_nothing() -> None:
    """Colours of one model in two catalogs; what everybody writes; no number at all; a shelf of more than UNLISTED."""
    assert numbered([7, 7, 7, 8, None], [code("A-100")] * 5) == [7, 7, 7, 8, -1]
    assert numbered([7, None, None], [code("A-100")] * 3) == [7, -1, -1]
    assert numbered([7, None], [code("없음")] * 2) == numbered([7, None], [code("N/A")] * 2) == [7, -1]
    assert numbered([7, None], [[("brand", ["Ahn", "Bae"]), ("mpn", ["A-100"])]] * 2) == [7, -1]
    assert numbered([None] * UNLISTED, [code("A-100")] * UNLISTED) == [0] * UNLISTED
    assert numbered([None] * (UNLISTED + 1), [code("A-100")] * (UNLISTED + 1)) == [-1] * (UNLISTED + 1)


def test_no_listings_at_all() -> None:
    assert numbered([], []) == numbered([], [], ()) == []
