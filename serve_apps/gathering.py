"""Gathering over requests: few calls of the Encoder are open, and what arrives meanwhile shares the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Gatherer(Generic[Item, Result]):
    """Passes the items of requests to `call`, which gives one result for each item.

    At most `at_once` calls are open. A call has the items of one or more whole requests, at most `max_size` items if it
    has several. A call that raises fails its own requests. Use it from one event loop.
    """

    def __init__(
        self, call: Callable[[list[Item]], Awaitable[Sequence[Result]]], *, at_once: int, max_size: int
    ) -> None:
        self._call, self._at_once, self._max_size = call, at_once, max_size
        self._waiting: deque[tuple[Sequence[Item], asyncio.Future[Sequence[Result]]]] = deque()
        self._open: set[asyncio.Task[None]] = set()

    async def submit(self, items: Sequence[Item]) -> Sequence[Result]:
        """One result for each item. Raises what `call` raises."""
        future: asyncio.Future[Sequence[Result]] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, future))
        self._send()
        return await future

    def _send(self) -> None:
        while self._waiting and len(self._open) < self._at_once:
            requests: list[tuple[Sequence[Item], asyncio.Future[Sequence[Result]]]] = []
            size = 0
            while self._waiting and (not requests or size + len(self._waiting[0][0]) <= self._max_size):
                items, future = self._waiting.popleft()
                if not future.done():  # its caller is still there
                    requests.append((items, future))
                    size += len(items)
            if requests:
                task = asyncio.get_running_loop().create_task(self._ask(requests))
                self._open.add(task)
                task.add_done_callback(self._closed)

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._open.discard(task)
        self._send()

    async def _ask(self, requests: Sequence[tuple[Sequence[Item], asyncio.Future[Sequence[Result]]]]) -> None:
        try:
            results = await self._call([item for items, _ in requests for item in items])
        except Exception as error:
            for _, future in requests:
                if not future.done():
                    future.set_exception(error)
            return
        start = 0
        for items, future in requests:
            if not future.done():
                future.set_result(results[start : start + len(items)])
            start += len(items)
