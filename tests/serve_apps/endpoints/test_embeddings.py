"""Requests and answers of /v1/embeddings."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from serve_apps.endpoints.embeddings import EmbeddingRequest, embedding_answer
from serve_apps.http.inputs import Photo, ProductRef, Text
from serve_apps.http.parsing import parse
from tests.serve_apps.conftest import refused


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
        (b'{"model":null,"input":"x"}', "missing_field", "model"),
        (b'{"model":"eclip","input":7}', "invalid_value", "input"),
        (b'{"model":"eclip","input":[]}', "invalid_value", "input"),
        (b'{"model":"eclip","input":[1,2]}', "invalid_value", "input"),
        (b'{"model":"eclip","input":[[9906,1917],[3]]}', "invalid_value", "input"),
        (b'{"model":"eclip","input":["x",null]}', "invalid_value", "input[1]"),
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


def test_both_encodings_carry_the_same_float32() -> None:
    vectors = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    floats = json.loads(embedding_answer(vectors, "float", "eclip/3", 4).body)
    packed = json.loads(embedding_answer(vectors, "base64", "eclip/3", 4).body)
    assert floats["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    for row in range(3):
        read = np.frombuffer(base64.b64decode(packed["data"][row]["embedding"]), "<f4")
        assert np.array_equal(read, vectors[row])
        assert np.array_equal(np.array(floats["data"][row]["embedding"], np.float32), vectors[row])
