"""How much is let in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, Request

from serve_apps.http import errors
from serve_apps.http.admission import Admission
from serve_apps.settings import Limits


def client(limits: Limits, held: asyncio.Event | None = None) -> httpx.AsyncClient:
    app = FastAPI()

    @app.post("/size")
    async def size(request: Request) -> int:
        length = len(await request.body())
        if held is not None:
            await held.wait()
        return length

    @app.get("/healthz")
    async def healthz() -> str:
        return "ok"

    errors.install(app)
    app.add_middleware(Admission, limits=limits)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop")


async def pieces(n: int, size: int, pause: float = 0) -> AsyncIterator[bytes]:
    for _ in range(n):
        await asyncio.sleep(pause)
        yield b"x" * size


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    return answer.status_code, answer.json()["error"]["code"]


def test_bodies_are_bounded_whether_or_not_they_say_their_length() -> None:
    async def main() -> None:
        async with client(Limits(body_bytes=1000)) as http:
            assert (await http.post("/size", content=b"x" * 1000)).json() == 1000
            assert (await http.post("/size", content=pieces(10, 100))).json() == 1000
            assert code(await http.post("/size", content=b"x" * 1001)) == (413, "body_too_large")
            assert code(await http.post("/size", content=pieces(11, 100))) == (413, "body_too_large")
            lie = {"content-length": "10"}
            assert code(await http.post("/size", content=pieces(11, 100), headers=lie)) == (
                413,
                "body_too_large",
            )
            for length in ("-1", "1e3", "9" * 100, "²"):
                headers = [(b"content-length", length.encode())]
                assert (await http.post("/size", content=pieces(1, 1), headers=headers)).status_code in (
                    400,
                    413,
                )

    asyncio.run(main())


def test_a_body_that_drips_is_given_up() -> None:
    async def main() -> None:
        async with client(Limits(body_deadline_s=0.2)) as http:
            slow = http.post("/size", content=pieces(50, 1, pause=0.05))
            assert code(await asyncio.wait_for(slow, 5)) == (408, "body_too_slow")

    asyncio.run(main())


@pytest.mark.parametrize("limits", [Limits(requests=3), Limits(bytes_in_flight=30)])
def test_what_is_too_much_at_a_time_is_told_to_come_again(limits: Limits) -> None:
    async def main() -> None:
        held = asyncio.Event()
        async with client(limits, held) as http:
            working = [asyncio.create_task(http.post("/size", content=b"x" * 10)) for _ in range(3)]
            await asyncio.sleep(0.05)
            refused = await http.post("/size", content=b"x" * 10)
            assert code(refused) == (503, "overloaded")
            assert int(refused.headers["Retry-After"]) >= 1
            assert (await http.get("/healthz")).status_code == 200
            held.set()
            assert [answer.json() for answer in await asyncio.gather(*working)] == [10, 10, 10]
            assert (await http.post("/size", content=b"x" * 10)).json() == 10

    asyncio.run(main())


def test_a_body_that_is_announced_and_does_not_come_holds_no_room() -> None:
    async def main() -> None:
        silent = asyncio.Event()

        async def nothing() -> AsyncIterator[bytes]:
            await silent.wait()
            yield b"x"

        async with client(Limits(body_bytes=1000, bytes_in_flight=1000)) as http:
            idle = [
                asyncio.create_task(http.post("/size", content=nothing(), headers=headers))
                for headers in ({"content-length": "1000"}, {"content-length": "1000"}, {})
            ]
            await asyncio.sleep(0.05)
            assert (await http.post("/size", content=b"x" * 1000)).json() == 1000
            silent.set()
            assert [answer.json() for answer in await asyncio.gather(*idle)] == [1, 1, 1]

    asyncio.run(main())


def test_requests_that_fail_or_go_away_give_their_place_back() -> None:
    async def main() -> None:
        held = asyncio.Event()
        async with client(Limits(requests=2, body_bytes=1000), held) as http:
            for _ in range(5):
                gone = asyncio.create_task(http.post("/size", content=b"x"))
                await asyncio.sleep(0.01)
                gone.cancel()
                await asyncio.gather(gone, return_exceptions=True)
                await http.post("/size", content=pieces(11, 100))
            held.set()
            assert (await http.post("/size", content=b"x")).json() == 1

    asyncio.run(main())
