"""Batching: what is computed together, and who pays for a fault."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_apps.batcher import Batcher, identity
from shoplens.packages.capabilities import PhotoText


class Square:
    """Squares numbers; a negative one breaks the whole batch, as a model would."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.hold = threading.Event()
        self.hold.set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.hold.wait(5)
        self.sizes.append(len(items))
        if any(item < 0 for item in items):
            raise ValueError("a negative number")
        return [item * item for item in items]


@given(st.lists(st.lists(st.integers(-3, 50), max_size=12), max_size=8), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_every_item_gets_its_own_result_or_its_own_error(requests: list[list[int]], max_size: int) -> None:
    square = Square()

    async def main(pool: ThreadPoolExecutor) -> list[list[int | Exception]]:
        batcher = Batcher(square, pool, max_size=max_size)
        return await asyncio.gather(*(batcher.submit(request) for request in requests))

    with ThreadPoolExecutor(1) as pool:
        answers = asyncio.run(main(pool))
    for request, results in zip(requests, answers, strict=True):
        assert len(request) == len(results)
        for item, result in zip(request, results, strict=True):
            assert isinstance(result, ValueError) if item < 0 else result == item * item
    assert max(square.sizes, default=0) <= max_size


def test_what_arrives_while_the_model_is_busy_is_computed_together() -> None:
    square = Square()

    async def main(pool: ThreadPoolExecutor) -> None:
        batcher = Batcher(square, pool, max_size=64)
        square.hold.clear()
        requests = [asyncio.create_task(batcher.submit([i])) for i in range(40)]
        await asyncio.sleep(0.05)
        late = [asyncio.create_task(batcher.submit([i])) for i in range(20)]
        await asyncio.sleep(0.05)
        square.hold.set()
        await asyncio.gather(*requests, *late)
        assert batcher.batches == 2

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(main(pool))
    assert square.sizes == [40, 20]


def test_an_item_whose_caller_has_gone_is_not_computed() -> None:
    square = Square()

    async def main(pool: ThreadPoolExecutor) -> None:
        batcher = Batcher(square, pool, max_size=4)
        square.hold.clear()
        first = asyncio.create_task(batcher.submit([1]))
        await asyncio.sleep(0.02)
        gone = asyncio.create_task(batcher.submit(list(range(100))))
        stays = asyncio.create_task(batcher.submit([7]))
        await asyncio.sleep(0.02)
        gone.cancel()
        await asyncio.sleep(0)
        square.hold.set()
        assert await first == [1]
        assert await stays == [49]

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(main(pool))
    assert square.sizes == [1, 1]


def test_equal_items_in_flight_are_computed_once_for_everyone() -> None:
    square = Square()

    async def main(pool: ThreadPoolExecutor) -> None:
        batcher = Batcher(square, pool, max_size=8, key=identity)
        square.hold.clear()
        first = asyncio.create_task(batcher.submit([3, 4, 3]))
        await asyncio.sleep(0.02)
        gone = asyncio.create_task(batcher.submit([4, 5]))
        stays = asyncio.create_task(batcher.submit([5, -1]))
        other = asyncio.create_task(batcher.submit([-1, 4]))
        await asyncio.sleep(0.02)
        gone.cancel()
        await asyncio.sleep(0)
        square.hold.set()
        assert await first == [9, 16, 9]
        assert (await stays)[0] == 25
        assert isinstance((await stays)[1], ValueError) and isinstance((await other)[0], ValueError)
        assert (await other)[1] == 16
        assert await batcher.submit([3]) == [9]

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(main(pool))
    assert square.sizes == [2, 2, 1, 1, 1], "once more after the answer: nothing is kept"


def test_photos_are_equal_by_their_pixels_and_pairs_by_both_parts() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    other = pixels.copy()
    other[0, 0, 0] += 1
    assert identity(pixels) == identity(pixels.copy()) != identity(other)
    assert identity(pixels) != identity(pixels.reshape(3, 2, 8))
    assert (
        identity(PhotoText(pixels, "a")) == identity(PhotoText(pixels.copy(), "a")) != identity(PhotoText(pixels, "b"))
    )
    assert identity("1") != identity(1)
    one, equal = ["a"], ["a"]
    assert identity(one) != identity(equal), "what cannot be hashed is computed"


def test_it_goes_on_after_a_batch_of_faults() -> None:
    square = Square()

    async def main(pool: ThreadPoolExecutor) -> None:
        batcher = Batcher(square, pool, max_size=8)
        faults = await batcher.submit([-1] * 20)
        assert all(isinstance(fault, ValueError) for fault in faults)
        assert await batcher.submit([3]) == [9]

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(main(pool))


def test_a_model_that_returns_too_few_results_is_an_error_not_a_hang() -> None:
    async def main(pool: ThreadPoolExecutor) -> None:
        batcher = Batcher(lambda items: [0], pool, max_size=8)
        started = time.monotonic()
        results = await batcher.submit([1, 2, 3])
        assert results == [0, 0, 0] or all(isinstance(result, RuntimeError) for result in results)
        assert time.monotonic() - started < 2

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(main(pool))
