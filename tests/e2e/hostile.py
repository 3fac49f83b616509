"""Requests that must be answered 4xx with a reason: made by rule, not by hand, so that none is forgotten."""
# ruff: noqa: E501

from __future__ import annotations

import base64
import gzip
import io
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Attack:
    name: str
    path: str
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON))
    method: str = "POST"


def photo(kind: str = "JPEG", side: int = 96, seed: int = 0, **options: Any) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(out, kind, **options)
    return out.getvalue()


def data_uri(data: bytes, kind: str = "image/jpeg") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def attacks() -> Iterator[Attack]:
    yield from _not_json()
    yield from _media_types()
    yield from _wrong_values()
    yield from _bad_photos()
    yield from _urls()
    yield from _gets()


def _not_json() -> Iterator[Attack]:
    bodies: dict[str, bytes] = {
        "nothing": b"",
        "half": b'{"model": "eclip", "input": "dr',
        "open brace": b"{",
        "garbage after": b'{"model":"eclip","input":"x"} and more',
        "two objects": b"{}{}",
        "single quotes": b"{'model':'eclip','input':'x'}",
        "not a number": b'{"model":"eclip","input":"x","dimensions":NaN,"k":NaN}',
        "infinity": b'{"model":"eclip","input":"x","dimensions":Infinity,"k":-Infinity}',
        "invalid utf-8": b'{"model":"eclip","input":"\xff\xfe","text":"\xc3\x28"}',
        "utf-16": '{"model":"eclip","input":"x"}'.encode("utf-16"),
        "lone surrogate": b'{"model":"eclip","input":"\\ud800","text":"\\udfff"}',
        "raw control character": b'{"model":"eclip","input":"a\x00b","text":"\x01"}',
        "deep array": b"[" * 200_000,
        "deep and closed": b"[" * 50_000 + b"]" * 50_000,
        "deep object": b'{"input":' * 100_000,
        "deep field": b'{"text":"x","model":"eclip","input":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        "huge integer": b'{"text":"x","k":' + b"9" * 100_000 + b',"dimensions":' + b"9" * 100_000 + b"}",
        "huge exponent": b'{"text":"x","k":1e999999,"dimensions":1e999999}',
        "array": b"[1,2,3]",
        "string": b'"eclip"',
        "number": b"7",
        "true": b"true",
        "null": b"null",
        "xml": b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>",
        "gzip": zlib.compress(b'{"model":"eclip","input":"x"}'),
    }
    for path in ("/v1/embeddings", "/v1/similar", "/v1/attributes", "/v1/captions", "/v1/events"):
        for name, body in bodies.items():
            yield Attack(f"{path} {name}", path, body)


def _media_types() -> Iterator[Attack]:
    good = b'{"model":"eclip","input":"x"}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml", "", "json", "a" * 500):
        yield Attack(f"type {kind[:40]!r}", "/v1/embeddings", good, {"content-type": kind})
    for coding in ("br", "zstd", "gzip, br", "compress", "gzip"):
        yield Attack(f"content-encoding {coding}", "/v1/embeddings", good, {**JSON, "content-encoding": coding})
    bomb = {**JSON, "content-encoding": "gzip"}
    yield Attack("gzip bomb", "/v1/embeddings", gzip.compress(b" " * (65 * 2**20)), bomb)
    yield Attack("similar as a form", "/v1/similar", b"text=x", {"content-type": "application/x-www-form-urlencoded"})

    def form(name: str, body: bytes, kind: str = "multipart/form-data; boundary=b") -> Attack:
        return Attack(f"form {name}", "/v1/embeddings", body, {"content-type": kind})

    def part(name: str, value: bytes, filename: str | None = None) -> bytes:
        file = f'; filename="{filename}"' if filename is not None else ""
        return f'--b\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + value + b"\r\n"

    end = b"--b--\r\n"
    model = part("model", b"eclip")
    yield form("without boundary", model + end, "multipart/form-data")
    yield form("empty", b"")
    yield form("no parts", end)
    yield form("cut", model + part("input", b"x")[:30])
    yield form("no inputs", model + end)
    yield form("no model", part("input", b"x") + end)
    yield form("unknown field", model + part("input", b"x") + part("k", b"3") + end)
    yield form("model twice", model + model + part("input", b"x") + end)
    yield form("image as text", model + part("image", photo()) + end)
    yield form("text as file", model + part("input", b"x", "x.txt") + end)
    yield form("image truncated", model + part("image", photo()[:700], "x.jpg") + end)
    yield form("image empty", model + part("image", b"", "x.jpg") + end)
    yield form("too many", model + b"".join(part("input", b"x") for _ in range(3000)) + end)
    yield Attack(
        "attributes as a form", "/v1/attributes", b"text=x", {"content-type": "application/x-www-form-urlencoded"}
    )
    for name, body in {
        "no parts": end,
        "image as text": part("image", photo()) + end,
        "two images": part("image", photo(), "x.jpg") * 2 + end,
        "keys not json": part("text", b"x") + part("keys", b"colour") + end,
        "keys deep": part("text", b"x") + part("keys", b"[" * 100_000) + end,
        "unknown field": part("text", b"x") + part("k", b"3") + end,
    }.items():
        kind = {"content-type": "multipart/form-data; boundary=b"}
        yield Attack(f"attributes form {name}", "/v1/attributes", body, kind)
    yield form("part without name", model + b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + end)


def _wrong_values() -> Iterator[Attack]:
    for value in (
        None, 1, True, [], {}, "", "x" * 1000, "nope", "eclip@nope", "eclip@", "eclip/0", "eclip/-1", "eclip/1.5",
        "eclip/99999999", "eclip/999999999999999999999", "../../etc/passwd", "models:/eclip@champion", "eclip\x00", "🛒",
    ):  # fmt: skip
        yield _json("/v1/embeddings", f"model {value!r:.30}", {"model": value, "input": "x"})
    for value in (
        None, 1, 1.5, True, {}, [], "", "   ", "x" * 100_000, [None], [[]], [["x"]], [1, 2, 3], [""], ["x"] * 3000, [{}],
        [{"type": "text"}], [{"type": "text", "text": None}], [{"type": "text", "text": "x", "more": 1}],
        [{"type": "image_url"}], [{"type": "image_url", "image_url": "data:"}], [{"type": "image_url", "image_url": {}}],
        [{"type": "image_url", "image_url": {"url": 3}}], [{"type": "product"}], [{"type": "product", "product_id": 3}],
        [{"type": "product", "product_id": ""}], [{"type": "product", "product_id": "no such product"}],
        [{"type": "product", "product_id": "../../../etc/passwd"}], [{"type": "video", "url": "x"}], [{"type": None}],
        [{"type": {"a": 1}}], {"type": "text", "text": "x"},
    ):  # fmt: skip
        yield _json("/v1/embeddings", f"input {value!r:.40}", {"model": "eclip", "input": value})
    for name, value in (("encoding_format", "int8"), ("encoding_format", 1), ("dimensions", 3), ("dimensions", -1),
                        ("dimensions", "256"), ("user", 7), ("no_such_field", 1)):  # fmt: skip
        yield _json("/v1/embeddings", f"{name} {value}", {"model": "eclip", "input": "x", name: value})
    for value in (0, -1, 1001, 10**9, 10**30, 1.5, "10", True, [], {}):
        yield _json("/v1/similar", f"k {value!r:.20}", {"text": "x", "k": value})
    nan, infinite = float("nan"), float("inf")
    for price in (-1, "cheap", [], {"min": -1}, {"max": -0.01}, {"min": "1"}, {"min": 5, "max": 4}, {"min": nan},
                  {"max": nan}, {"max": infinite}, {"min": True}, {"low": 1}):  # fmt: skip
        yield _json("/v1/similar", f"price {price!r}", {"text": "x", "price": price})
    for fields in (
        {}, {"text": ""}, {"text": " \n"}, {"text": 3}, {"text": ["x"]}, {"text": "x" * 100_000}, {"text": None},
        {"text": "x", "product_id": "y"}, {"text": "x", "image": "y"}, {"product_id": 3}, {"product_id": ""},
        {"product_id": "x" * 300}, {"product_id": "no such product"}, {"product_id": "' OR 1=1 --"},
        {"image": ""}, {"image": 3}, {"image": "AAAA"}, {"text": "x", "category": "no such category"},
        {"text": "x", "category": 3}, {"text": "x", "category": ""}, {"text": "x", "exclude_catalog": 1},
        {"text": "x", "exclude_catalog": True}, {"text": "x", "model": "eclip@nope"}, {"text": "x", "model": "eclip/777"},
        {"text": "x", "model": 3}, {"text": "x", "offset": 3}, {"text": "x", "attributes": {"colour": 3}},
        {"text": "x", "attributes": [["colour", "red"]]}, {"text": "x", "attributes": {str(n): "x" for n in range(999)}},
        {"text": "x", "attributes": {"": "red"}}, {"text": "x", "in_stock": 1}, {"text": "x", "cheapest": "no"},
        {"text": "x", "photo_cap": 0}, {"text": "x", "photo_cap": 1e300}, {"text": "x", "widening": {"rings": -1}},
        {"text": "x", "widening": {"rings": 10**40, "margin": -1}}, {"text": "x", "widening": {"floor": nan}},
        {"text": "x", "widening": {"margin": infinite}}, {"text": "x", "widening": []}, {"text": "x", "user": "x" * 257},
        {"text": "x", "user": {}},
    ):  # fmt: skip
        yield _json("/v1/similar", f"fields {fields!r:.50}", fields)
    for fields in (
        {}, {"text": ""}, {"text": " \n"}, {"text": 3}, {"text": "x" * 100_000}, {"text": None}, {"text": ["x"]},
        {"image": 3}, {"image": ""}, {"image": "AAAA"}, {"product_id": ""}, {"product_id": "no such product"},
        {"image": data_uri(photo()), "product_id": "y"}, {"text": "x", "model": "eclip@nope"}, {"text": "x", "model": 3},
        {"text": "x", "category": "no such category"}, {"text": "x", "category": ""}, {"text": "x", "category": 3},
        {"text": "x", "category": "x" * 3000}, {"text": "x", "no_such_field": 1},
    ):  # fmt: skip
        yield _json("/v1/attributes", f"fields {fields!r:.50}", fields)
    for keys in (
        [], {}, "colour", 3, True, [3], [[]], [""], ["no such key"], ["x" * 300], ["colour"] * 300, {"": ["a", "b"]},
        {"mood": []}, {"mood": ["a"]}, {"mood": ["a", "a"]}, {"mood": ["a", 3]}, {"mood": "a"}, {"mood": {"a": "b"}},
        {"mood": ["a", "x" * 300]}, {"mood": ["a", ""]}, {"mood": ["a", " "]}, {"no such key": None},
        {"mood": [str(i) for i in range(3000)]}, {str(i): ["a", "b"] for i in range(300)}, {"{0.__class__}": None},
    ):  # fmt: skip
        yield _json("/v1/attributes", f"keys {keys!r:.50}", {"text": "x", "keys": keys})


def _json(path: str, name: str, body: Any) -> Attack:
    return Attack(f"{path} {name}", path, json.dumps(body).encode())


def _bad_photos() -> Iterator[Attack]:
    photos: dict[str, bytes] = {
        "empty": b"",
        "one byte": b"\xff",
        "random": np.random.default_rng(1).bytes(5000),
        "text": b"this is not a photo",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "html": b"<script>alert(1)</script>",
        "pdf": b"%PDF-1.7 " + b"x" * 500,
        "zip": b"PK\x03\x04" + b"\0" * 500,
        "tiff": photo("TIFF"),
        "bomb png": _flat_png(20_000, 20_000),
        "bomb wide": _flat_png(2**31 - 1, 1),
        "zero pixels": _flat_png(0, 0),
        "huge jpeg header": _jpeg_claiming(65_500, 65_500),
        "png of one chunk": photo("PNG")[:33],
        "png with a bad crc": _damaged(photo("PNG"), 60),
        "too many bytes": photo() + b"\0" * (33 * 2**20),
    }
    for kind in ("JPEG", "PNG", "WEBP", "AVIF", "BMP"):
        whole = photo(kind, 128)
        for tenths in (1, 3, 5, 7, 9):
            photos[f"{kind} cut at {tenths}/10"] = whole[: len(whole) * tenths // 10]
    for name, data in photos.items():
        yield _json("/v1/embeddings", f"photo {name}", _photo_input(data_uri(data)))
        if name != "too many bytes":
            yield _json("/v1/similar", f"photo {name}", {"image": data_uri(data)})
            yield _json("/v1/attributes", f"photo {name}", {"image": data_uri(data), "text": "x"})
    good = data_uri(photo())
    for name, uri in {
        "no base64": "data:image/jpeg,abc",
        "bad base64": "data:image/jpeg;base64,@@@@",
        "base64 cut": good[:-3],
        "html type": good.replace("image/jpeg", "text/html"),
        "no comma": "data:image/jpeg;base64",
        "just data:": "data:",
        "many parameters": "data:image/jpeg" + ";a=b" * 10_000 + ";base64,AAAA",
    }.items():
        yield _json("/v1/embeddings", f"data uri {name}", _photo_input(uri))
    mixed = {
        "model": "eclip",
        "input": ["x", {"type": "image_url", "image_url": {"url": data_uri(photo()[:400])}}],
    }
    yield _json("/v1/embeddings", "one bad photo among good inputs", mixed)
    body = json.dumps(_photo_input("data:image/jpeg;base64," + "A" * (65 * 2**20))).encode()
    yield Attack("a body above the limit", "/v1/embeddings", body)


def _photo_input(url: str) -> dict[str, Any]:
    return {"model": "eclip", "input": [{"type": "image_url", "image_url": {"url": url}}]}


def _flat_png(width: int, height: int) -> bytes:
    """A 1-bit PNG that says it has so many pixels, in a few kB."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = zlib.compress(b"\0" * min(50_000_000, (width // 8 + 1) * height), 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(photo())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def _damaged(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def _urls() -> Iterator[Attack]:
    hosts = (
        "127.0.0.1", "127.0.0.1:8000", "localhost:8265", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0",
        "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254/latest/meta-data", "100.64.0.1", "[::1]:8000", "[::]",
        "[::ffff:127.0.0.1]", "[fe80::1]", "[fc00::1]", "[64:ff9b::7f00:1]", "metadata.google.internal", "example.invalid",
        "user:password@127.0.0.1", "", "a..b", "x" * 300 + ".com", "127.0.0.1:0", "127.0.0.1:99999",
    )  # fmt: skip
    for host in hosts:
        yield _json("/v1/embeddings", f"url http://{host[:40]}", _photo_input(f"http://{host}"))
    for url in ("file:///etc/passwd", "ftp://127.0.0.1/x.jpg", "gopher://127.0.0.1:6379/_INFO", "dict://127.0.0.1/",
                "javascript:alert(1)", "//127.0.0.1/x.jpg", "/etc/passwd", "C:\\x.jpg", "https://", "http://\n", "",
                "https://127.0.0.1:6379", "HTTP://[::1]/", "s3://bucket/key", "blob:http://x/y"):  # fmt: skip
        yield _json("/v1/embeddings", f"url {url!r}", _photo_input(url))
        yield _json("/v1/similar", f"url {url!r}", {"image": url})
        yield _json("/v1/attributes", f"url {url!r}", {"image": url})


def _gets() -> Iterator[Attack]:
    def get(path: str, method: str = "GET") -> Attack:
        return Attack(f"{method} {path[:60]}", path, b"", {}, method)

    odd = ("no-such-id", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "%00", "%ff%fe", "x" * 2000,
           quote("상품"), "*", "%25252e", "a/b/c", "'%20OR%201=1")  # fmt: skip
    for item in odd:
        yield get(f"/v1/products/{item}")
        yield get(f"/v1/images/{item}")
    for query in ("limit=0", "limit=-1", "limit=1001", f"limit={10**30}", "limit=abc", "limit=1.5", "offset=-1",
                  f"offset={10**30}", "offset=", "price_min=nan", "price_min=inf", "price_max=-1", "price_min=a",
                  "price_min=5&price_max=4", "category=no-such-category", "category=" + "x" * 300, "model=nope",
                  "model=eclip%2F777", "model=..%2F..", "category=%00"):  # fmt: skip
        yield get(f"/v1/products?{query}")
    yield get("/v1/images/x?dataset=000000000000")
    yield get("/v1/images/x?dataset=../../etc")
    yield get("/v1/categories?model=nope")
    for path in ("/nope", "/v1", "/v1/", "/v2/embeddings", "/static/../gateway.py", "/static/%2e%2e/gateway.py", "/static/",
                 "/static/nope.js", "/.env", "/admin"):  # fmt: skip
        yield get(path)
    yield get("/v1/embeddings")
    yield get("/v1/similar")
    yield get("/v1/attributes")
    yield get("/v1/captions")
    yield get("/v1/products", "POST")
    yield get("/v1/products/x", "DELETE")
    yield get("/healthz", "PUT")
