"""The Encoder with a real package, without Ray around it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from serve_apps import encoder
from serve_apps.encoded import Fault
from serve_apps.encoder import Encoder, Model, cores, prepared
from serve_apps.settings import Batching, Settings
from shoplens.datasets.preprocessing import Preprocessing
from shoplens.errors import ShoplensError
from shoplens.nn.similar import HeadConfig, SimilarConfig, SimilarEncoder
from shoplens.nn.towers import ImageTowerConfig
from shoplens.packages.capabilities import EMBED_IMAGE, EMBED_TEXT
from shoplens.packages.check import check
from shoplens.packages.embedder import Embedder
from shoplens.recipes.similar import SimilarEmbedder
from tests.serve_apps.conftest import Local


@pytest.fixture(scope="module")
def embedder(package: Path) -> Embedder:
    return Embedder.load(package)


class Faulty:
    """A model that one item breaks, and that can be made to hang."""

    can = (EMBED_IMAGE, EMBED_TEXT)
    name, dim, preprocessing = "faulty", 4, Preprocessing(size=8)

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.delay = 0.0

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        self.go.wait(20)
        time.sleep(self.delay)
        if "poison" in texts:
            raise RuntimeError("the kernel failed")
        vectors = np.eye(4, dtype=np.float32)[[len(text) % 4 for text in texts]]
        return np.where(np.array(texts)[:, None] == "nan", np.float32("nan"), vectors)

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        self.go.wait(20)
        return np.eye(4, dtype=np.float32)[np.zeros(len(pixels), int)]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]


def test_a_request_gets_what_the_package_says(embedder: Embedder) -> None:
    texts = ["a mug", "a much longer text about a dress 원피스", "x"]
    pixels = np.random.default_rng(0).integers(0, 255, (5, 3, 64, 64), dtype=np.uint8)

    async def main(pool: ThreadPoolExecutor) -> None:
        model = Model(embedder, Batching(images=2, texts=2), pool)
        said, seen, other = await asyncio.gather(
            model.call("embed_text", texts), model.call("embed_image", pixels), model.call("embed_text", ["x"])
        )
        assert np.allclose([text.vector for text in said], embedder.encode_texts(texts), atol=1e-5)
        assert np.allclose(seen, embedder.encode_images(pixels), atol=1e-5)
        assert [text.tokens for text in said] == [embedder.count_tokens([text])[0] for text in texts]
        assert np.allclose(other[0].vector, said[2].vector, atol=1e-5)
        assert await model.call("embed_image", []) == []

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(main(pool))


@pytest.mark.parametrize("bad", ["poison", "nan"])
def test_an_item_the_model_breaks_on_costs_only_its_own_request(bad: str) -> None:
    async def main(pool: ThreadPoolExecutor) -> None:
        model = Model(Faulty(), Batching(), pool)  # type: ignore[arg-type]
        requests = [["a"], ["b", bad, "ccc"], *([str(i)] for i in range(30))]
        answers = await asyncio.gather(*(model.call("embed_text", texts) for texts in requests))
        faults = [[place for place, found in enumerate(answer) if isinstance(found, Fault)] for answer in answers]
        assert faults == [[], [1], *([] for _ in range(30))]
        assert np.allclose(answers[0][0].vector, np.eye(4)[1])

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(main(pool))


def test_a_package_is_checked_before_it_is_used(embedder: Embedder) -> None:
    check(embedder)

    class Long(Faulty):
        def encode_images(self, pixels: np.ndarray) -> np.ndarray:
            return 2 * super().encode_images(pixels)

    class Leaky(Faulty):
        def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
            return np.eye(4, dtype=np.float32)[[len(texts)] * len(texts)]

    with pytest.raises(ShoplensError, match="unit vectors"):
        check(Long())  # type: ignore[arg-type]
    with pytest.raises(ShoplensError, match="batch"):
        check(Leaky())  # type: ignore[arg-type]


def test_a_model_that_reads_photos_alone_is_served_and_refuses_texts(tmp_path: Path) -> None:
    config = SimilarConfig(image=ImageTowerConfig(name="test_efficientnet"), dim=16, head=HeadConfig(dim=8))
    preprocessing = Preprocessing(size=32)
    embedder = SimilarEmbedder("similar", config, preprocessing, SimilarEncoder(config, preprocessing))
    embedder.save(tmp_path / "package", "# test", {})
    check(embedder)
    assert prepared(tmp_path / "package", embedder).dim == 8
    assert prepared(tmp_path / "package", embedder).capabilities == ("embed_image",)
    pixels = np.random.default_rng(0).integers(0, 255, (3, 3, 32, 32), dtype=np.uint8)

    async def main(pool: ThreadPoolExecutor) -> None:
        model = Model(embedder, Batching(), pool)
        found, _ = await asyncio.gather(model.call("embed_image", pixels), model.beat())
        assert np.allclose(found, embedder.encode_images(pixels), atol=1e-5)
        with pytest.raises(ShoplensError, match="similar does photo → vector, and no text → vector"):
            await model.call("embed_text", ["a mug"])

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(main(pool))


def test_the_model_has_the_cpus_that_ray_reserves_or_all_cores() -> None:
    assert cores(3.0) == 3
    assert 1 <= cores(0.1) == cores(0) <= len(os.sched_getaffinity(0))


def test_health_tells_a_stuck_model_from_a_busy_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "STUCK_AFTER_S", 0.3)

    class Rollout:
        def serving(self) -> dict[str, object]:
            return {}

    async def main() -> None:
        replica = Encoder.__new__(Encoder)
        await replica.__init__(Settings(), Local(Rollout()))  # type: ignore[misc]
        await replica.check_health()
        faulty = Faulty()
        model = Model(faulty, Batching(texts=1), replica._compute)  # type: ignore[arg-type]

        async def load(version: str) -> Model:
            return model

        replica._models._load = load
        await replica._models.get("eclip/1")
        replica.activate("eclip", "eclip/1")
        await replica.check_health()

        faulty.go.clear()
        with pytest.raises(RuntimeError, match="no batch"):
            await replica.check_health()
        with pytest.raises(RuntimeError, match="no batch"):
            await asyncio.gather(*(replica.pulse() for _ in range(50)))
        faulty.go.set()
        await replica.check_health()

        faulty.delay = 0.005
        backlog = asyncio.create_task(model.call("embed_text", [str(i) for i in range(200)]))
        await asyncio.sleep(0)
        await replica.check_health()
        assert not backlog.done()
        assert not any(isinstance(found, Fault) for found in await backlog)

        check = asyncio.create_task(replica.check_health())
        await asyncio.sleep(0.001)
        replica.activate("mugs", "mugs/1")
        await check

    asyncio.run(main())
