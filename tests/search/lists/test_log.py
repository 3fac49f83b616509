"""Clicks and impressions of small logs, worked out by hand."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from shoplens.datasets.format import INTERACTIONS
from shoplens.errors import ShoplensError
from shoplens.experiments.events import EVENTS
from shoplens.search.lists.log import IMPRESSIONS, clicks_of, consecutive_clicks, impressions_of


def event(kind: str, seed: str | None, product: str, view: str = "r", user: str = "u", **rest: Any) -> dict[str, Any]:
    place = {"surface": "similar", "seed_product_id": seed, "request_id": view}
    return {"kind": kind, "product_id": product, "user_id": user, **place, **rest}


def test_a_product_counts_once_on_a_page_view_and_only_in_the_slot() -> None:
    events = pa.Table.from_pylist(
        [
            event("impression", "s", "a"),
            event("click", "s", "a"),
            event("click", "s", "a"),
            event("click", "s", "a", view="r2"),
            event("click", "s", "a", user="v"),
            event("click", "s", "b", surface="bought_together"),
            event("click", None, "b"),
            event("purchase", "s", "b"),
        ],
        schema=EVENTS,
    )
    rows = clicks_of(events, "similar").to_pylist()
    assert rows == [{"seed": "s", "product": "a", "user": user} for user in "uuv"]
    assert clicks_of(events, "elsewhere").num_rows == 0
    assert clicks_of(EVENTS.empty_table(), "similar").num_rows == 0


def test_impressions_need_place_and_propensity_and_know_their_click() -> None:
    shown = {"position": 0, "propensity": 0.5}
    events = pa.Table.from_pylist(
        [
            event("impression", "s", "a", **shown),
            event("impression", "s", "a", **shown),
            event("impression", "s", "a", position=3, propensity=0.1),
            event("impression", "s", "a", view="r2", **shown),
            event("impression", "s", "b", position=1),
            event("impression", "s", "c", propensity=0.5),
            event("impression", "t", "a", **shown),
            event("click", "s", "a", **shown),
        ],
        schema=EVENTS,
    )
    found = impressions_of(events, "similar")
    assert found.schema.equals(IMPRESSIONS)
    columns = ("seed", "position", "propensity", "clicked")
    assert [tuple(row[name] for name in columns) for row in found.to_pylist()] == [
        ("s", 0, 0.5, True),
        ("s", 3, 0.1, True),
        ("s", 0, 0.5, False),
        ("t", 0, 0.5, False),
    ]
    assert impressions_of(EVENTS.empty_table(), "similar").schema.equals(IMPRESSIONS)


def clicks(*rows: tuple[str, str, str, int | None]) -> pa.Table:
    names = ("user_id", "time", "product_id", "position")
    return pa.Table.from_pylist(
        [{"kind": "click", "surface": "x", **dict(zip(names, row, strict=True))} for row in rows], schema=INTERACTIONS
    )


def test_pairs_are_a_users_next_clicks_within_the_time() -> None:
    day = "2025-01-01T10:"
    log = clicks(
        ("u", day + "31:00+00:00", "c", 0),
        ("u", day + "00:00+00:00", "b", 1),
        ("u", day + "00:00+00:00", "a", 0),
        ("v", day + "01:00+00:00", "d", 0),
        ("u", day + "31:30+00:00", "c", 0),
        ("u", "2025-01-01T12:01:30+01:00", "a", None),
    )
    other = log.slice(0, 1).to_pylist()[0] | {"kind": "impression", "product_id": "z", "time": day + "10:00+00:00"}
    log = pa.concat_tables([log, pa.Table.from_pylist([other], schema=INTERACTIONS)])
    pairs = [(row["seed"], row["product"], row["user"]) for row in consecutive_clicks(log, 30).to_pylist()]
    assert pairs == [("a", "b", "u"), ("c", "a", "u")], (
        "31 minutes are too long, c after c is no pair, 12:01+01:00 is 11:01"
    )
    assert len(consecutive_clicks(log, 31)) == 3
    assert consecutive_clicks(INTERACTIONS.empty_table(), 30).num_rows == 0
    assert consecutive_clicks(log.slice(0, 1), 30).num_rows == 0
    with pytest.raises(ShoplensError, match="no ISO 8601"):
        consecutive_clicks(clicks(("u", "yesterday", "a", 0)), 30)
