"""Batching over requests: items that arrive while the model is busy form the next batch."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Asked(Generic[Item, Result]):
    """An item that is computed once, and everyone who waits for it."""

    key: Hashable
    item: Item
    futures: list[asyncio.Future[Result]]

    @property
    def wanted(self) -> bool:
        return not all(future.done() for future in self.futures)


class Batcher(Generic[Item, Result]):
    """Gathers items into batches for `run`, which computes one result for each item in a thread of `executor`.

    Items of one `key` that wait or are being computed at the same time are computed once; without `key`, no two items
    are equal. A batch that raises is split into halves and run again, until each faulty item is alone. A faulty item
    gets the exception, the others get their results. Items whose caller has gone are left out. Use it from one event
    loop.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        executor: Executor,
        *,
        max_size: int,
        wait_s: float = 0.0,
        key: Callable[[Item], Hashable] | None = None,
    ) -> None:
        self._run, self._executor = run, executor
        self._key = key or (lambda item: object())
        self._max_size, self._wait_s = max_size, wait_s
        self._waiting: deque[_Asked[Item, Result]] = deque()
        self._in_flight: dict[Hashable, _Asked[Item, Result]] = {}
        self._worker: asyncio.Task[None] | None = None
        self.batches = 0
        """Number of finished batches; it tells a slow queue from a stuck one."""

    def __len__(self) -> int:
        return len(self._waiting)

    async def submit(self, items: Sequence[Item]) -> list[Result | Exception]:
        """One result or exception for each item."""
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in items]
        for item, future in zip(items, futures, strict=True):
            self._ask(item, future)
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        try:
            return await asyncio.gather(*futures, return_exceptions=True)
        finally:
            for future in futures:
                future.cancel()

    def _ask(self, item: Item, future: asyncio.Future[Result]) -> None:
        key = self._key(item)
        same = self._in_flight.get(key)
        if same is not None:
            same.futures.append(future)
            return
        self._in_flight[key] = asked = _Asked(key, item, [future])
        self._waiting.append(asked)

    async def _work(self) -> None:
        if self._wait_s and len(self._waiting) < self._max_size:
            await asyncio.sleep(self._wait_s)
        while self._waiting:
            batch: list[_Asked[Item, Result]] = []
            while self._waiting and len(batch) < self._max_size:
                asked = self._waiting.popleft()
                if asked.wanted:
                    batch.append(asked)
                else:
                    del self._in_flight[asked.key]
            if batch:
                await self._compute(batch)
                self.batches += 1

    async def _compute(self, batch: list[_Asked[Item, Result]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._executor, self._run, [asked.item for asked in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"the model returned {len(results)} results for {len(batch)} items")
        except Exception as error:
            if len(batch) == 1:
                self._settle(batch[0], error)
                return
            middle = len(batch) // 2
            await self._compute(batch[:middle])
            await self._compute(batch[middle:])
        else:
            for asked, result in zip(batch, results, strict=True):
                self._settle(asked, result)

    def _settle(self, asked: _Asked[Item, Result], outcome: Result | Exception) -> None:
        del self._in_flight[asked.key]
        for future in asked.futures:
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)


def identity(item: Any) -> Hashable:
    """A key that equal items share: of arrays their shape, type and a digest of their bytes; of tuples that of each part.

    An item of another kind that cannot be hashed equals itself only.
    """
    if isinstance(item, np.ndarray):
        return item.shape, item.dtype.str, hashlib.sha256(np.ascontiguousarray(item).data).digest()
    if isinstance(item, tuple):
        return type(item), *map(identity, item)
    try:
        hash(item)
    except TypeError:
        return id(item)
    return type(item), item
