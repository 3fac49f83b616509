"""Base64 and data URIs as clients write them."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoplens.datasets.images import ImageRejected
from shoplens.datasets.photo_text import is_data_uri, photo_bytes

HEADS = st.sampled_from(
    [
        "",
        "data:image/png;base64,",
        "DATA:IMAGE/JPEG;Base64,",
        "data:;base64,",
        " data:image/x;a=b;charset=utf-8;base64,",
    ]
    + ["data:application/octet-stream;base64,"]
)


@given(
    data=st.binary(max_size=200),
    head=HEADS,
    encode=st.sampled_from([base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes]),
    padded=st.booleans(),
    every=st.sampled_from([0, 4, 7, 64, 76]),
    between=st.sampled_from(["\n", "\r\n", " ", "\t"]),
    escaped=st.booleans(),
)
def test_every_writing_of_the_same_bytes_is_read(
    data: bytes, head: str, encode: object, padded: bool, every: int, between: str, escaped: bool
) -> None:
    text = encode(data).decode()  # type: ignore[operator]
    text = text if padded else text.replace("=", "")
    if every:
        text = between.join(text[at : at + every] for at in range(0, len(text), every))
    if escaped and head:
        text = quote(text)
    assert photo_bytes(head + text) == data
    assert is_data_uri(head) == bool(head)


@pytest.mark.parametrize("text", ["A", "AAAAA", "!!!!", "é", "AA=A", "AA==AA", "/etc/passwd.jpg", "photo.png"])
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(ImageRejected, match="neither base64 nor a data URI"):
        photo_bytes(text)
    with pytest.raises(ImageRejected, match="is not base64"):
        photo_bytes(f"data:image/png;base64,{text}")
