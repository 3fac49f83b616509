"""Gathering of calls: who shares one, and who pays for a fault."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_apps.gathering import Gatherer


@given(
    st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=6), max_size=12), st.integers(1, 4), st.integers(1, 9)
)
@settings(max_examples=60, deadline=None)
def test_every_request_gets_its_own_results(requests: list[list[int]], at_once: int, max_size: int) -> None:
    opened, sizes = [0], []

    async def call(items: list[int]) -> list[int]:
        opened[0] += 1
        assert opened[0] <= at_once
        assert len(items) <= max_size or items in requests
        sizes.append(len(items))
        await asyncio.sleep(0)
        opened[0] -= 1
        return [item * item for item in items]

    async def main() -> list[object]:
        gatherer = Gatherer(call, at_once=at_once, max_size=max_size)
        return await asyncio.gather(*(gatherer.submit(request) for request in requests))

    assert asyncio.run(main()) == [[item * item for item in request] for request in requests]
    assert sum(sizes) == sum(map(len, requests))


def test_what_waits_shares_a_call_and_a_fault_stays_in_its_own() -> None:
    seen: list[list[int]] = []

    async def main() -> None:
        go = asyncio.Event()

        async def call(items: list[int]) -> list[int]:
            seen.append(items)
            await go.wait()
            if -1 in items:
                raise ValueError("a negative number")
            return items

        gatherer = Gatherer(call, at_once=1, max_size=4)
        first = asyncio.create_task(gatherer.submit([0]))
        await asyncio.sleep(0)
        gone = asyncio.create_task(gatherer.submit([7]))
        late = [asyncio.create_task(gatherer.submit(items)) for items in ([1, 2], [3], [-1, 5], [6])]
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        go.set()
        assert [await first, await late[0], await late[1]] == [[0], [1, 2], [3]]
        for task in late[2:]:
            with pytest.raises(ValueError, match="negative"):
                await task
        assert await gatherer.submit([8]) == [8]

    asyncio.run(main())
    assert seen == [[0], [1, 2, 3], [-1, 5, 6], [8]]
