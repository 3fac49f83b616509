"""A column of attributes against dictionaries."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from shoplens.search.attributes import variants
from shoplens.search.items import ITEMS


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(
        st.none()
        | st.dictionaries(st.sampled_from(["size", "Size", "용량", "x"]), st.lists(st.sampled_from("SML")), max_size=3)
    ),
    keys=st.lists(st.sampled_from(["size", "SIZE", "용량", "no"]), max_size=3),
)
def test_variants_are_sets_of_values(rows: list[dict[str, list[str]] | None], keys: list[str]) -> None:
    column = pa.array([None if row is None else list(row.items()) for row in rows], ITEMS.field("attributes").type)
    found = variants(column, keys).tolist()
    asked = {key.lower() for key in keys}
    said = [
        frozenset((key.lower(), v) for key, values in (row or {}).items() if key.lower() in asked for v in values)
        for row in rows
    ]
    assert len(set(zip(found, said, strict=True))) == len(set(found)) == len(set(said))
    assert all((number == 0) == (not values) for number, values in zip(found, said, strict=True))
