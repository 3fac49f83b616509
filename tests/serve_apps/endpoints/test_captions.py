"""Captions over HTTP against the package's own texts, and requests that cannot be answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from serve_apps.release import Release
from shoplens.datasets.format import Dataset
from shoplens.datasets.images import decode
from tests.serve_apps.conftest import jpeg, make_index
from tests.serve_apps.test_api import Service, error, photo_item, running
from tests.serve_apps.tiny import Captioner, install, save

__all__ = ["running"]

RELEASE = Release("captioner", "captioner/1", capabilities=("write_text",))


@pytest.fixture(autouse=True)
def _packages(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, running: Any) -> None:
    install(monkeypatch, {"eclip": package, "captioner": save(tmp_path / "captioner", Captioner)})


def uri(data: bytes) -> str:
    return photo_item(data)["image_url"]["url"]


async def ask(service: Service, **fields: Any) -> httpx.Response:
    return await service.http.post("/v1/captions", json=fields)


def written(data: bytes) -> str:
    model = Captioner.make("captioner")
    pixels = model.preprocessing(decode(data, draft=16).image)
    return model.write_texts(np.stack([pixels]))[0]


def test_the_answer_is_the_packages_text(running: Any) -> None:
    texts = [written(jpeg(seed)) for seed in range(5)]
    assert len(set(texts)) > 1

    async def body(service: Service) -> None:
        await service.promote(RELEASE)
        for seed, text in enumerate(texts):
            expected = {"object": "caption", "model": "captioner/1", "data": [{"index": 0, "text": text}]}
            answer = await ask(service, image=uri(jpeg(seed)))
            assert (answer.status_code, answer.json()) == (200, expected)
            assert answer.headers["X-Model-Version"] == "captioner/1"
            files = [("image", ("x.jpg", jpeg(seed), "image/jpeg")), ("model", (None, "captioner/1"))]
            assert (await service.http.post("/v1/captions", files=files)).json() == expected

    running(body)


def test_a_product_is_one_of_the_shop(running: Any, package: Path, shop: Dataset, tmp_path: Path) -> None:
    eclip = Release("eclip", "eclip/1", str(make_index(tmp_path / "index", package, shop, 1)), "a")

    async def body(service: Service) -> None:
        await service.promote(RELEASE)
        assert error(await ask(service, product_id="p3")) == (404, "no_index")
        await service.promote(eclip)
        answer = (await ask(service, product_id="p3")).json()
        assert (answer["model"], answer["data"][0]["text"]) == ("captioner/1", written(jpeg(6)))
        unknown = await ask(service, product_id="nobody")
        assert (error(unknown), unknown.json()["error"]["param"]) == ((404, "product_not_found"), "product_id")

    running(body, search=True)


def test_what_cannot_be_answered(running: Any) -> None:
    async def body(service: Service) -> None:
        assert error(await ask(service, image=uri(jpeg(1)))) == (503, "no_captioner")
        await service.promote(Release("eclip", "eclip/1"))
        assert error(await ask(service, image=uri(jpeg(1)))) == (503, "no_captioner")
        await service.promote(RELEASE)
        for fields, status, code, param in (
            ({}, 400, "invalid_value", None),
            ({"image": uri(jpeg(1)), "product_id": "p3"}, 400, "invalid_value", None),
            ({"image": 3}, 400, "invalid_value", "image"),
            ({"image": uri(jpeg(1)), "text": "x"}, 400, "unknown_field", "text"),
            ({"image": uri(jpeg(1, side=300)[:-400])}, 422, "image_truncated", "image"),
            ({"image": "http://127.0.0.1/"}, 400, "url_not_allowed", "image"),
            ({"image": uri(jpeg(1)), "model": "eclip"}, 404, "not_a_captioner", "model"),
            ({"image": uri(jpeg(1)), "model": "nobody"}, 404, "model_not_found", "model"),
        ):
            answer = await ask(service, **fields)
            assert (*error(answer), answer.json()["error"]["param"]) == (status, code, param)
        for files, code in (
            ([("model", (None, "captioner"))], "missing_field"),
            ([("image", ("x.jpg", jpeg(1), "image/jpeg"))] * 2, "invalid_value"),
            ([("image", ("x.jpg", jpeg(1), "image/jpeg")), ("text", (None, "x"))], "unknown_field"),
        ):
            assert error(await service.http.post("/v1/captions", files=files)) == (400, code)
        assert error(await service.http.post("/v1/captions", content=b"{}")) == (415, "unsupported_media_type")

    running(body)
