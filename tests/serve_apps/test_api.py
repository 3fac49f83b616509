"""The HTTP application over the real Gateway and Encoder, joined by plain calls in place of Ray."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError

from serve_apps.encoder import Encoder
from serve_apps.gateway import Gateway
from serve_apps.release import Missing, Release
from serve_apps.settings import Limits, Settings
from shoplens.errors import ShoplensError
from shoplens.models.embedder import Embedder
from shoplens.registry import packages
from tests.serve_apps.conftest import Local, jpeg


class Registry:
    """In place of Rollout: knows versions 1 to 3 of eclip."""

    def __init__(self) -> None:
        self.active: dict[str, Release] = {}
        self.looked_up: list[str] = []
        self.down = False

    def serving(self) -> dict[str, Release]:
        return self.active

    def trouble(self) -> dict[str, str]:
        return {}

    def resolve(self, reference: str) -> Release | Missing:
        self.looked_up.append(reference)
        if self.down:
            return Missing("it does not answer", outage=True)
        version = {"eclip@challenger": "eclip/2"}.get(reference, reference)
        return (
            Release("eclip", version)
            if version in ("eclip/1", "eclip/2", "eclip/3")
            else Missing("no such version")
        )

    def models(self) -> list[dict[str, Any]]:
        return []


class Service:
    def __init__(
        self, http: httpx.AsyncClient, gateway: Gateway, encoder: Encoder, registry: Registry
    ) -> None:
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
        transport = httpx.ASGITransport(gateway.__serve_build_asgi_app__(), raise_app_exceptions=False)
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
        requests = [
            asyncio.create_task(service.post({"model": "eclip", "input": [f"{i}"] * 20})) for i in range(20)
        ]
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


def test_faults_of_the_cluster_are_503_and_of_the_program_500(
    running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(service: Service) -> None:
        await service.promote(Release("eclip", "eclip/1"))
        encode = service.encoder.encode
        calls = 0

        def failing(failure: Exception, times: int) -> Callable[..., Coroutine[Any, Any, Any]]:
            async def call(*arguments: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls <= times:
                    raise failure
                return await encode(*arguments)

            return call

        for failure, times, expected in (
            (RayActorError(), 1, (200, None)),
            (RayActorError(), 2, (503, "restarting")),
            (BackPressureError(1, 1), 1, (503, "overloaded")),
            (ZeroDivisionError(), 1, (500, "internal_error")),
        ):
            calls = 0
            monkeypatch.setattr(service.encoder, "encode", failing(failure, times))
            answer = await service.post({"model": "eclip", "input": "x"})
            found = (200, None) if answer.status_code == 200 else error(answer)
            assert found == expected
            assert ("Retry-After" in answer.headers) == (expected[0] == 503)

        async def never(*_: Any) -> None:
            await asyncio.sleep(60)

        monkeypatch.setattr(service.encoder, "encode", never)
        assert error(await service.post({"model": "eclip", "input": "x"})) == (503, "deadline")

        async def unloadable(version: str) -> None:
            raise ShoplensError("the package is damaged")

        monkeypatch.setattr(service.encoder, "prepare", unloadable)
        assert error(await service.post({"model": "eclip/2", "input": "x"})) == (503, "model_not_loadable")

    running(body, limits=Limits(deadline_s=0.3))
