"""Data URIs as clients and attackers write them."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_apps.http.errors import ApiError
from serve_apps.http.inputs import photo_bytes


@given(st.binary(max_size=100))
def test_data_uri(data: bytes) -> None:
    assert photo_bytes("data:image/jpeg;base64," + base64.b64encode(data).decode(), "input") == data


@pytest.mark.parametrize(
    "uri",
    [
        "data:",
        "data:,abc",
        "data:image/png,abc",
        "data:text/html;base64,AAAA",
        "data:image/png;base64,A",
        "data:image/png;base64,!!!!",
        "data:image/png;base64,é",
        "data:" + ";" * 10_000,
    ],
)
def test_bad_data_uri(uri: str) -> None:
    with pytest.raises(ApiError, match="data URI"):
        photo_bytes(uri, "input")
