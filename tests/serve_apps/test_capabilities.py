"""Models with other capabilities than the recipes have, behind the same endpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve_apps.release import Release
from shoplens.datasets.format import Dataset
from shoplens.datasets.images import decode
from shoplens.packages.embedder import Embedder
from tests.serve_apps.conftest import jpeg, make_index
from tests.serve_apps.test_api import Service, error, photo_item, running
from tests.serve_apps.tiny import Captioner, Pairs, Scorer, Words, index, install, save

__all__ = ["running"]

WORDS = Release("words", "words/1", capabilities=("embed_text",))
SCORER = Release("scorer", "scorer/1", capabilities=("score_image",))
CAPTIONER = Release("captioner", "captioner/1", capabilities=("write_text",))


@pytest.fixture
def installed(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, running: Any) -> Any:
    """`running` with five registered models."""
    kinds = {"words": Words, "captioner": Captioner, "pairs": Pairs, "scorer": Scorer}
    folders = {name: save(tmp_path / name, kind) for name, kind in kinds.items()}
    install(monkeypatch, {"eclip": package, **folders})
    return running


def with_text(photo: bytes, text: str) -> dict[str, Any]:
    return {**photo_item(photo), "type": "image_text", "text": text}


def sentence(answer: Any) -> str:
    return answer.json()["error"]["message"]


def test_a_model_of_texts_alone(installed: Any) -> None:
    async def body(service: Service) -> None:
        await service.promote(WORDS)
        vectors = Words.make("words").encode_texts(["mug 상품", "x"])
        answer = (await service.post({"model": "words", "input": ["mug 상품", "x"]})).json()
        assert np.allclose([row["embedding"] for row in answer["data"]], vectors, atol=1e-6)
        assert answer["usage"]["total_tokens"] == len("mug 상품x".encode())
        for item in (photo_item(jpeg(1)), with_text(jpeg(1), "x")):
            refused = await service.post({"model": "words", "input": ["x", item]})
            assert error(refused) == (422, "not_encodable")
            assert refused.json()["error"]["param"] == "input[1]"
            assert sentence(refused).startswith("words/1 does text → vector, and no photo")
        keys = {"colour": ["red", "blue"]}
        chosen = await service.http.post("/v1/attributes", json={"text": "red", "keys": keys})
        assert (chosen.json()["model"], chosen.json()["data"][0]["source"]) == ("words/1", "zero_shot")
        image = photo_item(jpeg(1))["image_url"]["url"]
        unreadable = await service.http.post("/v1/attributes", json={"image": image, "keys": keys})
        assert error(unreadable) == (422, "not_encodable")
        topic = {"topic": {"name": "x"}, "images": [image]}
        assert error(await service.http.post("/v1/rank", json=topic)) == (503, "no_ranker")
        assert error(await service.http.post("/v1/captions", json={"image": image})) == (503, "no_captioner")
        health = (await service.http.get("/healthz")).json()
        assert health == {"status": "ok", "model": "words/1", "models": {"words": "words/1"}, "ranker": None}

    installed(body)


def test_the_first_model_that_can_answer_does(installed: Any, package: Path, shop: Dataset, tmp_path: Path) -> None:
    eclip = Release("eclip", "eclip/1", str(make_index(tmp_path / "index", package, shop, 1)), "a")
    words = Release("words", "words/1", str(index(tmp_path / "words index", "words", shop)), "a", ("embed_text",))
    image = photo_item(jpeg(4))["image_url"]["url"]

    async def body(service: Service) -> None:
        service.gateway.follow(("captioner", "words", "eclip"))
        for release in (eclip, words, CAPTIONER):
            await service.promote(release)
        post = service.http.post

        async def by(path: str, **fields: Any) -> str:
            answer = await post(path, json=fields)
            assert answer.status_code == 200, answer.text
            return answer.json()["model"]

        assert await by("/v1/similar", text="x") == await by("/v1/similar", product_id="p4") == "words/1"
        assert await by("/v1/similar", image=image) == "eclip/1"
        assert await by("/v1/captions", image=image) == "captioner/1"
        assert await by("/v1/attributes", text="x", keys={"a": ["b", "c"]}) == "words/1"
        assert await by("/v1/attributes", text="x", image=image, keys={"a": ["b", "c"]}) == "eclip/1"
        shown = (await service.http.get("/v1/products")).json()
        assert (shown["model"], shown["total"]) == ("words/1", 24)
        assert (await service.http.get(shown["data"][0]["image"])).content == jpeg(0)
        assert (await service.http.get("/healthz")).json()["models"] == {
            "captioner": "captioner/1",
            "words": "words/1",
            "eclip": "eclip/1",
        }
        service.registry.names = ["captioner", "words", "eclip"]
        rows = {row["id"]: row["capabilities"] for row in (await service.http.get("/v1/models")).json()["data"]}
        assert rows == {
            "captioner/1": ["write_text"],
            "words/1": ["embed_text"],
            "eclip/1": ["embed_image", "embed_text"],
        }
        assert error(await post("/v1/similar", json={"text": "x", "model": "captioner"})) == (404, "no_index")
        refused = await service.post({"model": "captioner", "input": "x"})
        assert error(refused) == (422, "not_encodable")
        assert sentence(refused) == "captioner/1 does photo → text, and no text → vector"

    installed(body, search=True)


def test_a_photo_with_a_text_is_one_input(installed: Any, shop: Dataset, tmp_path: Path) -> None:
    release = Release("pairs", "pairs/1", str(index(tmp_path / "index", "pairs", shop)), "a")
    model = Pairs.make("pairs")
    pixels = np.stack([model.preprocessing(decode(jpeg(seed), draft=16).image) for seed in (1, 2)])
    pairs = model.encode_images_with_texts(pixels, ["a mug", "상품"])

    async def body(service: Service) -> None:
        await service.promote(release)
        items = [with_text(jpeg(1), "a mug"), photo_item(jpeg(2)), with_text(jpeg(2), "상품")]
        answer = (await service.post({"model": "pairs", "input": items})).json()
        rows = np.array([row["embedding"] for row in answer["data"]], np.float32)
        assert np.allclose(rows, [pairs[0], model.encode_images(pixels[1:])[0], pairs[1]], atol=1e-6)
        assert answer["usage"]["total_tokens"] == len("a mug상품".encode())
        for wrong, code, param in (
            (with_text(jpeg(1), " "), (400, "empty_text"), "input[0]"),
            (with_text(jpeg(1, side=300)[:-400], "x"), (422, "image_truncated"), "input[0]"),
            ({**with_text(jpeg(1), "x"), "more": 1}, (400, "unknown_field"), "input[0].more"),
            ({"type": "image_text", "text": "x"}, (400, "missing_field"), "input[0].image_url"),
        ):
            refused = await service.post({"model": "pairs", "input": [wrong]})
            assert (error(refused), refused.json()["error"]["param"]) == (code, param)

        query = {"image": items[0]["image_url"]["url"], "text": "a mug", "k": 3}
        found = (await service.http.post("/v1/similar", json=query)).json()["data"]
        index_ = service.gateway.ready("pairs").catalogue.index  # type: ignore[union-attr]
        scores = np.asarray(index_.vectors, np.float64) @ pairs[0]
        assert found[0]["score"] == pytest.approx(scores.max(), abs=1e-5)
        assert error(await service.http.post("/v1/similar", json={**query, "text": ""})) == (400, "empty_text")

    installed(body, search=True)


def test_other_models_take_a_photo_or_a_text(installed: Any, package: Path, shop: Dataset, tmp_path: Path) -> None:
    release = Release("eclip", "eclip/1", str(make_index(tmp_path / "index", package, shop, 1)), "a")
    both = {"image": photo_item(jpeg(1))["image_url"]["url"], "text": "a mug"}

    async def body(service: Service) -> None:
        await service.promote(release)
        for query in (both, {**both, "model": "eclip"}, {**both, "product_id": "p4"}):
            refused = await service.http.post("/v1/similar", json=query)
            assert error(refused) == (400, "invalid_value")
            assert sentence(refused) == "the body: give exactly one of product_id, text and image"
        refused = await service.post({"model": "eclip", "input": [with_text(jpeg(1), "x")]})
        assert error(refused) == (422, "not_encodable")
        assert sentence(refused) == "eclip/1 does photo → vector, text → vector, and no photo + text → vector"

    installed(body, search=True)


def test_a_version_registered_before_capabilities_were_is_known_by_its_package(installed: Any) -> None:
    """The tag of the Release says photos alone; the loaded package embeds texts too."""

    async def body(service: Service) -> None:
        await service.promote(Release("eclip", "eclip/1"))
        assert service.gateway.serving()["eclip"].capabilities == ("embed_image",)
        assert (await service.post({"model": "eclip", "input": "x"})).status_code == 200
        [row] = (await service.http.get("/v1/models")).json()["data"]
        assert row["capabilities"] == ["embed_image", "embed_text"]

    installed(body)


def test_a_model_that_scores_photos_is_checked_and_listed(installed: Any) -> None:
    async def body(service: Service) -> None:
        await service.promote(SCORER)
        service.registry.names = ["scorer"]
        [row] = (await service.http.get("/v1/models")).json()["data"]
        assert (row["capabilities"], row["active"]) == (["score_image"], True)
        refused = await service.post({"model": "scorer", "input": [photo_item(jpeg(1))]})
        assert error(refused) == (422, "not_encodable")
        assert sentence(refused).startswith("scorer/1 does photo → score, and no photo")

    installed(body)


def test_names_are_served_as_they_are_promoted(installed: Any) -> None:
    async def body(service: Service) -> None:
        service.registry.names = ["eclip", "words"]
        for name in ("eclip", "words", "other"):
            answer = await service.post({"model": name, "input": "x"})
            assert error(answer) == (503, "no_champion"), "nothing is served at all"
            assert f"shoplens promote {name} VERSION --alias champion" in sentence(answer)
        await service.promote(WORDS)
        assert (await service.post({"model": "words@champion", "input": "x"})).json()["model"] == "words/1"
        answer = await service.post({"model": "eclip", "input": "x"})
        assert error(answer) == (503, "no_champion"), "it is registered, and has no champion"
        assert "shoplens promote eclip VERSION" in sentence(answer)
        assert (await service.post({"model": "eclip/2", "input": "x"})).json()["model"] == "eclip/2"
        answer = await service.post({"model": "other", "input": "x"})
        assert (error(answer), sentence(answer)) == (
            (404, "model_not_found"),
            "no model 'other' is served here; there is words",
        )

    installed(body)


def test_a_list_of_models_in_the_settings_is_the_whole_list(installed: Any) -> None:
    async def body(service: Service) -> None:
        service.registry.names = ["eclip", "words"]
        await service.promote(WORDS)
        service.gateway.follow(("eclip", "words"))
        assert error(await service.post({"model": "eclip", "input": "x"})) == (404, "model_not_found")
        assert (await service.http.get("/healthz")).json()["models"] == {"captioner": None, "words": "words/1"}

    installed(body, models=("captioner", "words"))


def test_the_package_of_the_shop_is_still_an_embedder(package: Path) -> None:
    assert [capability.name for capability in Embedder.load(package).can] == ["embed_image", "embed_text"]
