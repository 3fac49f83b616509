"""The event log of one Gateway replica: opened at the first event, with threads of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from serve_apps.http.errors import ApiError, unavailable
from serve_apps.settings import Settings
from shoplens.errors import ShoplensError
from shoplens.experiments.event_log import EventLog, FolderTaken
from shoplens.experiments.events import Event

log = logging.getLogger("ray.serve")

T = TypeVar("T")

AT_ONCE = 64
"""Most requests that a replica logs at the same time, each in a thread. Concurrent requests share one fsync."""
MOST_REPLICAS = 1000


class EventWriter:
    """Writes to the first of ROOT/gateway-0, ROOT/gateway-1, ... that has no writer.

    A new replica therefore takes over the folder of a killed one, and seals its open segment.
    """

    def __init__(self, settings: Settings) -> None:
        self._root, self._sealing = settings.events_dir(), settings.sealing
        self._deadline = settings.limits.deadline_s
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="events")
        self._free = threading.Semaphore(AT_ONCE)
        self._opening = threading.Lock()
        self._log: EventLog | None = None
        self._closed = False

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Runs a function that appends. Raises ApiError 501 if there is no log, 503 if threads or time run out."""
        if self._root is None:
            message = "there is no event log here: name a folder under `events:` in the cluster file"
            raise ApiError(501, "no_event_log", message)
        if not self._free.acquire(blocking=False):
            raise unavailable("overloaded", f"{AT_ONCE} requests are being logged; try again shortly")
        job = self._threads.submit(function, *arguments)
        job.add_done_callback(lambda _: self._free.release())
        try:
            return await asyncio.wait_for(asyncio.wrap_future(job), self._deadline)
        except asyncio.TimeoutError:
            log.error("the event log %s has not answered within %g s", self._root, self._deadline)
            raise _not_durable() from None

    def append(self, events: Sequence[Event]) -> None:
        """Blocks until the events are durable. Raises ApiError 503 if they may not be."""
        try:
            self._opened().append(events)
        except ShoplensError as error:
            log.error("%s", error)
            raise _not_durable() from error

    def close(self) -> None:
        """Seals the open segment and releases the folder for another replica; blocks."""
        with self._opening:
            self._closed = True
            try:
                if self._log is not None:
                    self._log.close()
            except ShoplensError as error:
                log.error("%s", error)

    def _opened(self) -> EventLog:
        with self._opening:
            if self._log is None:
                if self._closed:
                    raise ShoplensError("this replica is stopping: its event log is closed")
                self._log = self._first_free()
                log.info("events are logged in %s", self._log.folder)
            return self._log

    def _first_free(self) -> EventLog:
        assert self._root is not None
        for number in range(MOST_REPLICAS):
            try:
                return EventLog(self._root, f"gateway-{number}", self._sealing)
            except FolderTaken:
                continue
        raise ShoplensError(f"{self._root} has {MOST_REPLICAS} writers already")


def _not_durable() -> ApiError:
    message = "the events may not be logged: send them again under the same event ids"
    return unavailable("events_not_logged", message)
