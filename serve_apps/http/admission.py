"""Admission of requests: the size of a body, the number of requests at the same time, headers of every answer."""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_apps.http.compression import Inflater, inflater
from serve_apps.http.errors import ApiError, unavailable
from serve_apps.settings import Limits

NOT_LIMITED = ("/healthz",)
"""Paths that answer at any load."""


class Admission:
    """ASGI middleware. Refuses with 413 (body too large), 408 (body too slow), 503 (too many requests or bytes).

    A body counts as it comes, and a compressed one as what it becomes: nobody holds room by an announcement.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits
        self._requests = 0
        self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Content-Type-Options"] = "nosniff"
            await send(message)

        try:
            self._check_length(Headers(scope=scope))
        except ApiError as error:
            await error.response()(scope, receive, send_guarded)
            return
        if scope["path"] in NOT_LIMITED:
            await self._app(scope, receive, send_guarded)
            return
        if self._requests >= self._limits.requests:
            await self._busy().response()(scope, receive, send_guarded)
            return
        body = _Body(receive, Headers(scope=scope), self._limits, self._hold)
        self._requests += 1
        try:
            await self._app(scope, body, send_guarded)
        finally:
            self._requests -= 1
            self._bytes -= body.size

    def _check_length(self, headers: Headers) -> None:
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18:
            raise ApiError(400, "invalid_header", "Content-Length is not a number")
        if int(length) > self._limits.body_bytes:
            raise too_large(self._limits)

    def _hold(self, size: int) -> None:
        if self._bytes + size > self._limits.bytes_in_flight:
            raise self._busy()
        self._bytes += size

    def _busy(self) -> ApiError:
        return unavailable("overloaded", f"{self._requests} requests are being answered; try again shortly")


class _Body:
    """`receive` with decompression, a byte count and a deadline until the body is complete.

    `hold` takes the bytes of each piece into account, or raises ApiError; `size` is the sum of those that it took.
    """

    def __init__(self, receive: Receive, headers: Headers, limits: Limits, hold: Callable[[int], None]) -> None:
        self._receive, self._headers, self._limits, self._hold = receive, headers, limits, hold
        self.size = 0
        self._begun = self._whole = False
        self._inflate: Inflater | None = None
        self._deadline = time.monotonic() + limits.body_deadline_s

    async def __call__(self) -> Message:
        if self._whole:
            return await self._receive()
        try:
            with anyio.fail_after(self._deadline - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            seconds = self._limits.body_deadline_s
            raise ApiError(408, "body_too_slow", f"the body did not come within {seconds:g} s") from None
        if message["type"] == "http.request":
            self._whole = not message.get("more_body", False)
            data = await self._plain(message.get("body", b""))
            if self.size + len(data) > self._limits.body_bytes:
                raise too_large(self._limits)
            self._hold(len(data))
            self.size += len(data)
            message = {**message, "body": data}
        return message

    async def _plain(self, piece: bytes) -> bytes:
        """The piece, decompressed. Raises ApiError 400, 415."""
        if not self._begun:
            self._begun = True
            self._inflate = inflater(self._headers, self._limits.body_bytes)
        if self._inflate is None:
            return piece
        return await anyio.to_thread.run_sync(self._inflate, piece, self._whole)


def too_large(limits: Limits) -> ApiError:
    return ApiError(413, "body_too_large", f"the body has more than {limits.body_bytes} bytes; send less at a time")
