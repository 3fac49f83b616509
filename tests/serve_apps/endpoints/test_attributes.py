"""Attributes over HTTP against the package's own vectors and heads, and requests that cannot be answered."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from serve_apps.encoder import prepared
from serve_apps.release import Release
from serve_apps.settings import Limits
from shoplens.datasets.format import Dataset
from shoplens.datasets.images import decode
from shoplens.errors import ShoplensError
from shoplens.evaluation.embedded import EmbeddedSplit, fuse
from shoplens.evaluation.heads.extractor import Extractor
from shoplens.packages.embedder import Embedder
from shoplens.registry import versions as packages
from shoplens.schema import CategoryTree
from tests.serve_apps.conftest import PATHS, jpeg, make_index, make_package
from tests.serve_apps.test_api import Service, error, photo_item, running

__all__ = ["running"]

COLOURS = {"red": (200, 30, 40), "green": (30, 160, 60), "blue": (40, 60, 200)}
TREE = CategoryTree.of((path, "/".join(path).lower()) for path in PATHS)
CHAMPION = Release("eclip", "eclip/1")


def flat(colour: str, seed: int) -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(seed).normal(0, 25, (64, 64, 3))
    Image.fromarray(np.clip(COLOURS[colour] + noise, 0, 255).astype(np.uint8)).save(out, "JPEG")
    return out.getvalue()


def uri(data: bytes) -> str:
    return photo_item(data)["image_url"]["url"]


def split(embedder: Embedder, seed: int, n: int) -> EmbeddedSplit:
    """Products of a colour and a category, told in words and shown as flat photos; dresses have a length."""
    rng = np.random.default_rng(seed)
    colours, kinds, long = rng.choice(list(COLOURS), n), rng.integers(3, size=n), rng.integers(2, size=n)
    texts = [
        f"{colour} {PATHS[kind][-1]} {'maxi' if m else 'mini'}"
        for colour, kind, m in zip(colours, kinds, long, strict=True)
    ]
    photos = [decode(flat(colour, seed * 1000 + i)).image for i, colour in enumerate(colours)]
    return EmbeddedSplit(
        images=embedder.encode_images(np.stack([embedder.preprocess(photo) for photo in photos])),
        samples=np.arange(n),
        product=np.arange(n),
        texts=texts,
        text_vectors=embedder.encode_texts(texts),
        catalog=np.arange(n),
        category=kinds,
        category_vectors=np.eye(embedder.dim, dtype=np.float32)[:3],
        category_paths=PATHS,
        attributes=[
            {"colour": (str(colour),)} | ({"length": ("maxi" if m else "mini",)} if kind == 0 else {})
            for colour, kind, m in zip(colours, kinds, long, strict=True)
        ],
    )


@pytest.fixture(scope="module")
def bare(shop: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(tmp_path_factory.mktemp("bare") / "eclip", shop)


@pytest.fixture(scope="module")
def package(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In place of the one without heads."""
    folder = tmp_path_factory.mktemp("with_heads") / "eclip"
    shutil.copytree(bare, folder)
    embedder = Embedder.load(folder)
    extractor = Extractor.fit(split(embedder, 1, 150), split(embedder, 2, 60), TREE, {"dataset": "d", "splits": []})
    assert extractor is not None
    extractor.save(folder)
    return folder


async def ask(service: Service, **fields: Any) -> httpx.Response:
    return await service.http.post("/v1/attributes", json=fields)


def test_the_answer_is_the_heads_on_the_packages_vectors(running: Any, package: Path) -> None:
    embedder, extractor = Embedder.load(package), Extractor.load(package)
    assert extractor is not None
    photo, title = flat("green", 7), "green Dresses maxi"
    image = embedder.encode_images(embedder.preprocess(decode(photo, draft=64).image)[None])
    text = embedder.encode_texts([title])
    questions = {
        "image": ({"image": uri(photo)}, image[0]),
        "text": ({"text": title}, text[0]),
        "fused": ({"image": uri(photo), "text": title}, fuse(image, text)[0]),
    }

    async def body(service: Service) -> None:
        await service.promote(CHAMPION)
        for modality, (fields, vector) in questions.items():
            for category in (None, "clothing/dresses"):
                hint = {} if category is None else {"category": category}
                answer = await ask(service, **fields, **hint, keys=["colour", "length"])
                told = answer.json()
                assert (answer.status_code, told["object"], told["modality"]) == (200, "attributes", modality)
                assert told["model"] == answer.headers["X-Model-Version"] == "eclip/1"
                assert told["category"]["source"] == ("request" if hint else "head")
                assert told["category"]["id"] == (category or extractor.guess_category(modality, vector)[0])  # type: ignore[arg-type, index]
                for entry in told["data"]:
                    wanted = extractor.extract(modality, vector, entry["key"], category=category)  # type: ignore[arg-type]
                    assert (entry["value"], entry["answered"]) == (wanted.values[0], wanted.answered)
                    said = [entry["probability"], *(other["probability"] for other in entry["alternatives"])]
                    assert said == pytest.approx(list(wanted.probabilities), abs=1e-4)
                    assert (entry["source"], entry["calibrated"]) == ("head", True)
                assert [entry["key"] for entry in told["data"]] == ["colour", "length"]
                assert told["data"][0]["value"] == "green"

    running(body)


def test_keys_follow_the_category_unless_they_are_named(running: Any) -> None:
    async def body(service: Service) -> None:
        await service.promote(CHAMPION)

        async def keys(**fields: Any) -> list[str]:
            return [entry["key"] for entry in (await ask(service, text="red", **fields)).json()["data"]]

        for dresses in ("clothing/dresses", "Clothing > Dresses", "Dresses", "Clothing"):
            assert await keys(category=dresses) == ["colour", "length"]
        assert await keys(category="Mugs") == ["colour"]
        assert await keys(category="Mugs", keys=["length"]) == ["length"]
        guessed = (await ask(service, text="blue Dresses mini")).json()
        assert guessed["category"]["path"] == ["Clothing", "Dresses"] and 0.5 < guessed["category"]["probability"] <= 1
        assert [entry["key"] for entry in guessed["data"]] == ["colour", "length"]
        assert [e["key"] for e in (await ask(service, text="blue Mugs mini")).json()["data"]] == ["colour"]

    running(body)


def test_candidates_restrict_a_head_or_are_compared_as_texts(running: Any, package: Path) -> None:
    embedder = Embedder.load(package)
    vector = embedder.encode_texts(["red Dresses"])[0]
    moods = ["festive", "sporty", "plain"]
    scale = embedder.model.logit_scale.exp().item()
    near = softmax(embedder.encode_texts(moods).astype(np.float64) @ vector * scale)

    async def body(service: Service) -> None:
        await service.promote(CHAMPION)
        everything = (await ask(service, text="red Dresses", keys=["colour"])).json()["data"][0]
        probability = {row["value"]: row["probability"] for row in (everything, *everything["alternatives"])}
        keys = {"mood": moods, "colour": ["blue", "green"], "length": None}
        mood, colour, length = (await ask(service, text="red Dresses", keys=keys)).json()["data"]
        assert (mood["source"], mood["calibrated"], mood["answered"]) == ("zero_shot", False, True)
        said = {row["value"]: row["probability"] for row in (mood, *mood["alternatives"])}
        assert said == pytest.approx(dict(zip(moods, near, strict=True)), abs=1e-4)
        assert colour["source"] == length["source"] == "head"
        of_both = probability["blue"] + probability["green"]
        said = {row["value"]: row["probability"] for row in (colour, *colour["alternatives"])}
        assert said == pytest.approx({c: probability[c] / of_both for c in ("blue", "green")}, abs=1e-4)
        new = (await ask(service, text="red", keys={"colour": ["red", "mauve"]})).json()["data"][0]
        assert new["source"] == "zero_shot", "the head does not know mauve"

    running(body)


def test_a_product_of_the_index_and_a_form(running: Any, package: Path, shop: Dataset, tmp_path: Path) -> None:
    release = Release("eclip", "eclip/1", str(make_index(tmp_path / "index", package, shop, 1)), "a")
    embedder, extractor = Embedder.load(package), Extractor.load(package)
    assert extractor is not None
    photos = embedder.encode_images(
        np.stack([embedder.preprocess(decode(jpeg(seed), draft=64).image) for seed in (6, 7)])
    )
    mean = photos.mean(axis=0)

    async def body(service: Service) -> None:
        await service.promote(release)
        answer = (await ask(service, product_id="p3", keys=["colour"])).json()
        wanted = extractor.extract("image", mean / np.linalg.norm(mean), "colour")
        assert answer["data"][0]["probability"] == pytest.approx(wanted.probabilities[0], abs=1e-4)
        photo, title = flat("red", 3), "red Dresses"
        files = [
            ("text", (None, title)),
            ("image", ("x.jpg", photo, "image/jpeg")),
            ("keys", (None, json.dumps({"colour": None}))),
            ("category", (None, "Dresses")),
        ]
        form = (await service.http.post("/v1/attributes", files=files)).json()
        same = await ask(service, text=title, image=uri(photo), keys=["colour"], category="Dresses")
        assert form["modality"] == "fused" and form == same.json()

    running(body, search=True)


def test_what_cannot_be_answered_is_said_with_what_could(running: Any) -> None:
    async def body(service: Service) -> None:
        await service.promote(CHAMPION)
        bad = uri(jpeg(1, side=300)[:-400])
        for fields, status, code, words in (
            ({}, 400, "missing_field", "image, product_id or text"),
            ({"image": "x", "product_id": "y"}, 400, "invalid_value", "either"),
            ({"text": " "}, 400, "empty_text", "empty"),
            ({"image": bad}, 422, "image_truncated", ""),
            ({"image": "http://127.0.0.1/"}, 400, "url_not_allowed", "data:image"),
            ({"product_id": "p3"}, 404, "no_index", ""),
            ({"text": "x", "model": "eclip/7"}, 404, "model_not_found", ""),
            ({"text": "x", "category": "Dreses"}, 404, "category_not_found", "did you mean Dresses"),
            ({"text": "x", "keys": ["color"]}, 404, "attribute_not_found", "did you mean colour?"),
            ({"text": "x", "keys": ["zzz"]}, 404, "attribute_not_found", "give candidate values"),
            ({"text": "x", "keys": []}, 400, "invalid_value", "keys"),
            ({"text": "x", "keys": "colour"}, 400, "invalid_value", "a list of keys"),
            ({"text": "x", "keys": {"colour": ["red"]}}, 400, "invalid_value", "keys.colour"),
            ({"text": "x", "keys": {"mood": ["a", "a"]}}, 400, "invalid_value", "twice"),
            ({"text": "x", "keys": {"mood": list("abcdefgh")}}, 400, "too_many_inputs", "8 candidate values"),
            ({"text": "x", "keys": {"mood": ["a", " "]}}, 400, "empty_text", ""),
            ({"text": "x", "key": ["colour"]}, 400, "unknown_field", "key"),
        ):
            answer = await ask(service, **fields)
            assert error(answer) == (status, code), (fields, answer.text)
            assert words in answer.json()["error"]["message"]
        assert (await ask(service, text="x", keys={"mood": ["a", " "]})).json()["error"]["param"] == "keys.mood[1]"
        for files in (
            [("text", (None, "a")), ("text", (None, "b"))],
            [("text", (None, "a")), ("encoding_format", (None, "float"))],
        ):
            assert (await service.http.post("/v1/attributes", files=files)).status_code == 400
        form = [("text", (None, "a")), ("keys", (None, "colour"))]
        assert "keys is not JSON" in (await service.http.post("/v1/attributes", files=form)).json()["error"]["message"]
        assert error(await service.http.post("/v1/attributes", content=b"x")) == (415, "unsupported_media_type")

    running(body, limits=Limits(inputs=8))


def test_a_version_without_heads_answers_candidates_and_says_what_to_do(
    running: Any, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(service: Service) -> None:
        monkeypatch.setattr(packages, "download", lambda *_, **__: bare)
        await service.promote(CHAMPION)
        for fields in ({}, {"keys": ["colour"]}, {"keys": {"colour": None}}, {"category": "Mugs"}):
            answer = await ask(service, text="x", **fields)
            assert error(answer) == (404, "no_attribute_heads")
            assert "train a version" in answer.json()["error"]["message"]
        answer = await ask(service, text="x", keys={"colour": ["red", "blue"]})
        assert (answer.status_code, answer.json()["category"]) == (200, None)
        assert answer.json()["data"][0]["source"] == "zero_shot"

    running(body)


def test_heads_move_with_their_version(
    running: Any, package: Path, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(service: Service) -> None:
        monkeypatch.setattr(packages, "download", lambda version, *_, **__: bare if version == "eclip/2" else package)
        await service.promote(CHAMPION)
        assert (await ask(service, text="red")).json()["model"] == "eclip/1"
        assert error(await ask(service, text="red", model="eclip/2")) == (404, "no_attribute_heads")
        await service.promote(Release("eclip", "eclip/2"))
        assert error(await ask(service, text="red")) == (404, "no_attribute_heads")
        assert (await ask(service, text="red", model="eclip/1")).json()["data"]

    running(body)


def test_heads_of_another_model_are_refused(package: Path, bare: Path, shop: Dataset, tmp_path: Path) -> None:
    assert prepared(bare, Embedder.load(bare)).extractor is None
    assert prepared(package, Embedder.load(package)).extractor is not None
    narrow = make_package(tmp_path / "narrow", shop, dim=8)
    shutil.copytree(package / "attributes", narrow / "attributes")
    with pytest.raises(ShoplensError, match="vectors of 32 numbers, the model gives 8"):
        Embedder.load(narrow)
