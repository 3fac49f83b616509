"""Requests as clients and attackers write them."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_apps.endpoints.events import EventsRequest
from serve_apps.http.errors import ApiError
from serve_apps.protocol import (
    AttributesRequest,
    EmbeddingRequest,
    Photo,
    ProductRef,
    SimilarRequest,
    Text,
    data_uri_bytes,
    embedding_answer,
    parse,
)
from shoplens.search.rings import Widening
from shoplens.search.rules import Rules, SameProduct


def refused(model: type, body: bytes) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse(model, body)
    assert caught.value.status == 400
    assert len(caught.value.message) < 500
    return caught.value


def test_inputs_keep_their_order_and_say_where_they_stand() -> None:
    body = {
        "model": "eclip@champion",
        "input": [
            "a dress",
            {"type": "text", "text": "청바지"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            {"type": "product", "product_id": "p 1/2"},
        ],
    }
    asked = parse(EmbeddingRequest, json.dumps(body).encode())
    assert asked.inputs == [
        Text("input[0]", "a dress"),
        Text("input[1]", "청바지"),
        Photo("input[2]", "data:image/png;base64,AAAA"),
        ProductRef("input[3]", "p 1/2"),
    ]
    assert parse(EmbeddingRequest, b'{"model":"eclip/3","input":"x"}').inputs == [Text("input", "x")]


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b"{", "invalid_json", None),
        (b"\xff\xfe{}", "invalid_json", None),
        (b"[" * 100_000, "invalid_json", None),
        (b'{"model":"eclip","input":"\\ud800"}', "invalid_json", None),
        (b"[]", "invalid_value", None),
        (b"null", "invalid_value", None),
        (b"{}", "missing_field", "model"),
        (b'{"model":"eclip"}', "missing_field", "input"),
        (b'{"model":3,"input":"x"}', "invalid_value", "model"),
        (b'{"model":"eclip/0","input":"x"}', "invalid_value", "model"),
        (b'{"model":"../x","input":"x"}', "invalid_value", "model"),
        (b'{"model":"eclip","input":7}', "invalid_value", "input"),
        (b'{"model":"eclip","input":[]}', "invalid_value", "input"),
        (b'{"model":"eclip","input":[1,2]}', "invalid_value", "input[0]"),
        (b'{"model":"eclip","input":["x",{"type":"video"}]}', "invalid_value", "input[1]"),
        (b'{"model":"eclip","input":[{"type":["text"]}]}', "invalid_value", "input[0]"),
        (b'{"model":"eclip","input":[{"type":"text"}]}', "missing_field", "input[0].text"),
        (b'{"model":"eclip","input":[{"type":"text","text":1}]}', "invalid_value", "input[0].text"),
        (
            b'{"model":"eclip","input":[{"type":"image_url","image_url":"x"}]}',
            "invalid_value",
            "input[0].image_url",
        ),
        (
            b'{"model":"eclip","input":[{"type":"image_url","image_url":{"uri":"x"}}]}',
            "missing_field",
            "input[0].image_url.url",
        ),
        (b'{"model":"eclip","input":"x","imput":1}', "unknown_field", "imput"),
        (b'{"model":"eclip","input":"x","encoding_format":"int8"}', "invalid_value", "encoding_format"),
        (b'{"model":"eclip","input":"x","dimensions":' + b"9" * 5000 + b"}", "invalid_json", None),
    ],
)
def test_a_bad_embedding_request_is_a_400_that_names_the_place(body: bytes, code: str, param: str | None) -> None:
    error = refused(EmbeddingRequest, body)
    assert (error.code, error.param) == (code, param)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"text": "x", "product_id": "p"},
        {"text": "x", "k": 0},
        {"text": "x", "k": 10**9},
        {"text": "x", "k": 10**40},
        {"text": "x", "k": "10"},
        {"text": "x", "k": True},
        {"text": "x", "k": 1.5},
        {"text": "x", "price": {"min": -1}},
        {"text": "x", "price": {"min": 2, "max": 1}},
        {"text": "x", "price": {"min": float("nan")}},
        {"text": "x", "price": {"max": float("inf")}},
        {"text": "x", "price": 3},
        {"text": "x", "category": 3},
        {"text": "x", "exclude_catalog": "yes"},
        {"product_id": ""},
        {"product_id": None, "text": None},
    ],
)
def test_a_bad_search_is_a_400(body: dict) -> None:
    refused(SimilarRequest, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("wish", "code", "param"),
    [
        ({"attributes": {"color": 3}}, "invalid_value", "attributes.color"),
        ({"attributes": {"color": ["red"]}}, "invalid_value", "attributes.color"),
        ({"attributes": ["red"]}, "invalid_value", "attributes"),
        ({"attributes": {str(n): "x" for n in range(21)}}, "invalid_value", "attributes"),
        ({"attributes": {"color": "x" * 201}}, "invalid_value", "attributes.color"),
        ({"in_stock": "yes"}, "invalid_value", "in_stock"),
        ({"cheapest": 1}, "invalid_value", "cheapest"),
        ({"photo_cap": 0}, "invalid_value", "photo_cap"),
        ({"photo_cap": 1.5}, "invalid_value", "photo_cap"),
        ({"widening": {"rings": -1}}, "invalid_value", "widening.rings"),
        ({"widening": {"rings": "1"}}, "invalid_value", "widening.rings"),
        ({"widening": {"rings": True}}, "invalid_value", "widening.rings"),
        ({"widening": {"margin": -0.1}}, "invalid_value", "widening.margin"),
        ({"widening": {"floor": "low"}}, "invalid_value", "widening.floor"),
        ({"widening": {"ring": 1}}, "unknown_field", "widening.ring"),
        ({"widening": 1}, "invalid_value", "widening"),
        ({"price": {"min": 2, "max": 1}}, "invalid_value", "price"),
        ({"user": "u" * 257}, "invalid_value", "user"),
        ({"user": 7}, "invalid_value", "user"),
        ({"exclude_catalog": "yes"}, "invalid_value", "exclude_catalog"),
        ({"rules": ["cheapest"]}, "unknown_field", "rules"),
    ],
)
def test_a_bad_wish_of_a_search_is_a_400_that_names_the_field(wish: dict, code: str, param: str) -> None:
    error = refused(SimilarRequest, json.dumps({"text": "x", **wish}).encode())
    assert (error.code, error.param) == (code, param)


def test_what_a_search_wishes_becomes_the_rules_of_the_shop() -> None:
    assert parse(SimilarRequest, b'{"text": "x"}').rules() == Rules(cheapest=False)
    assert parse(SimilarRequest, b'{"product_id": "p"}').rules() == Rules()
    same = SameProduct(identifiers=(("ean",),), variants=())
    assert parse(SimilarRequest, b'{"product_id": "p"}').rules(same) == Rules(identifiers=(("ean",),), variants=())
    body = {
        "product_id": "p",
        "price": {"min": 1, "max": 2.5},
        "attributes": {"color": "red"},
        "in_stock": False,
        "exclude_catalog": True,
        "cheapest": False,
        "photo_cap": 3,
        "widening": {"rings": 2, "margin": 0, "floor": -0.5},
    }
    asked = parse(SimilarRequest, json.dumps(body).encode())
    assert asked.widening == Widening(rings=2, margin=0.0, floor=-0.5)
    assert asked.rules() == Rules(
        in_stock=False,
        price_min=1.0,
        price_max=2.5,
        attributes={"color": "red"},
        seed_catalog=False,
        cheapest=False,
        component_cap=3,
    )


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_parse_or_raise_a_400(body: bytes) -> None:
    for model in (EmbeddingRequest, SimilarRequest, AttributesRequest, EventsRequest):
        try:
            parse(model, body)
        except ApiError as error:
            assert error.status == 400


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "model",
                        "input",
                        "type",
                        "text",
                        "image_url",
                        "url",
                        "k",
                        "price",
                        "keys",
                        "widening",
                        "events",
                        "kind",
                    ]
                ),
                inner,
            )
        ),
        max_leaves=12,
    )
)
def test_no_json_does_anything_but_parse_or_raise_a_400(tree: object) -> None:
    for model in (EmbeddingRequest, SimilarRequest, AttributesRequest, EventsRequest):
        try:
            parse(model, json.dumps(tree).encode())
        except ApiError as error:
            assert error.status == 400


@given(st.binary(max_size=100))
def test_data_uri(data: bytes) -> None:
    assert data_uri_bytes("data:image/jpeg;base64," + base64.b64encode(data).decode(), "input") == data


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
        data_uri_bytes(uri, "input")


def test_both_encodings_carry_the_same_float32() -> None:
    vectors = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    floats = json.loads(embedding_answer(vectors, "float", "eclip/3", 4).body)
    packed = json.loads(embedding_answer(vectors, "base64", "eclip/3", 4).body)
    assert floats["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    for row in range(3):
        read = np.frombuffer(base64.b64decode(packed["data"][row]["embedding"]), "<f4")
        assert np.array_equal(read, vectors[row])
        assert np.array_equal(np.array(floats["data"][row]["embedding"], np.float32), vectors[row])
