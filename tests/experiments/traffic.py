"""Logs of simulated experiments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from shoplens.experiments.events import EVENTS

HOSTILE = "</code><script>alert(1)</script>\"' 콩두부"


def traffic(
    seed: int,
    users: tuple[int, int] = (1500, 1500),
    *,
    lift: float = 0.0,
    covered: tuple[int, int] = (20, 20),
    spend: float = 1.0,
    month: int = 3,
) -> pa.Table:
    """A log of two arms (old, new) with two page views a user, of 20 seeds.

    An arm shows three products for its first `covered` seeds, and none for the others.
    """
    rng = np.random.default_rng(seed)
    taste = np.random.default_rng(99).beta(4, 8, sum(users))
    events: list[dict[str, Any]] = []
    for user in range(sum(users)):
        treated = user >= users[0]
        plain = {
            "time": f"2026-{month:02d}-{1 + user % 28:02d}T00:00:00.000000Z",
            "user_id": f"u{user}",
            "experiment": HOSTILE,
            "arm": "new" if treated else "old",
            "snapshot": "eclip/3" if treated else "eclip/2",
            "kind": "impression",
        }
        for view, seed_product in enumerate(rng.integers(20, size=2)):
            page = {**plain, "request_id": f"r{user}-{view}", "seed_product_id": f"s{seed_product}"}
            events.append({**page, "surface": "other", "product_id": "o"})
            for product in "abc" if seed_product < covered[treated] else "":
                events.append({**page, "surface": "similar", "product_id": product})
                if rng.random() < taste[user] * (1 + lift * treated):
                    events.append({**page, "surface": "similar", "product_id": product, "kind": "click"})
        if rng.random() < 0.5:
            amount = rng.gamma(20, 500) * (spend if treated else 1)
            page = {**plain, "request_id": "checkout", "product_id": "a", "surface": ""}
            events.append({**page, "kind": "purchase", "amount": amount, "currency": "KRW"})
    for number, event in enumerate(events):
        event["event_id"] = str(number)
    return pa.Table.from_pylist(events, schema=EVENTS)
