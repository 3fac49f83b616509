"""The HTTP application over the real Gateway and Encoder, joined by plain calls in place of Ray."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError

from serve_apps.api import build
from serve_apps.encoder import Encoder
from serve_apps.gateway import Gateway
from serve_apps.release import Missing, Release
from serve_apps.settings import Limits, Settings
from shoplens.datasets.format import Dataset
from shoplens.datasets.images import decode
from shoplens.errors import ShoplensError
from shoplens.packages.embedder import Embedder
from shoplens.registry import versions as packages
from tests.serve_apps.conftest import Local, jpeg, make_index


class Registry:
    """In place of Rollout: knows versions 1 to 3 of eclip."""

    def __init__(self) -> None:
        self.active: dict[str, Release] = {}
        self.looked_up: list[str] = []
        self.down = False
        self.names = ["eclip"]

    def serving(self) -> dict[str, Release]:
        return self.active

    def trouble(self) -> dict[str, str]:
        return {}

    def resolve(self, reference: str) -> Release | Missing:
        self.looked_up.append(reference)
        if self.down:
            return Missing("it does not answer", outage=True)
        version = {"eclip@challenger": "eclip/2"}.get(reference, reference)
        return Release("eclip", version) if version in ("eclip/1", "eclip/2", "eclip/3") else Missing("no such version")

    def registered(self) -> list[str]:
        return self.names

    def models(self) -> list[dict[str, Any]]:
        return [
            {"id": f"{name}/1", "object": "model", "created": 0, "owned_by": "shoplens", "aliases": [], "active": True}
            | {"capabilities": ["embed_image"]}
            for name in self.names
        ]


class Service:
    def __init__(self, http: httpx.AsyncClient, gateway: Gateway, encoder: Encoder, registry: Registry) -> None:
        self.http, self.gateway, self.encoder, self.registry = http, gateway, encoder, registry

    async def promote(self, release: Release) -> None:
        await self.encoder.prepare(release.version)
        await self.gateway.prepare(release)
        self.encoder.activate(release.name, release.version)
        self.gateway.activate(release)

    async def post(self, body: Any) -> httpx.Response:
        return await self.http.post("/v1/embeddings", json=body)


@pytest.fixture
def running(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Service], Coroutine[Any, Any, None]]], None]:
    """Runs a coroutine with the service; packages come from `package` instead of a registry."""
    monkeypatch.setattr(packages, "resolve", lambda reference, **_: reference)
    monkeypatch.setattr(packages, "download", lambda *_, **__: package)

    @asynccontextmanager
    async def service(settings: Settings) -> AsyncIterator[Service]:
        registry = Registry()
        encoder, gateway = Encoder.__new__(Encoder), Gateway.__new__(Gateway)
        await encoder.__init__(settings, Local(registry))  # type: ignore[misc]
        await gateway.__init__(settings, Local(encoder), Local(registry))  # type: ignore[misc]
        transport = httpx.ASGITransport(build(gateway), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as http:
            yield Service(http, gateway, encoder, registry)

    def run(body: Callable[[Service], Coroutine[Any, Any, None]], **options: Any) -> None:
        async def main() -> None:
            async with service(Settings(**{"search": False, "cache": str(tmp_path), **options})) as running:
                await body(running)

        asyncio.run(main())

    return run


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def photo_item(data: bytes) -> dict[str, Any]:
    uri = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": uri}}


def test_before_the_first_promotion_it_is_well_and_says_what_to_do(running: Any) -> None:
    async def body(service: Service) -> None:
        health = await service.http.get("/healthz")
        assert (health.status_code, health.json()["status"]) == (200, "waiting")
        answer = await service.post({"model": "eclip", "input": "x"})
        assert error(answer) == (503, "no_champion")
        assert "shoplens promote eclip" in answer.json()["error"]["message"]
        assert int(answer.headers["Retry-After"]) > 0
        await service.promote(Release("eclip", "eclip/1"))
        assert (await service.post({"model": "eclip", "input": "x"})).json()["model"] == "eclip/1"
        assert (await service.http.get("/healthz")).headers["X-Model-Version"] == "eclip/1"

    running(body)


def test_the_answer_is_the_packages_own(running: Any, package: Path) -> None:
    embedder = Embedder.load(package)

    async def body(service: Service) -> None:
        await service.promote(Release("eclip", "eclip/1"))
        answer = await service.post({"model": "eclip", "input": ["mug 상품", photo_item(jpeg(4)), "jeans"]})
        rows = np.array([row["embedding"] for row in answer.json()["data"]], np.float32)
        assert np.allclose(rows[[0, 2]], embedder.encode_texts(["mug 상품", "jeans"]), atol=1e-5)
        assert [row["index"] for row in answer.json()["data"]] == [0, 1, 2]
        tokens = sum(embedder.count_tokens([text])[0] for text in ("mug 상품", "jeans"))
        assert answer.json()["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
        files = [("model", (None, "eclip")), ("image", ("x.jpg", jpeg(4), "image/jpeg"))]
        form = await service.http.post("/v1/embeddings", files=files)
        assert np.allclose(form.json()["data"][0]["embedding"], rows[1], atol=1e-5)

    running(body)


def test_versions_are_named_in_three_ways(running: Any) -> None:
    async def body(service: Service) -> None:
        await service.promote(Release("eclip", "eclip/1"))
        named = {
            "eclip": 1,
            "eclip@champion": 1,
            "eclip/1": 1,
            "eclip@challenger": 2,
            "eclip/2": 2,
            "eclip/3": 3,
        }
        for reference, version in named.items():
            answer = await service.post({"model": reference, "input": "x"})
            assert answer.json()["model"] == answer.headers["X-Model-Version"] == f"eclip/{version}"
        assert service.registry.looked_up == ["eclip@challenger", "eclip/2", "eclip/3"]
        await service.post({"model": "eclip/3", "input": "x"})
        assert len(service.registry.looked_up) == 3
        for reference in ("eclip/9", "eclip@nobody", "other", "other/1"):
            assert error(await service.post({"model": reference, "input": "x"})) == (404, "model_not_found")
        service.registry.down = True
        assert error(await service.post({"model": "eclip/4", "input": "x"})) == (503, "registry_unavailable")
        assert (await service.post({"model": "eclip", "input": "x"})).status_code == 200

    running(body, versions_kept=2)


def test_a_request_keeps_the_version_it_began_with(running: Any) -> None:
    async def body(service: Service) -> None:
        await service.promote(Release("eclip", "eclip/1"))
        requests = [asyncio.create_task(service.post({"model": "eclip", "input": [f"{i}"] * 20})) for i in range(20)]
        await asyncio.sleep(0.01)
        await service.promote(Release("eclip", "eclip/2"))
        answers = await asyncio.gather(*requests)
        assert {answer.status_code for answer in answers} == {200}
        assert all(answer.headers["X-Model-Version"] == answer.json()["model"] for answer in answers)
        assert (await service.post({"model": "eclip", "input": "x"})).json()["model"] == "eclip/2"

    running(body)


def test_limits_are_the_clients_fault_and_name_the_input(running: Any) -> None:
    async def body(service: Service) -> None:
        await service.promote(Release("eclip", "eclip/1"))
        for items, code in (
            (["x"] * 5, "too_many_inputs"),
            (["x", "y" * 11], "text_too_long"),
            (["x", " "], "empty_text"),
            (["x", photo_item(jpeg(1, side=300)[:-400])], "image_truncated"),
            (["x", {"type": "image_url", "image_url": {"url": "http://127.0.0.1/"}}], "url_not_allowed"),
            (["x", {"type": "product", "product_id": "p1"}], "no_index"),
        ):
            answer = await service.post({"model": "eclip", "input": items})
            assert answer.json()["error"]["code"] == code
            assert 400 <= answer.status_code < 500
            assert answer.json()["error"]["param"] == ("input" if code == "too_many_inputs" else "input[1]")
        assert error(await service.post({"model": "eclip", "input": "x", "dimensions": 8})) == (
            400,
            "invalid_value",
        )
        assert (await service.post({"model": "eclip", "input": "x", "dimensions": 32})).status_code == 200
        assert error(await service.http.post("/v1/similar", json={"text": "x"})) == (404, "unknown_path")

    running(body, limits=Limits(inputs=4, text_chars=10))


def test_faults_of_the_cluster_are_503_and_of_the_program_500(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(service: Service) -> None:
        await service.promote(Release("eclip", "eclip/1"))
        call_model = service.encoder.call
        calls = 0

        def failing(failure: Exception, times: int) -> Callable[..., Coroutine[Any, Any, Any]]:
            async def call(*arguments: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls <= times:
                    raise failure
                return await call_model(*arguments)

            return call

        for failure, times, expected in (
            (RayActorError(), 1, (200, None)),
            (RayActorError(), 2, (503, "restarting")),
            (BackPressureError(1, 1), 1, (503, "overloaded")),
            (ZeroDivisionError(), 1, (500, "internal_error")),
        ):
            calls = 0
            monkeypatch.setattr(service.encoder, "call", failing(failure, times))
            answer = await service.post({"model": "eclip", "input": "x"})
            found = (200, None) if answer.status_code == 200 else error(answer)
            assert found == expected
            assert ("Retry-After" in answer.headers) == (expected[0] == 503)

        async def never(*_: Any) -> None:
            await asyncio.sleep(60)

        monkeypatch.setattr(service.encoder, "call", never)
        assert error(await service.post({"model": "eclip", "input": "x"})) == (503, "deadline")

        async def unloadable(version: str) -> None:
            raise ShoplensError("the package is damaged")

        monkeypatch.setattr(service.encoder, "prepare", unloadable)
        assert error(await service.post({"model": "eclip/2", "input": "x"})) == (503, "model_not_loadable")

    running(body, limits=Limits(deadline_s=0.3))


def test_search_over_a_real_index(running: Any, package: Path, shop: Dataset, tmp_path: Path) -> None:
    release = Release("eclip", "eclip/1", str(make_index(tmp_path / "index", package, shop, 1)), "a")
    embedder = Embedder.load(package)
    every = embedder.encode_images(
        np.stack([embedder.preprocess(decode(shop.read_image(i), draft=64).image) for i in range(48)])
    )
    ids = shop.products["product_id"].to_pylist()

    def expected(query: np.ndarray, leave_out: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
        best = (every @ query).reshape(24, 2).max(axis=1)
        return [ids[i] for i in np.argsort(-best) if ids[i] not in leave_out]

    async def body(service: Service) -> None:
        await service.promote(release)
        find = lambda **fields: service.http.post("/v1/similar", json={"cheapest": False, **fields})  # noqa: E731
        found = (await find(text="a mug", k=24)).json()
        assert (found["model"], found["dataset"]) == ("eclip/1", f"shop@{shop.digest[:12]}")
        assert [p["product_id"] for p in found["data"]] == expected(embedder.encode_texts(["a mug"])[0])
        by_photo = (await find(image=photo_item(shop.read_image(10))["image_url"]["url"], k=3)).json()["data"]
        assert by_photo[0]["product_id"] == "p5"
        assert by_photo[0]["score"] == pytest.approx(1, abs=1e-4)

        itself = every[:2].mean(axis=0)
        mugs = {ids[i] for i in range(24) if i // 2 % 3 == 2}
        near = (await find(product_id="p 0/ä", k=1000, widening={"margin": 0})).json()["data"]
        assert [p["product_id"] for p in near] == expected(itself, {"p 0/ä"} | mugs)
        others = (await find(product_id="p 0/ä", k=1000, widening={"margin": 0}, exclude_catalog=True)).json()["data"]
        assert [p["product_id"] for p in others] == expected(itself, {"p 0/ä", "p1"} | mugs)
        clothes = (await find(text="x", k=1000, category="clothing", price={"min": 15, "max": 25})).json()["data"]
        assert {p["category_path"][0] for p in clothes} == {"Clothing"}
        assert sorted(p["price"] for p in clothes) == [16, 17, 18, 19, 22, 23, 24, 25]

        for fields, code in (
            ({"text": "x", "category": "nope"}, "category_not_found"),
            ({"product_id": "nope"}, "product_not_found"),
            ({"text": "x", "model": "eclip/2"}, "no_index"),
        ):
            assert error(await find(**fields)) == (404, code)
        no_catalog = await find(text="x", exclude_catalog=True)
        assert error(no_catalog) == (400, "invalid_value")
        assert no_catalog.json()["error"]["param"] == "exclude_catalog"
        vector = (await service.post({"model": "eclip", "input": [{"type": "product", "product_id": "p3"}]})).json()
        assert np.allclose(
            np.array(vector["data"][0]["embedding"]) @ every[6:8].T,
            every[6:8] @ every[6:8].sum(0) / np.linalg.norm(every[6:8].sum(0)),
            atol=1e-4,
        )

    running(body, search=True)


def test_the_shop_is_shown_as_it_is(running: Any, package: Path, shop: Dataset, tmp_path: Path) -> None:
    release = Release("eclip", "eclip/1", str(make_index(tmp_path / "index", package, shop, 1)), "a")

    async def body(service: Service) -> None:
        assert error(await service.http.get("/v1/products")) == (503, "no_champion")
        await service.promote(release)
        get = service.http.get
        everything = (await get("/v1/products?limit=1000")).json()
        assert [p["product_id"] for p in everything["data"]] == shop.products["product_id"].to_pylist()
        assert everything["total"] == 24
        page = (await get("/v1/products?offset=20&limit=10")).json()
        assert page["data"] == everything["data"][20:]
        priced = (await get("/v1/products?price_min=12&price_max=14")).json()
        assert [p["price"] for p in priced["data"]] == [12, 14]  # the 13th has no price
        rows = (await get("/v1/categories")).json()["data"]
        assert {row["id"]: row["n_products"] for row in rows} == {
            "clothing": 16,
            "clothing/dresses": 8,
            "clothing/jeans": 8,
            "kitchen": 8,
            "kitchen/mugs": 8,
        }
        for row in rows:
            assert (await get("/v1/products", params={"category": row["id"]})).json()["total"] == row["n_products"]

        detail = (await get("/v1/products/" + quote("p 0/ä", safe=""))).json()
        assert detail["attributes"] == {"color": ["red"]}
        assert detail["images"][0] == detail["image"] == everything["data"][0]["image"]
        for view, address in enumerate(detail["images"]):
            picture = await get(address)
            assert picture.content == jpeg(view)
            assert picture.headers["Content-Type"] == "image/jpeg"
            assert "immutable" in picture.headers["Cache-Control"]
            again = await get(address, headers={"If-None-Match": picture.headers["ETag"]})
            assert (again.status_code, again.content) == (304, b"")
        assert "immutable" not in (await get("/v1/images/0000-0")).headers["Cache-Control"]
        for path in ("/v1/images/nope", "/v1/images/..%2f..%2fmanifest.json", "/v1/products/nope"):
            assert (await get(path)).status_code == 404

    running(body, search=True)


def test_an_index_is_served_only_with_its_own_version_and_dataset(
    running: Any, package: Path, shop: Dataset, tmp_path: Path
) -> None:
    index = str(make_index(tmp_path / "index", package, shop, 1))

    async def body(service: Service) -> None:
        with pytest.raises(ShoplensError, match="was built for eclip/1"):
            await service.gateway.prepare(Release("eclip", "eclip/2", index, "a"))
        with pytest.raises(ShoplensError, match="holds no index"):
            await service.gateway.prepare(Release("eclip", "eclip/2", str(tmp_path), "a"))
        assert service.gateway.serving() == {}

    running(body, search=True)


def test_page_and_openapi(running: Any) -> None:
    async def body(service: Service) -> None:
        page = await service.http.get("/")
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "script-src 'self'" in page.headers["Content-Security-Policy"]
        assert "unsafe-inline" not in page.headers["Content-Security-Policy"]
        for name, kind in (("app.js", "text/javascript"), ("style.css", "text/css"), ("icon.svg", "image/svg+xml")):
            file = await service.http.get(f"/static/{name}")
            assert file.headers["Content-Type"].startswith(kind)
            assert file.headers["X-Content-Type-Options"] == "nosniff"
        assert (await service.http.get("/static/..%2fgateway.py")).status_code == 404
        paths = (await service.http.get("/openapi.json")).json()["paths"]
        assert set(paths) == {
            "/v1/embeddings",
            "/v1/attributes",
            "/v1/rank",
            "/v1/captions",
            "/v1/models",
            "/v1/similar",
            "/v1/products",
            "/v1/products/{product_id}",
            "/v1/images/{image_id}",
            "/v1/categories",
            "/v1/experiment",
            "/v1/events",
            "/healthz",
        }
        assert "422" not in paths["/v1/products"]["get"]["responses"]

    running(body, search=True)
