"""Validation of events: accepted values and refused ones."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from shoplens.experiments.events import EVENTS, Event
from tests.experiments.conftest import MakeEvent


def test_an_event_has_the_columns_of_the_log() -> None:
    assert set(Event.model_fields) == set(EVENTS.names)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("2026-03-01T09:30:00+09:00", "2026-03-01T00:30:00.000000Z"),
        ("2026-03-01T00:30:00.250Z", "2026-03-01T00:30:00.250000Z"),
        ("0999-12-31T23:00:00-02:00", "1000-01-01T01:00:00.000000Z"),
    ],
)
def test_times_are_kept_in_utc_and_sort_as_text(make: MakeEvent, given: str, kept: str) -> None:
    assert make(time=given).time == kept


def test_an_id_is_made_up_where_none_is_given(make: MakeEvent) -> None:
    assert make().event_id != make().event_id
    assert make(event_id="mine").event_id == "mine"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"user_id": ""}, "user_id: .*at least 1 character"),
        ({"user_id": "x" * 257}, "user_id: .*at most 256 characters"),
        ({"user_id": "a\x00b"}, "user_id: .*pattern"),
        ({"product_id": "\ud83d"}, "product_id: .*unicode"),
        ({"surface": "s" * 65}, "surface: .*at most 64"),
        ({"surface": "\udfff"}, "surface: .*unicode"),
        ({"kind": "hover"}, "kind: .*'impression', 'click' or 'purchase'"),
        ({"time": "yesterday"}, "time: is no time of ISO 8601: write it like"),
        ({"time": "1" * 100_000}, "time: is no time"),
        ({"time": "2026-03-01T09:30:00"}, "time: has no time zone: write it like"),
        ({"time": "0001-01-01T00:00:00+09:00"}, "time: lies outside of the calendar"),
        ({"time": 12}, "time: "),
        ({"position": -1}, "position: .*greater than or equal to 0"),
        ({"position": 10**30}, "position: .*less than or equal to 100000"),
        ({"propensity": 0}, "propensity: .*greater than 0"),
        ({"propensity": float("nan")}, "propensity: "),
        ({"kind": "purchase", "amount": float("inf")}, "amount: "),
        ({"kind": "purchase", "currency": "won"}, "currency: "),
        ({"kind": "purchase", "amount": None}, "it: a purchase needs amount and currency"),
        ({"kind": "click", "amount": 1.0, "currency": "KRW"}, "it: clicks are not paid"),
        ({"pipi": "x" * 10**6}, "pipi: Extra inputs are not permitted"),
    ],
)
def test_hostile_events_are_refused_by_field(make: MakeEvent, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        make(**given)
    fault = refused.value.errors()[0]
    field = ".".join(str(part) for part in fault["loc"]) or "it"
    assert re.match(said, f"{field}: {fault['msg'].removeprefix('Value error, ')}")
    assert len(fault["msg"]) < 200
