"""Admission of requests: the size of a body, the number of requests at the same time, headers of every answer."""

from __future__ import annotations

import time

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_apps.http.errors import ApiError, unavailable
from serve_apps.settings import Limits

NOT_LIMITED = ("/healthz",)
"""Paths that answer at any load."""


class Admission:
    """ASGI middleware. Refuses with 413 (body too large), 408 (body too slow), 503 (too many requests or bytes)."""

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
            declared = self._declared(scope)
        except ApiError as error:
            await error.response()(scope, receive, send_guarded)
            return
        if scope["path"] in NOT_LIMITED:
            await self._app(scope, receive, send_guarded)
            return
        limits = self._limits
        if self._requests >= limits.requests or self._bytes + declared > limits.bytes_in_flight:
            busy = unavailable("overloaded", f"{self._requests} requests are being answered; try again shortly")
            await busy.response()(scope, receive, send_guarded)
            return
        body = _Body(receive, limits)
        self._requests += 1
        self._bytes += declared
        try:
            await self._app(scope, body, send_guarded)
        finally:
            self._requests -= 1
            self._bytes -= declared

    def _declared(self, scope: Scope) -> int:
        """Bytes of the body by the Content-Length header; the limit if there is no such header (chunked)."""
        headers = Headers(scope=scope)
        length = headers.get("content-length")
        if length is None:
            return self._limits.body_bytes if "transfer-encoding" in headers else 0
        if not length.isdecimal() or len(length) > 18:
            raise ApiError(400, "invalid_header", "Content-Length is not a number")
        if int(length) > self._limits.body_bytes:
            raise too_large(self._limits)
        return int(length)


class _Body:
    """`receive` with a byte count and a deadline until the body is complete."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive, self._limits = receive, limits
        self._seen = 0
        self._whole = False
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
            self._seen += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            if self._seen > self._limits.body_bytes:
                raise too_large(self._limits)
        return message


def too_large(limits: Limits) -> ApiError:
    return ApiError(413, "body_too_large", f"the body has more than {limits.body_bytes} bytes; send less at a time")
