"""Outcomes of users against loops over sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoplens.errors import ShoplensError
from shoplens.experiments.events import EVENTS
from shoplens.experiments.outcomes import METRICS, arms_of, outcomes, seeds_of_both
from tests.experiments.conftest import MakeEvent

rows = st.lists(
    st.fixed_dictionaries(
        {
            "minute": st.integers(0, 5),
            "user_id": st.sampled_from(["u1", "u2", "콩"]),
            "request_id": st.sampled_from(["r1", "r2"]),
            "product_id": st.sampled_from(["p1", "p2"]),
            "surface": st.sampled_from(["similar", "other"]),
            "seed_product_id": st.sampled_from(["s1", "s2", None]),
            "kind": st.sampled_from(["impression", "impression", "click", "click", "purchase"]),
        }
    ),
    max_size=40,
)


def table(events: list[dict[str, Any]]) -> pa.Table:
    for event in events:
        event["time"] = f"2026-03-01T00:0{event['minute']}:00.000000Z"
        if event["kind"] == "purchase":
            event |= {"amount": 1.5, "currency": "KRW"}
    return pa.Table.from_pylist(events, schema=EVENTS)


def counted(events: list[dict[str, Any]], user: str, surface: str | None) -> dict[str, float]:
    """The counts of one user by loops, with "s1" as the matched seed."""
    own = [event for event in events if event["user_id"] == user]
    shown, clicked = {}, {}
    for event in own:
        slot = (event["request_id"], event["product_id"], event["surface"])
        if event["kind"] == "impression":
            shown.setdefault(slot, event)
        if event["kind"] == "click":
            clicked.setdefault(slot, event)
    clicked = {slot: event for slot, event in clicked.items() if slot in shown}
    here = {slot for slot in shown if surface in (None, slot[2])}
    paid = [event for event in own if event["kind"] == "purchase"]
    return {
        "users": 1,
        "views": len({slot[0] for slot in shown}),
        "clicked_views": len({slot[0] for slot in clicked if slot in here}),
        "clicked_pages": len({slot[0] for slot in clicked}),
        "impressions": len(here),
        "clicks": sum(slot in here for slot in clicked),
        "matched_impressions": sum(shown[slot]["seed_product_id"] == "s1" for slot in here),
        "matched_clicks": sum(clicked[slot]["seed_product_id"] == "s1" for slot in clicked if slot in here),
        "bought_clicks": sum(
            any(one["product_id"] == slot[1] and one["minute"] >= event["minute"] for one in paid)
            for slot, event in clicked.items()
            if slot in here
        ),
        "bought": bool(paid),
        "spend": 1.5 * len(paid),
    }


@settings(deadline=None)
@given(rows, st.sampled_from(["similar", None]))
def test_counts_are_those_of_loops_over_sets(events: list[dict[str, Any]], surface: str | None) -> None:
    found = outcomes(table(events), surface, pa.array(["s1"]))
    assert sorted(found.user_id.to_pylist()) == sorted({event["user_id"] for event in events})
    expected = {user: counted(events, user, surface) for user in found.user_id.to_pylist()}
    for name, values in found.counts.items():
        assert values.tolist() == [expected[user][name] for user in found.user_id.to_pylist()], name
        asked = found.of(pa.array(["nobody", *found.user_id.to_pylist()[::-1]], pa.string()), name)
        assert asked.tolist() == [0, *values[::-1]]
    in_slot = {
        (event["user_id"], event["request_id"], event["product_id"], event["surface"])
        for event in events
        if event["kind"] == "click" and surface in (None, event["surface"])
    }
    assert found.n_stray_clicks == len(in_slot) - found.counts["clicks"].sum()


def test_every_metric_is_a_ratio_of_counts() -> None:
    counts = outcomes(EVENTS.empty_table()).counts
    for metric in METRICS:
        assert {metric.numerator, metric.denominator, *metric.before} <= counts.keys()
    assert all(len(values) == 0 for values in counts.values())


def test_users_of_both_arms_belong_to_neither(make: MakeEvent) -> None:
    events = pa.Table.from_pylist(
        [make(user_id=user, arm=arm).model_dump() for user, arm in ("1a", "2b", "3a", "3b", "4c", "1a", "2c")],
        schema=EVENTS,
    )
    control, treatment, both = arms_of(events, "a", "b")
    assert (control.to_pylist(), treatment.to_pylist(), both.to_pylist()) == (["1"], ["2"], ["3"])
    with pytest.raises(ShoplensError, match="no user was logged in the arm 'x'; the arms in the log: a, b, c"):
        arms_of(events, "a", "x")
    with pytest.raises(ShoplensError, match="one arm"):
        arms_of(events, "a", "a")


def test_seeds_count_where_both_arms_showed_something_in_the_slot(make: MakeEvent) -> None:
    shown = [
        ("a", "1", "similar"),
        ("b", "1", "similar"),
        ("a", "2", "similar"),
        ("b", "2", "other"),
        ("b", "3", "similar"),
    ]
    events = [make(arm=arm, seed_product_id=seed, surface=surface) for arm, seed, surface in shown]
    events += [make(arm="a"), make(arm="a", seed_product_id="4", kind="click")]
    log = pa.Table.from_pylist([event.model_dump() for event in events], schema=EVENTS)
    both, n = seeds_of_both(log, "a", "b", "similar")
    assert (both.to_pylist(), n) == (["1"], 3)
    both, n = seeds_of_both(log, "a", "b")
    assert (sorted(both.to_pylist()), n) == (["1", "2"], 3)


def test_several_currencies_are_refused(make: MakeEvent) -> None:
    events = [make(kind="purchase", currency=currency).model_dump() for currency in ("KRW", "JPY")]
    with pytest.raises(ShoplensError, match="purchases are in JPY, KRW: log every amount in one currency"):
        outcomes(pa.Table.from_pylist(events, schema=EVENTS))


def test_large_logs_keep_pairs_apart() -> None:
    """30,000 users, each with one page view of one product."""
    n = 30_000
    names = [str(i) for i in range(n)]
    log = pa.table(
        {
            **{name: pa.array(names) for name in ("user_id", "product_id", "request_id", "event_id")},
            "time": pa.array(["2026-03-01T00:00:00.000000Z"] * n),
            "kind": pa.array(["impression"] * n),
            "surface": pa.array([""] * n),
        }
    )
    log = pa.concat_tables([EVENTS.empty_table(), log, log], promote_options="default")
    assert np.all(outcomes(log).counts["impressions"] == 1)
