"""Batching over requests: items that arrive while the model is busy form the next batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Gathers items into batches for `run`, which computes one result for each item in a thread of `executor`.

    A batch that raises is split into halves and run again, until each faulty item is alone. A faulty item gets the
    exception, the others get their results. Items whose caller has gone are left out. Use it from one event loop.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        executor: Executor,
        *,
        max_size: int,
        wait_s: float = 0.0,
    ) -> None:
        self._run, self._executor = run, executor
        self._max_size, self._wait_s = max_size, wait_s
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self.batches = 0
        """Number of finished batches; it tells a slow queue from a stuck one."""

    def __len__(self) -> int:
        return len(self._waiting)

    async def submit(self, items: Sequence[Item]) -> list[Result | Exception]:
        """One result or exception for each item."""
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in items]
        self._waiting.extend(zip(items, futures, strict=True))
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        try:
            return await asyncio.gather(*futures, return_exceptions=True)
        finally:
            for future in futures:
                future.cancel()

    async def _work(self) -> None:
        if self._wait_s and len(self._waiting) < self._max_size:
            await asyncio.sleep(self._wait_s)
        while self._waiting:
            batch: list[tuple[Item, asyncio.Future[Result]]] = []
            while self._waiting and len(batch) < self._max_size:
                item, future = self._waiting.popleft()
                if not future.done():
                    batch.append((item, future))
            if batch:
                await self._compute(batch)
                self.batches += 1

    async def _compute(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._executor, self._run, [item for item, _ in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"the model returned {len(results)} results for {len(batch)} items")
        except Exception as error:
            if len(batch) == 1:
                _settle(batch[0][1], error)
                return
            middle = len(batch) // 2
            await self._compute(batch[:middle])
            await self._compute(batch[middle:])
        else:
            for (_, future), result in zip(batch, results, strict=True):
                _settle(future, result)


def _settle(future: asyncio.Future[Result], outcome: Result | Exception) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
