"""GET as HTTP means it (RFC 9110): HEAD for whatever GET answers, and 304 for a copy that the client has."""

from __future__ import annotations

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_TAG = re.compile(r'(?:W/)?("[^"]*")')


class Retrieval:
    """ASGI middleware. HEAD is answered as GET without the body. A 200 whose ETag is in If-None-Match becomes a 304."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, _allowing_head(send))
            return
        known = ",".join(Headers(scope=scope).getlist("if-none-match"))
        bare = scope["method"] == "HEAD"

        async def send_bare(message: Message) -> None:
            nonlocal bare
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if message["status"] == 200 and has_copy(known, headers.get("etag")):
                    message["status"], bare = 304, True
                    for name in ("content-length", "content-type"):
                        del headers[name]
            elif message["type"] == "http.response.body" and bare:
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET"}, receive, _allowing_head(send_bare))


def has_copy(if_none_match: str, etag: str | None) -> bool:
    """Whether the header names this ETag, in a list too, or `*`. Compared weakly: `W/"x"` is `"x"`."""
    if etag is None or not if_none_match:
        return False
    return if_none_match.strip() == "*" or etag.removeprefix("W/") in _TAG.findall(if_none_match)


def _allowing_head(send: Send) -> Send:
    async def send_allowing(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            allowed = headers.get("allow", "").split(", ")
            if "GET" in allowed and "HEAD" not in allowed:
                headers["allow"] = ", ".join([*allowed, "HEAD"])
        await send(message)

    return send_allowing
