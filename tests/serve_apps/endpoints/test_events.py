"""Events over HTTP and back out of the Parquet log; refusals, failures of the disk, and a process that is killed."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_apps.api import build
from serve_apps.event_writer import AT_ONCE
from serve_apps.settings import Experiment, Limits
from shoplens.config import validate
from shoplens.experiments.event_log import EventLog, read
from shoplens.experiments.events import EVENTS, MOST_AT_ONCE
from tests.serve_apps.endpoints.test_experiment import EXPERIMENT, USERS
from tests.serve_apps.test_api import Service, error, running

__all__ = ["running"]

CONFIG = validate(Experiment, EXPERIMENT, "test")


def event(name: str = "e", user: str = "u", **fields: Any) -> dict[str, Any]:
    plain = {"time": "2026-03-01T09:30:00+09:00", "user_id": user, "product_id": "p", "request_id": "r"}
    paid = {"amount": 10, "currency": "KRW"} if fields.get("kind") == "purchase" else {}
    return {"event_id": name, "kind": "impression", "surface": "similar", **plain, **paid, **fields}


async def post(service: Service, *events: Any, **fields: Any) -> httpx.Response:
    return await service.http.post("/v1/events", json={"events": list(events), **fields})


def rows(root: Path) -> dict[str, dict[str, Any]]:
    found = {row["event_id"]: row for row in read(root).to_pylist()}
    assert len(found) == read(root).num_rows
    return found


def test_events_are_logged_in_their_users_arms(running: Any, tmp_path: Path) -> None:
    root = tmp_path / "log"
    arms = {user: CONFIG.arm(user) for user in USERS}

    async def body(service: Service) -> None:
        seen = [event(f"{user}/i", user, position=3, snapshot="eclip/1@4f0c") for user in USERS]
        bought = [event(f"{user}/p", user, kind="purchase", experiment="similar-1") for user in USERS[:5]]
        known = [event(f"{user}/c", user, kind="click", arm=arms[user]) for user in USERS[:5]]
        other = event("other", experiment="home-2", arm="blue", seed_product_id="s", propensity=1)
        answer = await post(service, *seen, *bought, *known, other)
        assert (answer.status_code, answer.json()) == (200, {"object": "events", "accepted": len(USERS) + 11})
        assert (await post(service, *seen)).status_code == 200
        unnamed = {key: value for key, value in event().items() if key != "event_id"}
        assert (await post(service, unnamed)).status_code == 200
        service.gateway.events.close()

    running(body, events=str(root), experiment=EXPERIMENT, search=True)
    assert [path.suffix for path in sorted((root / "gateway-0").iterdir())] == [".parquet", ""]
    found = rows(root)
    assert len(found) == len(USERS) + 12
    for user in USERS:
        row = found[f"{user}/i"]
        assert (row["experiment"], row["arm"], row["user_id"]) == ("similar-1", arms[user], user)
        assert (row["time"], row["position"], row["snapshot"]) == ("2026-03-01T00:30:00.000000Z", 3, "eclip/1@4f0c")
    for user in USERS[:5]:
        assert (found[f"{user}/p"]["arm"], found[f"{user}/p"]["amount"]) == (arms[user], 10)
        assert found[f"{user}/c"]["arm"] == arms[user]
    expected = {"experiment": "home-2", "arm": "blue", "seed_product_id": "s", "propensity": 1.0}
    assert {key: found["other"][key] for key in expected} == expected
    assert set(found["other"]) == set(EVENTS.names)


def test_what_is_refused_is_named_and_nothing_of_its_request_is_logged(running: Any, tmp_path: Path) -> None:
    root = tmp_path / "log"
    wrong = "champion" if CONFIG.arm("u") == "challenger" else "challenger"

    async def body(service: Service) -> None:
        for bad, code, param in (
            (event(arm=wrong), "wrong_arm", "events[1].arm"),
            (event(experiment="similar-1", arm=wrong), "wrong_arm", "events[1].arm"),
            (event(arm="nobody"), "wrong_arm", "events[1].arm"),
            (event(experiment="home-2"), "missing_field", "events[1].arm"),
            (event(experiment=""), "invalid_value", "events[1].experiment"),
            (event(user=""), "invalid_value", "events[1].user_id"),
            (event(kind="hover"), "invalid_value", "events[1].kind"),
            (event(time="yesterday"), "invalid_value", "events[1].time"),
            (event(time="2026-03-01T09:30:00"), "invalid_value", "events[1].time"),
            (event(position="3"), "invalid_value", "events[1].position"),
            (event(propensity=0), "invalid_value", "events[1].propensity"),
            (event(kind="purchase", amount=None), "invalid_value", "events[1]"),
            (event(kind="click", amount=1, currency="KRW"), "invalid_value", "events[1]"),
            (event(kind="purchase", amount=10**400), "invalid_value", "events[1].amount"),
            (event(pipi=1), "unknown_field", "events[1].pipi"),
            ({"event_id": "x"}, "missing_field", "events[1].time"),
            ("<script>", "invalid_value", "events[1]"),
        ):
            answer = await post(service, event("good"), bad)
            assert (*error(answer), answer.json()["error"]["param"]) == (400, code, param), bad
            assert len(answer.text) < 600
        assert error(await post(service)) == (400, "invalid_value")
        assert error(await post(service, event(), more=1)) == (400, "unknown_field")
        assert error(await post(service, *[event(str(n)) for n in range(MOST_AT_ONCE + 1)])) == (400, "invalid_value")
        lone = b'{"events": [{"product_id": "\\ud83d"}]}'
        json = {"content-type": "application/json"}
        assert error(await service.http.post("/v1/events", content=lone, headers=json)) == (400, "invalid_json")
        assert error(await service.http.post("/v1/events", content=lone)) == (415, "unsupported_media_type")
        assert not root.exists()
        assert (await post(service, *[event(str(n)) for n in range(MOST_AT_ONCE)])).json()["accepted"] == MOST_AT_ONCE
        service.gateway.events.close()

    running(body, events=str(root), experiment=EXPERIMENT, search=True)
    assert len(rows(root)) == MOST_AT_ONCE


def test_without_an_experiment_events_name_their_own(running: Any, tmp_path: Path) -> None:
    async def body(service: Service) -> None:
        answer = await post(service, event())
        assert (*error(answer), answer.json()["error"]["param"]) == (400, "missing_field", "events[0].experiment")
        assert (await post(service, event(experiment="before", arm="none"))).status_code == 200
        service.gateway.events.close()

    running(body, events=str(tmp_path / "log"))
    assert rows(tmp_path / "log")["e"]["experiment"] == "before"


def test_the_log_lies_in_the_storage_or_nowhere(running: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def taken(service: Service) -> None:
        assert (await post(service, event(experiment="e", arm="a"))).status_code == 200
        service.gateway.events.close()

    async def nowhere(service: Service) -> None:
        assert error(await post(service, event(experiment="e", arm="a"))) == (501, "no_event_log")

    monkeypatch.setenv("SHOPLENS_STORAGE", str(tmp_path))
    running(taken)
    assert list(rows(tmp_path / "events")) == ["e"]
    for storage in ("", "s3://shop"):
        monkeypatch.setenv("SHOPLENS_STORAGE", storage)
        running(nowhere)


def test_what_is_not_durable_is_a_503_and_counts_once_when_it_is_sent_again(running: Any, tmp_path: Path) -> None:
    (tmp_path / "disk").write_text("no folder")
    root = tmp_path / "disk" / "log"
    events = [event(str(n), experiment="e", arm="a") for n in range(3)]

    async def body(service: Service) -> None:
        for _ in range(2):
            answer = await post(service, *events)
            assert error(answer) == (503, "events_not_logged")
            assert "again under the same event ids" in answer.json()["error"]["message"]
            assert int(answer.headers["Retry-After"]) >= 1
        (tmp_path / "disk").unlink()
        assert (await post(service, *events)).status_code == 200
        service.gateway.events.close()
        assert error(await post(service, event("late", experiment="e", arm="a"))) == (503, "events_not_logged")

    running(body, events=str(root))
    assert list(rows(root)) == ["0", "1", "2"]


def test_a_disk_that_hangs_holds_up_nothing_else(running: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hung, append = threading.Event(), EventLog.append

    def waits(log: EventLog, events: Any) -> None:
        hung.wait(20)
        append(log, events)

    async def body(service: Service) -> None:
        monkeypatch.setattr(EventLog, "append", waits)
        sent = [event(str(n), experiment="e", arm="a") for n in range(AT_ONCE)]
        answers = await asyncio.gather(*(post(service, one) for one in sent))
        assert Counter(map(error, answers)) == {(503, "events_not_logged"): AT_ONCE}
        assert error(await post(service, sent[0])) == (503, "overloaded")
        assert (await service.http.get("/healthz")).status_code == 200
        hung.set()
        deadline = time.monotonic() + 20
        while (answer := await post(service, *sent)).status_code != 200:
            assert time.monotonic() < deadline, answer.text
            await asyncio.sleep(0.05)
        service.gateway.events.close()

    running(body, events=str(tmp_path / "log"), limits=Limits(deadline_s=0.5))
    assert set(rows(tmp_path / "log")) == {str(n) for n in range(AT_ONCE)}


def test_replicas_write_beside_each_other_and_take_over_what_is_left(running: Any, tmp_path: Path) -> None:
    root = tmp_path / "log"

    def replica(name: str, then: Any = None) -> None:
        async def body(service: Service) -> None:
            assert (await post(service, event(name, experiment="e", arm="a"))).status_code == 200
            if then is not None:
                await asyncio.to_thread(then)
            async with build(service.gateway).router.lifespan_context(None):
                pass

        running(body, events=str(root))

    replica("first", lambda: replica("second"))
    replica("third")
    assert {folder.name: read_names(folder) for folder in root.iterdir()} == {
        "gateway-0": ["first", "third"],
        "gateway-1": ["second"],
    }
    assert set(rows(root)) == {"first", "second", "third"}


def read_names(folder: Path) -> list[str]:
    """Of one writer, whose segments are all sealed."""
    import pyarrow.parquet as pq

    assert not list(folder.glob("*.events"))
    return [name for path in sorted(folder.glob("*.parquet")) for name in pq.read_table(path)["event_id"].to_pylist()]


SERVER = """
import asyncio, sys
import uvicorn
from serve_apps.api import build
from serve_apps.gateway import Gateway
from serve_apps.settings import Settings
from tests.serve_apps.conftest import Local

class Nothing:
    def serving(self):
        return {}

async def main(root, port):
    gateway = Gateway.__new__(Gateway)
    await gateway.__init__(Settings(events=root, sealing={"after_bytes": 10_000}), Local(None), Local(Nothing()))
    app = build(gateway)
    await uvicorn.Server(uvicorn.Config(app, port=port, log_level="error")).serve()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.mark.slow
def test_a_service_killed_under_load_loses_no_acknowledged_event(running: Any, tmp_path: Path) -> None:
    """SIGKILL of the process that serves, while eight clients send; the next one seals what it left."""
    root, acknowledged = tmp_path / "log", []
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(root), str(port)], env=environment)

    def send(client: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
            for n in range(10**6):
                names = [f"{client}-{n}-{k}" for k in range(1 + n % 4)]
                events = [event(name, experiment="e", arm="a") for name in names]
                try:
                    answer = http.post("/v1/events", json={"events": events})
                except httpx.HTTPError:
                    return
                assert answer.status_code == 200, answer.text
                acknowledged.extend(names)

    try:
        deadline = time.monotonic() + 200
        while server.poll() is None and time.monotonic() < deadline:
            try:
                httpx.get(f"http://127.0.0.1:{port}/v1/experiment", timeout=20)
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        clients = [threading.Thread(target=send, args=(client,)) for client in range(8)]
        for client in clients:
            client.start()
        while len(acknowledged) < 400 and any(client.is_alive() for client in clients):
            time.sleep(0.01)
    finally:
        server.kill()
        server.wait(20)
    for client in clients:
        client.join(30)
    assert len(acknowledged) >= 400
    assert list((root / "gateway-0").glob("*.parquet")), "it was killed while it sealed, too"
    left = rows(root)
    assert set(acknowledged) <= set(left)

    async def body(service: Service) -> None:
        assert (await post(service, event("next", experiment="e", arm="a"))).status_code == 200
        service.gateway.events.close()

    running(body, events=str(root))
    assert set(rows(root)) == {*left, "next"}
    assert set(read_names(root / "gateway-0")) == {*left, "next"}
