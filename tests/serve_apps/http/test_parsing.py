"""Request bodies of any bytes and any JSON."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from serve_apps.endpoints.attributes import AttributesRequest
from serve_apps.endpoints.captions import CaptionRequest
from serve_apps.endpoints.embeddings import EmbeddingRequest
from serve_apps.endpoints.events import EventsRequest
from serve_apps.endpoints.rank import RankRequest
from serve_apps.endpoints.similar import SimilarRequest
from serve_apps.http.errors import ApiError
from serve_apps.http.parsing import parse

REQUESTS = (EmbeddingRequest, SimilarRequest, AttributesRequest, EventsRequest, RankRequest, CaptionRequest)


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_parse_or_raise_a_400(body: bytes) -> None:
    for model in REQUESTS:
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
                        "image",
                        "images",
                        "topic",
                    ]
                ),
                inner,
            )
        ),
        max_leaves=12,
    )
)
def test_no_json_does_anything_but_parse_or_raise_a_400(tree: object) -> None:
    for model in REQUESTS:
        try:
            parse(model, json.dumps(tree).encode())
        except ApiError as error:
            assert error.status == 400
