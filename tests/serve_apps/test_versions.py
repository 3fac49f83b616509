"""One load a version, whoever asks; pinned versions stay."""

from __future__ import annotations

import asyncio

from serve_apps.versions import Versions


def test_a_hundred_callers_share_one_load() -> None:
    loads: list[str] = []

    async def load(key: str) -> str:
        loads.append(key)
        await asyncio.sleep(0.02)
        return key.upper()

    async def main() -> None:
        versions = Versions(load, 2)
        callers = [asyncio.create_task(versions.get("a")) for _ in range(100)]
        await asyncio.sleep(0.005)
        callers[0].cancel()
        answers = await asyncio.gather(*callers, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert set(answers[1:]) == {"A"}

    asyncio.run(main())
    assert loads == ["a"]


def test_the_least_recently_used_leaves_and_the_pinned_stay() -> None:
    async def load(key: str) -> str:
        return key

    async def main() -> None:
        versions = Versions(load, 2)
        await versions.get("champion")
        versions.pinned = frozenset({"champion"})
        for key in "abcab":
            await versions.get(key)
            assert len(list(versions)) <= 2
        assert versions.peek("champion") == "champion"
        assert versions.peek("b") == "b"
        assert versions.peek("a") is None
        versions.pinned = frozenset()
        await versions.get("a")
        assert versions.peek("champion") is None

    asyncio.run(main())


def test_a_failed_load_is_raised_to_all_and_tried_again() -> None:
    tries = 0

    async def load(key: str) -> str:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise OSError("no")
        return key

    async def main() -> None:
        versions = Versions(load, 2)
        answers = await asyncio.gather(versions.get("a"), versions.get("a"), return_exceptions=True)
        assert all(isinstance(answer, OSError) for answer in answers)
        assert await versions.get("a") == "a"

    asyncio.run(main())
