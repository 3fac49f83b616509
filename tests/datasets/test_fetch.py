"""Fetching photos from URLs: only public addresses, only within bounds, and the address that was checked."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import pickle
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import httpcore
import pytest

from shoplens.datasets import fetch
from shoplens.datasets.fetch import UrlRejected, fetch_image, is_public

BODY = bytes(range(256)) * 40


class Shop(http.server.BaseHTTPRequestHandler):
    hosts: list[str] = []

    def do_GET(self) -> None:
        Shop.hosts.append(self.headers["Host"])
        match self.path.split("?")[0]:
            case "/photo.jpg":
                self.answer(200, BODY)
            case "/missing.jpg":
                self.answer(404, b"")
            case "/moved.jpg":
                self.answer(302, b"", ("Location", "/photo.jpg"))
            case "/loop.jpg":
                self.answer(301, b"", ("Location", "/loop.jpg"))
            case "/inward.jpg":
                self.answer(302, b"", ("Location", "http://10.0.0.1/photo.jpg"))
            case "/file.jpg":
                self.answer(302, b"", ("Location", "file:///etc/passwd"))
            case "/busy.jpg":
                status, _, after = self.path.partition("?")[2].partition(",")
                self.answer(int(status), b"", *([("Retry-After", unquote(after))] if after else []))
            case "/moved-in-bytes.jpg":
                self.wfile.write(
                    b"HTTP/1.0 302 Found\r\nLocation: /" + bytes.fromhex(self.path.partition("?")[2]) + b".jpg\r\n\r\n"
                )
            case "/%EC%82%AC%EC%A7%84.jpg" | "/%E9t%E9.jpg" | "/%BB%E7%C1%F8.jpg":
                self.answer(200, BODY)
            case "/endless.jpg":
                self.send_response(200)
                self.end_headers()
                while True:
                    self.wfile.write(BODY)
            case "/drip.jpg":
                self.send_response(200)
                self.end_headers()
                for _ in range(100):
                    self.wfile.write(b"x")
                    time.sleep(0.05)

    def answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


class Quiet(http.server.ThreadingHTTPServer):
    def handle_error(self, *args: object) -> None: ...


@pytest.fixture(scope="module")
def shop() -> Iterator[str]:
    with Quiet(("127.0.0.1", 0), Shop) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def reason_of(url: str, **options: Any) -> str:
    with pytest.raises(UrlRejected) as refused:
        fetch_image(url, **options)
    return refused.value.reason


def test_the_bytes_come_as_they_are(shop: str) -> None:
    assert fetch_image(f"{shop}/photo.jpg?size=l", allow_private=True) == BODY
    assert fetch_image(f"{shop}/moved.jpg", allow_private=True) == BODY


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/missing.jpg", "url_status"),
        ("/loop.jpg", "url_redirects"),
        ("/endless.jpg", "too_large"),
        ("/drip.jpg", "url_timeout"),
        ("/file.jpg", "url_scheme"),
    ],
)
def test_bad_answers(shop: str, path: str, reason: str) -> None:
    started = time.monotonic()
    assert reason_of(f"{shop}{path}", allow_private=True, max_bytes=100_000, timeout_s=1.0) == reason
    assert time.monotonic() - started < 3


def test_a_declared_size_is_refused_before_it_is_read(shop: str) -> None:
    assert reason_of(f"{shop}/photo.jpg", allow_private=True, max_bytes=100) == "too_large"


@pytest.mark.parametrize(("target", "encoding"), [("사진", "utf-8"), ("사진", "euc-kr"), ("été", "latin-1")])
def test_redirects_in_any_encoding(shop: str, target: str, encoding: str) -> None:
    assert fetch_image(f"{shop}/moved-in-bytes.jpg?{target.encode(encoding).hex()}", allow_private=True) == BODY


def test_a_path_in_korean(shop: str) -> None:
    assert fetch_image(f"{shop}/사진.jpg", allow_private=True) == BODY


def test_no_scheme_means_https(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(fetch, "_resolve", lambda host, port: asked.append(port) or ["10.0.0.1"])
    assert reason_of("//cdn.shop.example/1.jpg?v=2") == "url_private"
    assert asked == [443]


IN_A_DAY = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520])
@pytest.mark.parametrize(
    ("after", "least", "most"),
    [
        ("", 0, 0),
        ("7", 7, 7),
        (format_datetime(IN_A_DAY, usegmt=True), 80_000, 86_400),
        (format_datetime(IN_A_DAY.astimezone(datetime.timezone(datetime.timedelta(hours=9)))), 80_000, 86_400),
        ("Mon, 01 Jan 2001 00:00:00 GMT", 0, 0),
        ("soon", 0, 0),
        ("-5", 0, 0),
    ],
)
def test_a_busy_host_says_when_to_come_back(shop: str, status: int, after: str, least: float, most: float) -> None:
    with pytest.raises(UrlRejected) as refused:
        fetch_image(f"{shop}/busy.jpg?{status},{quote(after)}", allow_private=True)
    assert refused.value.reason == "url_busy"
    assert refused.value.retry_after_s is not None
    assert least <= refused.value.retry_after_s <= most


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_another_try_is_of_no_use(shop: str, status: int) -> None:
    with pytest.raises(UrlRejected) as refused:
        fetch_image(f"{shop}/busy.jpg?{status},5", allow_private=True)
    assert (refused.value.reason, refused.value.retry_after_s) == ("url_status", None)


def test_nobody_answers() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        assert reason_of(f"http://127.0.0.1:{port}/", allow_private=True) == "url_unreachable"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0",
        "localhost",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:10.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fd00::1]",
        "[fe80::1]",
        "[fec0::1]",
        "[ff02::1]",
    ],
)
def test_private_addresses_in_every_spelling(host: str) -> None:
    assert reason_of(f"http://{host}/photo.jpg", timeout_s=2) in ("url_private", "url_unresolved", "url")


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::a00:1", "fe80::1%eth0", "::7f00:1"])
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", "url_scheme"),
        ("ftp://example.com/a.jpg", "url_scheme"),
        ("gopher://127.0.0.1:25/", "url_scheme"),
        ("/photo.jpg", "url_scheme"),
        ("http://", "url"),
        ("http:///photo.jpg", "url"),
        ("http://user:secret@example.com/a.jpg", "url"),
        ("http://example.com:99999/a.jpg", "url"),
        ("http://exa mple.com/", "url"),
        ("http://[::1/", "url"),
        ("http://example.com/\x00", "url"),
    ],
)
def test_what_is_no_url_to_fetch(url: str, reason: str) -> None:
    assert reason_of(url) == reason


def test_allowed_hosts(shop: str) -> None:
    allowed: dict[str, Any] = {"allow_private": True, "allow_hosts": ["127.0.0.1"]}
    assert fetch_image(f"{shop}/photo.jpg", **allowed) == BODY
    assert reason_of(f"{shop.replace('127.0.0.1', 'localhost')}/photo.jpg", **allowed) == "url_host"
    assert reason_of(f"{shop}/inward.jpg", **allowed) == "url_host"
    assert reason_of("https://evilshop.kr/a.jpg", allow_hosts=[".shop.kr", "shop.kr"]) == "url_host"
    assert reason_of("https://shop.kr.evil.com/a.jpg", allow_hosts=[".shop.kr", "shop.kr"]) == "url_host"


def test_a_redirect_inward_is_refused(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "is_public", lambda address: address == "127.0.0.1" or is_public(address))
    assert fetch_image(f"{shop}/photo.jpg") == BODY
    assert reason_of(f"{shop}/inward.jpg") == "url_private"


def test_one_private_address_among_public_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_resolve", lambda host, port: ["93.184.216.34", "127.0.0.1"])
    assert reason_of("http://two-faced.example/a.jpg") == "url_private"


def test_the_address_that_was_checked_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the name's second answer would be loopback, but there is no second question."""
    answers = iter(["93.184.216.34", "127.0.0.1"])
    connected: list[str] = []

    def resolve(host: str, port: int, **kind: object) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    def connect(self: object, host: str, *args: object) -> None:
        connected.append(host)
        raise httpcore.ConnectError("not in a test")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
    assert reason_of("http://rebind.example/a.jpg") == "url_unreachable"
    assert connected == ["93.184.216.34"]


def test_tls_is_verified_against_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = tmp_path / "shop.pem"
    certificate.write_bytes(_certificate("img.shop.example"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Quiet(("127.0.0.1", 0), Shop) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(fetch, "_resolve", lambda host, port: ["127.0.0.1"])
        url = f"https://img.shop.example:{server.server_port}/photo.jpg"
        assert reason_of(url, allow_private=True) == "url_unreachable"  # signed by nobody we trust
        monkeypatch.setattr(fetch, "_TLS", ssl.create_default_context(cafile=str(certificate)))
        assert fetch_image(url, allow_private=True) == BODY
        assert Shop.hosts[-1] == f"img.shop.example:{server.server_port}"
        assert reason_of(url.replace("img.", "other."), allow_private=True) == "url_unreachable"
        server.shutdown()


def _certificate(name: str) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def test_the_refusal_pickles() -> None:
    again = pickle.loads(pickle.dumps(UrlRejected("url_busy", "no", 5)))
    assert (again.reason, str(again), again.retry_after_s) == ("url_busy", "no", 5)


def test_every_special_network_is_refused() -> None:
    """IANA's special-purpose registries, one address of each block that is not globally reachable."""
    for block in [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.2.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "240.0.0.0/4",
        "255.255.255.255/32",
        "::1/128",
        "::/128",
        "100::/64",
        "2001:db8::/32",
        "fc00::/7",
        "fe80::/10",
    ]:
        network = ipaddress.ip_network(block)
        assert not is_public(str(network[0])), block
        assert not is_public(str(network[-1])), block
