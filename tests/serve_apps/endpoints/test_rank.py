"""Ranking over HTTP against the package's own ranking, and requests that cannot be answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from serve_apps.release import Release
from serve_apps.settings import Limits
from shoplens.datasets.format import Dataset
from shoplens.datasets.images import decode
from shoplens.datasets.preprocessing import Preprocessing
from shoplens.datasets.tokenizers import train_tokenizer
from shoplens.nn.clik import Clik, ClikConfig
from shoplens.packages.embedder import Embedder
from shoplens.recipes.clik import Ranker
from shoplens.schema import TopicText
from tests.serve_apps.conftest import jpeg, make_index
from tests.serve_apps.test_api import Service, error, photo_item, running

__all__ = ["running"]

TOPIC = {"name": "봄 소풍", "date": "2025-04-01", "cat1": "Clothing", "kwds": ["꽃", "light"]}


@pytest.fixture(scope="module")
def package(shop: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained CLIK whose query is not its topic."""
    torch.manual_seed(0)
    text = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ClikConfig.model_validate(
        {
            "dim": 32,
            "image": {"name": "test_efficientnet"},
            "text": {"config": {**text, "intermediate_size": 64}, "vocab_size": 400, "max_tokens": 40},
        }
    )
    tokenizer = train_tokenizer(shop.products["title"].to_pylist(), 400, config.text.max_tokens)
    model = Clik(config, Preprocessing(size=64), tokenizer.get_vocab_size())
    torch.nn.init.normal_(model.query.aggregate.weight, std=0.3)
    folder = tmp_path_factory.mktemp("package") / "clik"
    Ranker("clik", config, Preprocessing(size=64), tokenizer, model).save(folder, "# test", {})
    return folder


async def ask(service: Service, **fields: Any) -> httpx.Response:
    return await service.http.post("/v1/rank", json={"topic": TOPIC, **fields})


def ranked(package: Path, photos: list[bytes]) -> list[tuple[int, float, float, float]]:
    ranker = Embedder.load(package)
    assert isinstance(ranker, Ranker)
    pictures: list[Image.Image] = [decode(photo, draft=64).image for photo in photos]
    places = ranker.rank(TopicText(**TOPIC), pictures)  # type: ignore[arg-type]
    return [(place.index, place.score, place.fit, place.attraction) for place in places]


def told(answer: httpx.Response) -> list[tuple[int, float, float, float]]:
    assert answer.status_code == 200, answer.text
    rows = answer.json()["results"]
    return [(row["index"], row["relevance_score"], row["fit"], row["attraction"]) for row in rows]


@pytest.mark.parametrize("n", [1, 7])
def test_the_answer_is_the_packages_ranking(running: Any, package: Path, n: int) -> None:
    photos = [jpeg(seed) for seed in range(n)]

    async def body(service: Service) -> None:
        await service.promote(Release("eclip", "eclip/1"))
        answer = await ask(service, images=[photo_item(photo) for photo in photos])
        expected = ranked(package, photos)
        assert [row[0] for row in told(answer)] == [row[0] for row in expected]
        np.testing.assert_allclose(told(answer), expected, atol=1e-5)
        assert answer.json()["failed"] == []
        assert answer.json()["model"] == answer.headers["X-Model-Version"] == "eclip/1"
        first = await ask(service, images=[photo_item(photo) for photo in photos], top_n=3)
        assert told(first) == told(answer)[:3]
        sources = [photo_item(photo)["image_url"]["url"] for photo in photos]
        echoed = await ask(service, images=sources, top_n=10**6, return_images=True)
        assert [row["image"] for row in echoed.json()["results"]] == [sources[row[0]] for row in expected]

    running(body)


def test_a_photo_that_cannot_be_read_is_told_and_the_rest_ranked(running: Any, package: Path) -> None:
    photos = [jpeg(seed) for seed in range(5)]

    async def body(service: Service) -> None:
        await service.promote(Release("eclip", "eclip/1"))
        images = [photo_item(photo) for photo in photos]
        images[2] = photo_item(photos[2][: len(photos[2]) * 2 // 3])
        images[4] = {"type": "product", "product_id": "nobody"}
        answer = await ask(service, images=images)
        good = {0: 0, 1: 1, 2: 3}
        expected = [(good[row[0]], *row[1:]) for row in ranked(package, [photos[i] for i in (0, 1, 3)])]
        np.testing.assert_allclose(told(answer), expected, atol=1e-5)
        assert [(row["index"], row["code"]) for row in answer.json()["failed"]] == [
            (2, "image_truncated"),
            (4, "no_index"),
        ]
        alone = await ask(service, images=[images[2]])
        assert error(alone) == (422, "image_truncated")
        assert alone.json()["error"]["param"] == "images[0]"

    running(body)


def test_products_of_the_index_are_candidates(running: Any, package: Path, shop: Dataset, tmp_path: Path) -> None:
    async def body(service: Service) -> None:
        index = make_index(tmp_path / "index", package, shop, 1)
        await service.promote(Release("eclip", "eclip/1", str(index), "s"))
        images = [{"type": "product", "product_id": "p1"}, photo_item(jpeg(9)), {"type": "product", "product_id": "?"}]
        answer = await ask(service, images=images)
        assert sorted(row[0] for row in told(answer)) == [0, 1]
        assert [(row["index"], row["code"]) for row in answer.json()["failed"]] == [(2, "product_not_found")]

    running(body, search=True)


def test_a_thousand_images_are_ranked_and_one_more_is_refused(running: Any) -> None:
    async def body(service: Service) -> None:
        await service.promote(Release("eclip", "eclip/1"))
        images = [photo_item(jpeg(seed)) for seed in range(20)] * 50
        rows = told(await ask(service, images=images))
        assert sorted(row[0] for row in rows) == list(range(1000))
        assert [row[1] for row in rows] == sorted((row[1] for row in rows), reverse=True)
        assert error(await ask(service, images=[*images, images[0]])) == (400, "too_many_inputs")

    running(body, limits=Limits(deadline_s=120))


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"images": []}, "images"),
        ({"images": None}, "images"),
        ({"images": [3]}, "images[0]"),
        ({"images": [{"type": "text", "text": "x"}]}, "images[0]"),
        ({"images": ["x"], "top_n": 0}, "top_n"),
        ({"images": ["x"], "topic": {}}, "topic"),
        ({"images": ["x"], "topic": {"title": "x"}}, "topic.title"),
        ({"images": ["x"], "topic": {"name": "x", "date": "1.4.2025"}}, "topic"),
        ({"images": ["x"], "topic": {"name": ["x"]}}, "topic.name"),
        ({"images": ["x"], "top": 3}, "top"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(running: Any, change: dict[str, Any], param: str) -> None:
    async def body(service: Service) -> None:
        await service.promote(Release("eclip", "eclip/1"))
        answer = await ask(service, **change)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == param

    running(body)


def test_missing_fields_are_blank(running: Any, package: Path) -> None:
    async def body(service: Service) -> None:
        await service.promote(Release("eclip", "eclip/1"))
        answer = await service.http.post("/v1/rank", json={"topic": {"kwds": ["red"]}, "images": [photo_item(jpeg(1))]})
        assert len(told(answer)) == 1

    running(body)


def test_without_a_model_that_ranks_it_says_so(running: Any, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(service: Service) -> None:
        answer = await ask(service, images=[photo_item(jpeg(1))])
        assert error(answer) == (503, "no_ranker")

    running(body)
