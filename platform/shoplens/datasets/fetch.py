"""Fetching photos from untrusted URLs: from public addresses only, with limits on size and time.

This module resolves every host name itself and connects to the address that it checked. So a name that resolves
differently the second time (DNS rebinding) does no harm. Every redirect is checked in the same way. Proxies of the
environment are ignored, because the address behind a proxy cannot be checked.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Collection, Iterable
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

import httpcore
import httpx

from shoplens.datasets.images import MAX_BYTES
from shoplens.errors import ShoplensError

_REDIRECTS = {301, 302, 303, 307, 308}
_MAX_REDIRECTS = 5
_BUSY = {408, 425, 429}
_HOST = re.compile(r"[a-z0-9._:-]+")


class UrlRejected(ShoplensError):
    """A URL that was not fetched. `reason` is a short code, the message a sentence.

    Reasons: `url` (malformed), `url_scheme`, `url_host` (not allowed), `url_private` (not a public address),
    `url_unresolved`, `url_unreachable`, `url_timeout`, `url_busy` (status 408, 425, 429 or 5xx), `url_status`,
    `url_redirects`, `too_large`.

    `retry_after_s` is None if another try is of no use, else the seconds that the host asks to wait before it, or 0.
    """

    def __init__(self, reason: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.reason, self.retry_after_s = reason, retry_after_s

    def __reduce__(self) -> tuple[type[UrlRejected], tuple[str, str, float | None]]:
        return UrlRejected, (self.reason, str(self), self.retry_after_s)


def fetch_image(
    url: str,
    *,
    allow_hosts: Collection[str] | None = None,
    max_bytes: int = MAX_BYTES,
    timeout_s: float = 10.0,
    allow_private: bool = False,
) -> bytes:
    """The bytes of the image at `url`. A URL without a scheme, `//host/photo.jpg`, is fetched by https.

    allow_hosts     hosts that may be fetched from: `"img.shop.kr"`, or `".shop.kr"` for all its subdomains; None: any
                    public host
    timeout_s       limit in seconds for the whole fetch, redirects included; name resolution is not limited
    allow_private   allow loopback and private addresses, for a shop's own network

    Raises UrlRejected if the URL is not allowed or cannot be fetched.
    """
    deadline = time.monotonic() + timeout_s
    backend = _CheckedBackend(deadline, allow_private)
    target = _checked_url(url, allow_hosts)
    with httpcore.ConnectionPool(network_backend=backend, ssl_context=_TLS) as pool:
        for _ in range(_MAX_REDIRECTS + 1):
            try:
                body_or_location = _get(pool, target, max_bytes, deadline)
            except (httpcore.TimeoutException, TimeoutError) as error:
                raise UrlRejected(
                    "url_timeout",
                    f"{target.host} took longer than {timeout_s:g} s: try again, or raise the time limit",
                    retry_after_s=0,
                ) from error
            except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
                raise UrlRejected("url_unreachable", f"{target.host} cannot be reached ({error})", 0) from error
            if isinstance(body_or_location, bytes):
                return body_or_location
            target = _checked_url(body_or_location, allow_hosts, target)
    raise UrlRejected("url_redirects", f"the URL redirects more than {_MAX_REDIRECTS} times")


_TLS = httpx.create_ssl_context()


def _checked_url(url: str, allow_hosts: Collection[str] | None, base: httpx.URL | None = None) -> httpx.URL:
    try:
        parsed = httpx.URL(f"https:{url}" if url.startswith("//") else url) if base is None else base.join(url)
        host = parsed.raw_host.decode("ascii").lower().rstrip(".")
        port = parsed.port
    except (httpx.InvalidURL, ValueError, TypeError) as error:
        raise UrlRejected("url", f"this is not a URL ({error})") from error
    if parsed.scheme not in ("http", "https"):
        raise UrlRejected("url_scheme", f"the scheme {parsed.scheme!r} is not supported; use http or https")
    if not _HOST.fullmatch(host) or parsed.userinfo or not 0 < (port or 80) < 2**16:
        raise UrlRejected("url", "the URL must name a host, and must not contain a user or password")
    if allow_hosts is not None and not any(_names(allowed.lower(), host) for allowed in allow_hosts):
        raise UrlRejected("url_host", f"{host} is not among the allowed hosts; allow it, or use another URL")
    return parsed


def _names(allowed: str, host: str) -> bool:
    return host.endswith(allowed) if allowed.startswith(".") else host == allowed


def _get(pool: httpcore.ConnectionPool, url: httpx.URL, max_bytes: int, deadline: float) -> bytes | str:
    """The body (bytes) of a response with status 200, or the target (str) of a redirect."""
    left = max(0.001, deadline - time.monotonic())
    request = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    headers = [
        (b"Host", url.netloc),
        (b"Accept", b"image/*"),
        (b"Accept-Encoding", b"identity"),
        (b"User-Agent", b"shoplens"),
    ]
    timeout = {"connect": left, "read": left, "write": left, "pool": left}
    with pool.stream("GET", request, headers=headers, extensions={"timeout": timeout}) as answer:
        fields = {name.lower(): value for name, value in answer.headers}
        if answer.status in _REDIRECTS and b"location" in fields:
            return _text_of(fields[b"location"])
        if answer.status in _BUSY or answer.status >= 500:
            wait_s = _seconds(fields.get(b"retry-after", b""))
            raise UrlRejected("url_busy", f"{url.host} answered with status {answer.status}: try again later", wait_s)
        if answer.status != 200:
            raise UrlRejected("url_status", f"{url.host} answered with status {answer.status}: check the URL")
        declared = fields.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > max_bytes:
            raise UrlRejected("too_large", f"the image has more than {max_bytes} bytes")
        body = bytearray()
        for piece in answer.iter_stream():
            body += piece
            if len(body) > max_bytes:
                raise UrlRejected("too_large", f"the image has more than {max_bytes} bytes")
        return bytes(body)


def _text_of(location: bytes) -> str:
    """A redirect's target as text. Bytes that are not UTF-8 are sent back as they came, percent-encoded."""
    try:
        return location.decode()
    except UnicodeDecodeError:
        return "".join(chr(byte) if byte < 0x80 else f"%{byte:02X}" for byte in location)


def _seconds(retry_after: bytes) -> float:
    """The seconds of a `Retry-After` header: a number, or a date (RFC 9110, 10.2.3). 0 if it is neither."""
    text = retry_after.decode("latin-1").strip()
    if text.isdecimal():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    if date.tzinfo is None:  # a zone of -0000
        date = date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - datetime.now(timezone.utc)).total_seconds())


class _CheckedBackend(httpcore.NetworkBackend):
    """Network backend that connects only to checked addresses, with one deadline for the whole fetch."""

    def __init__(self, deadline: float, allow_private: bool) -> None:
        self._deadline, self._allow_private = deadline, allow_private
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = _resolve(host, port)
        if not self._allow_private and not all(is_public(address) for address in addresses):
            raise UrlRejected(
                "url_private", f"{host} is not a public address; images are fetched from public addresses only"
            )
        refused: httpcore.ConnectError | None = None
        for address in addresses:
            try:
                left = _left(self._deadline)
                stream = self._inner.connect_tcp(address, port, left, local_address, socket_options)
                return _TimedStream(stream, self._deadline)
            except httpcore.ConnectError as error:
                refused = error
        raise refused or UrlRejected("url_unresolved", f"the name {host} does not resolve; check its spelling")


class _TimedStream(httpcore.NetworkStream):
    """A connection on which every read and write ends at the deadline, even if bytes arrive slowly."""

    def __init__(self, inner: httpcore.NetworkStream, deadline: float) -> None:
        self._inner, self._deadline = inner, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _left(self._deadline))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _TimedStream(self._inner.start_tls(ssl_context, server_hostname, _left(self._deadline)), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time limit for this URL has passed")
    return left


def _resolve(host: str, port: int) -> list[str]:
    """The IP addresses of a host name, or of an address in any notation (`127.1`, `0x7f000001`)."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UrlRejected("url_unresolved", f"the name {host} does not resolve; check its spelling") from error
    return list(dict.fromkeys(str(place[4][0]) for place in found))


def is_public(address: str) -> bool:
    """Whether an IP address is globally routable. IPv4 addresses inside IPv6 forms are checked too."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # a scoped address, `fe80::1%eth0`, is link-local
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1]) or _nat64(ip)
        if inner:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_link_local)


def _nat64(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address in a NAT64 address (RFC 6052, 64:ff9b::/96), else None."""
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in ipaddress.ip_network("64:ff9b::/96") else None
