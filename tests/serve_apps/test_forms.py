"""The forms in which clients send their requests: compressed, with nulls, as HEAD, with categories by any name."""

from __future__ import annotations

import base64
import gzip
import json
import unicodedata
import zlib
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from serve_apps.endpoints.attributes import AttributesRequest
from serve_apps.endpoints.captions import CaptionRequest
from serve_apps.endpoints.embeddings import EmbeddingRequest
from serve_apps.endpoints.events import EventsRequest
from serve_apps.endpoints.rank import RankRequest
from serve_apps.endpoints.similar import SimilarRequest
from serve_apps.http.inputs import Strict
from serve_apps.http.parsing import MAX_VALUES, parse
from serve_apps.release import Release
from serve_apps.settings import Limits
from shoplens.datasets.format import Dataset
from tests.serve_apps.conftest import jpeg, make_index, refused
from tests.serve_apps.test_api import Service, error, running

__all__ = ["running"]

JSON = {"content-type": "application/json"}
EVENT = {"time": "2026-03-01T09:30:00Z", "kind": "click", "user_id": "u", "product_id": "p", "request_id": "r"}
LEAST: list[tuple[type[Strict], dict[str, Any], list[str]]] = [
    (EmbeddingRequest, {"model": "eclip", "input": "x"}, []),
    (AttributesRequest, {"text": "x"}, []),
    (RankRequest, {"topic": {"name": "x"}, "images": ["x"]}, ["topic"]),
    (CaptionRequest, {"image": "x"}, []),
    (SimilarRequest, {"text": "x"}, []),
    (SimilarRequest, {"text": "x", "price": {}}, ["price"]),
    (SimilarRequest, {"text": "x", "widening": {}}, ["widening"]),
    (EventsRequest, {"events": [EVENT]}, ["events", 0]),  # type: ignore[list-item]
]
"""A request with the fields that it must have, and the part of it to which optional fields are added."""


@pytest.mark.parametrize(("model", "least", "part"), LEAST)
def test_null_for_any_optional_field_is_as_if_it_were_left_out(
    model: type[Strict], least: Any, part: list[Any]
) -> None:
    expected = parse(model, json.dumps(least).encode())
    where: Any = expected
    tree = json.loads(json.dumps(least))
    given = tree
    for step in part:
        where, given = (where[step] if isinstance(step, int) else getattr(where, step)), given[step]
    optional = {name for name, field in type(where).model_fields.items() if not field.is_required()} - given.keys()
    assert optional
    given.update(dict.fromkeys([*optional, "a field of another version"]))
    found = parse(model, json.dumps(tree).encode())
    assert found.model_dump(exclude={"events": {0: {"event_id"}}}) == expected.model_dump(
        exclude={"events": {0: {"event_id"}}}
    )


def test_a_byte_order_mark_is_skipped_and_another_encoding_is_told() -> None:
    body = '{"model": "eclip", "input": "빨간 원피스"}'
    assert parse(EmbeddingRequest, body.encode("utf-8-sig")).input == "빨간 원피스"
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        told = refused(EmbeddingRequest, body.encode(encoding))
        assert (told.code, encoding[:6].upper() in told.message, "UTF-8" in told.message) == (
            "invalid_json",
            True,
            True,
        )
    assert "is not UTF-8" in refused(EmbeddingRequest, body.encode("cp949")).message


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (EmbeddingRequest, b'{"model":"eclip","input":[' + b'{"type":0},' * 99_999 + b"0]}"),
        (RankRequest, b'{"topic":{"name":"x"},"images":[' + b"0," * 499_999 + b"0]}"),
        (EventsRequest, b'{"events":[' + b"{}," * 9_999 + b"{}]}"),
        (SimilarRequest, b'{"text":"a",' + b",".join(b'"%x":0' % i for i in range(110_000)) + b"}"),
        (SimilarRequest, b'{"text":"a","widening":{' + b",".join(b'"%x":0' % i for i in range(99_999)) + b"}}"),
        (SimilarRequest, b'{"text":"a","attributes":{' + b",".join(b'"%x":0' % i for i in range(99_999)) + b"}}"),
        (AttributesRequest, b'{"text":"a","keys":{' + b",".join(b'"%x":0' % i for i in range(99_999)) + b"}}"),
        (EmbeddingRequest, b'{"model":"eclip","input":[' + b"[]," * MAX_VALUES + b"[]]}"),
    ],
)
def test_few_faults_are_collected_of_many(model: type[Strict], body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    from serve_apps.http import parsing

    counted: list[int] = []
    tell = parsing.invalid
    monkeypatch.setattr(
        parsing, "invalid", lambda fault, place: counted.append(fault.error_count()) or tell(fault, place)
    )
    refused(model, body)
    assert sum(counted) <= 5


def test_bodies_may_be_compressed_up_to_the_limit(running: Any) -> None:
    body = json.dumps({"model": "eclip", "input": "red dress"}).encode()
    most = 1000
    raw = zlib.compressobj(wbits=-15)

    async def ask(service: Service, coding: str, content: bytes) -> httpx.Response:
        return await service.http.post("/v1/embeddings", content=content, headers={**JSON, "content-encoding": coding})

    async def check(service: Service) -> None:
        await service.promote(Release("eclip", "eclip/1"))
        plain = (await service.post({"model": "eclip", "input": "red dress"})).json()
        for coding, content in (
            ("gzip", gzip.compress(body)),
            ("X-GZIP", gzip.compress(body)),
            ("deflate", zlib.compress(body)),
            ("identity", body),
            ("", body),
            (" gzip , identity", gzip.compress(body)),
        ):
            assert (await ask(service, coding, content)).json() == plain, coding
        files = {"model": (None, "eclip"), "input": (None, "red dress")}
        form = service.http.build_request("POST", "/v1/embeddings", files=files)
        headers = {"content-type": form.headers["content-type"], "content-encoding": "gzip"}
        content = gzip.compress(await form.aread())
        assert (await service.http.post("/v1/embeddings", content=content, headers=headers)).json() == plain
        for coding in ("br", "zstd", "compress", "gzip, br", "gzip, gzip"):
            answer = await ask(service, coding, body)
            assert error(answer) == (415, "unsupported_encoding")
            assert "Content-Encoding" in answer.json()["error"]["message"]
        for content in (
            body,
            gzip.compress(body)[:-9],
            gzip.compress(body) + b"more",
            raw.compress(body) + raw.flush(),
            b"",
        ):
            assert error(await ask(service, "gzip", content)) == (400, "invalid_encoding"), content
        padded = body + b" " * (most - len(body))
        assert (await ask(service, "gzip", gzip.compress(padded))).status_code == 200
        assert error(await ask(service, "gzip", gzip.compress(padded + b" "))) == (413, "body_too_large")
        assert error(await ask(service, "gzip", gzip.compress(b" " * 2**24))) == (413, "body_too_large")
        assert (await service.post({"model": "eclip", "input": "red dress"})).json() == plain

    running(check, limits=Limits(body_bytes=most, bytes_in_flight=most))


def test_head_is_get_without_the_body(running: Any, package: Path, shop: Dataset, tmp_path: Path) -> None:
    release = Release("eclip", "eclip/1", str(make_index(tmp_path / "index", package, shop, 1)), "a")

    async def check(service: Service) -> None:
        await service.promote(release)
        image = (await service.http.get("/v1/products?limit=1")).json()["data"][0]["image"]
        for path in (
            *("/", "/healthz", "/v1/models", "/openapi.json", "/docs", "/static/app.js", "/v1/categories", image),
            *("/v1/products?limit=2", "/v1/products/p1", "/v1/experiment", "/v1/products/nope", "/nope", "/v1/similar"),
        ):
            full, head = await service.http.get(path), await service.http.head(path)
            assert (head.status_code, head.content) == (full.status_code, b""), path
            assert head.headers == full.headers, path
            assert int(head.headers["content-length"]) == len(full.content) > 0, path
        refusal = await service.http.delete("/healthz")
        assert (refusal.status_code, refusal.headers["allow"]) == (405, "GET, HEAD")
        assert (await service.http.get("/v1/similar")).headers["allow"] == "POST"

        for path in (image, "/", "/static/app.js"):
            tag = (await service.http.get(path)).headers["etag"]
            for header in (tag, f"W/{tag}", f'"x", {tag}', f'W/"x",W/{tag}', "*"):
                for ask in (service.http.get, service.http.head):
                    answer = await ask(path, headers={"if-none-match": header})
                    assert (answer.status_code, answer.content) == (304, b""), (path, header)
                    assert answer.headers["etag"] == tag
            assert (await service.http.get(path, headers={"if-none-match": '"x", W/"y"'})).status_code == 200

    running(check, search=True)


def test_categories_are_named_in_any_way_and_unknown_filters_are_told(
    running: Any, package: Path, shop: Dataset, tmp_path: Path
) -> None:
    release = Release("eclip", "eclip/1", str(make_index(tmp_path / "index", package, shop, 1)), "a")

    async def check(service: Service) -> None:
        await service.promote(release)
        find = lambda **fields: service.http.post("/v1/similar", json={"text": "x", "k": 50, **fields})  # noqa: E731
        expected = {
            name for name, n in zip(shop.products["product_id"].to_pylist(), range(24), strict=True) if n // 2 % 3 == 1
        }
        for named in ("clothing/jeans", "Clothing > Jeans", "clothing>JEANS", " Jeans ", "jeans", "Ｊｅａｎｓ"):
            found = (await find(category=named, cheapest=False)).json()["data"]
            assert {product["product_id"] for product in found} == expected, named
            assert (await service.http.get("/v1/products", params={"category": named})).json()["total"] == 8
        for answer in (await find(category="Jaens"), await service.http.get("/v1/products?category=Jaens")):
            assert error(answer) == (404, "category_not_found")
            assert "Jeans" in answer.json()["error"]["message"]

        assert len((await find(attributes={"color": "red"}, cheapest=False)).json()["data"]) == 24
        assert len((await find(attributes={" color": "red ", "size": None}, cheapest=False)).json()["data"]) == 24
        for wish, near in (
            ({"Color": "red"}, "did you mean color?"),
            ({"colour": "red"}, "did you mean color?"),
            ({"farbe": "red"}, "there is color"),
            ({"color": "Red"}, "did you mean red?"),
            ({"color": "mint"}, "there is red"),
        ):
            answer = await find(attributes=wish)
            assert error(answer) == (404, "attribute_not_found")
            assert answer.json()["error"]["param"] == f"attributes.{next(iter(wish))}"
            assert near in answer.json()["error"]["message"]

    running(check, search=True)


def test_photos_come_as_base64_in_any_writing(running: Any) -> None:
    photo = jpeg(3)
    plain = base64.b64encode(photo).decode()
    lines = base64.encodebytes(photo).decode()
    bare = base64.urlsafe_b64encode(photo).decode().rstrip("=")

    async def check(service: Service) -> None:
        await service.promote(Release("eclip", "eclip/1"))

        async def vector(answer: httpx.Response) -> np.ndarray:
            assert answer.status_code == 200, answer.text
            return np.array(answer.json()["data"][0]["embedding"])

        form = lambda part: service.http.post(  # noqa: E731
            "/v1/embeddings", files=[("model", (None, "eclip")), ("image", part)]
        )
        expected = await vector(await form(("x.jpg", photo, "image/jpeg")))
        for text in (plain, lines, bare, *(f"data:image/jpeg;base64,{text}" for text in (plain, lines, bare))):
            item = {"type": "image_url", "image_url": {"url": text}}
            assert np.allclose(await vector(await service.post({"model": "eclip", "input": [item]})), expected)
            assert np.allclose(await vector(await form((None, text))), expected)
        encoded = ("x.jpg", lines.encode(), "image/jpeg", {"Content-Transfer-Encoding": "base64"})
        assert np.allclose(await vector(await form(encoded)), expected)
        assert error(await form((None, photo))) == (400, "invalid_value")

    running(check)


def test_as_many_inputs_as_openai_takes_and_no_more(running: Any) -> None:
    async def check(service: Service) -> None:
        await service.promote(Release("eclip", "eclip/1"))
        texts = [f"no. {n}" for n in range(2048)]
        rows = (await service.post({"model": "eclip", "input": texts})).json()["data"]
        assert [row["index"] for row in rows] == list(range(2048))
        for n in (0, 255, 256, 2047):
            (alone,) = (await service.post({"model": "eclip", "input": texts[n]})).json()["data"]
            assert np.allclose(alone["embedding"], rows[n]["embedding"], atol=1e-5)
        answer = await service.post({"model": "eclip", "input": [*texts, "one more"]})
        assert error(answer) == (400, "too_many_inputs")
        assert "at most 2048" in answer.json()["error"]["message"]
        schema = (await service.http.get("/openapi.json")).json()
        _, items = schema["components"]["schemas"]["EmbeddingRequest"]["properties"]["input"]["oneOf"]
        assert (items["maxItems"], items["items"]["oneOf"][0]["maxLength"]) == (2048, 8192)
        for name, field in Limits.model_fields.items():
            assert f"| `{name}` | {getattr(Limits(), name):,} | {field.description} |" in schema["info"]["description"]

    running(check)


def test_names_that_are_no_reference_are_unknown_models(running: Any) -> None:
    async def check(service: Service) -> None:
        assert "there is none yet" in (await service.post({"model": "a/b/c", "input": "x"})).text
        await service.promote(Release("eclip", "eclip/1"))
        for name in (
            *(
                "openai/clip-vit-base-patch32",
                "models:/eclip@champion",
                "eclip/latest",
                "eclip/0",
                "../x",
                "",
                "a b/c@d",
            ),
            *("eclip/" + "9" * 5000, "x" * 10_000, unicodedata.normalize("NFD", "모델"), "eclip@a/b"),
        ):
            answer = await service.post({"model": name, "input": "x"})
            assert error(answer) == (404, "model_not_found"), name[:40]
            assert "there is eclip" in answer.json()["error"]["message"]
            assert len(answer.text) < 400

    running(check)
