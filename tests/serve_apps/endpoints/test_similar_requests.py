"""Requests of /v1/similar: fields, and the rules that they become."""

from __future__ import annotations

import json

import pytest

from serve_apps.endpoints.similar import SimilarRequest
from serve_apps.http.parsing import parse
from shoplens.search.rings import Widening
from shoplens.search.rules import Rules, SameProduct
from tests.serve_apps.conftest import refused


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
