"""A cache of loaded versions, each loaded once and kept while it is in use."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Versions(Generic[K, T]):
    """`key -> T`, at most `capacity` entries. The least recently used entry leaves first, a pinned one never.

    Concurrent callers for a key wait for one load, even if some of them give up. Use it from one event loop.
    """

    def __init__(self, load: Callable[[K], Awaitable[T]], capacity: int) -> None:
        self._load, self._capacity = load, capacity
        self._loaded: OrderedDict[K, T] = OrderedDict()
        self._loading: dict[K, asyncio.Task[T]] = {}
        self._one_load = asyncio.Lock()
        self.pinned: frozenset[K] = frozenset()

    def __iter__(self) -> Iterator[T]:
        """The loaded entries, the most recently used first."""
        return iter(list(reversed(self._loaded.values())))

    def peek(self, key: K) -> T | None:
        return self._loaded.get(key)

    async def get(self, key: K) -> T:
        """The entry, loaded if needed. Raises the error of a failed load; a later call tries again."""
        if key in self._loaded:
            self._loaded.move_to_end(key)
            return self._loaded[key]
        task = self._loading.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._fetch(key))
            self._loading[key] = task
            task.add_done_callback(lambda _: self._loading.pop(key, None))
        return await asyncio.shield(task)

    async def _fetch(self, key: K) -> T:
        async with self._one_load:
            thing = await self._load(key)
        self._loaded[key] = thing
        leaving = [old for old in self._loaded if old not in self.pinned and old != key]
        for old in leaving[: max(0, len(self._loaded) - self._capacity)]:
            del self._loaded[old]
        return thing
