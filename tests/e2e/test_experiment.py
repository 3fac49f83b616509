"""An experiment whose arms are one model, from the pages that shoppers see to the table that judges it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.conftest import EXPERIMENT, Platform

USERS = 80
PLAIN = {"time": "2026-03-01T09:30:00+09:00", "surface": "similar"}


def test_pages_events_and_the_analysis(platform: Platform, demo_url: str, champion: int, tmp_path: Path) -> None:
    arms: Counter[str] = Counter()
    events: list[dict[str, Any]] = []
    with httpx.Client(base_url=demo_url, timeout=60) as http:
        shown = http.get("/v1/experiment").json()
        assert (shown["name"], shown["running"]) == (EXPERIMENT["name"], True)
        assert {arm["version"] for arm in shown["arms"]} == {f"eclip/{champion}"}
        seed = http.get("/v1/products?limit=1").json()["data"][0]["product_id"]
        for user in range(USERS):
            page = http.post("/v1/similar", json={"product_id": seed, "k": 3, "user": f"shopper-{user}"}).json()
            assert page["model"] == f"eclip/{champion}"
            arms[page["experiment"]["arm"]] += 1
            view = {**PLAIN, "user_id": f"shopper-{user}", "request_id": f"view-{user}", "seed_product_id": seed}
            for place, product in enumerate(page["data"]):
                seen = {**view, "product_id": product["product_id"], "position": place}
                events.append({**seen, "event_id": f"{user}/{place}", "kind": "impression", "snapshot": page["model"]})
                if (user + place) % 3 == 0:
                    events.append({**seen, "event_id": f"{user}/{place}/click", "kind": "click"})
            paid = {"kind": "purchase", "amount": 1000 + user, "currency": "KRW"}
            events.append({**seen, "event_id": f"{user}/paid", **paid})
        for _ in range(2):
            assert http.post("/v1/events", json={"events": events}).json() == {
                "object": "events",
                "accepted": len(events),
            }
    log = str(Path(platform.cluster.storage_path) / "events")
    arguments = ["--control", "one", "--treatment", "other", "--out", str(tmp_path), "least_users=2"]
    printed = platform.type_in("python", "-m", "workloads.analyze_ab", log, *arguments)
    assert f"a-a: {arms['other']} users of other against {arms['one']} of one" in printed
    assert {"page_ctr", "ctr", "buyers", "spend", "impressions"} <= {
        line.split()[0] for line in printed.splitlines()[1:] if line.split()
    }
    assert "Next: " in printed
