"""The deployment that runs the model: packages by version, batches over requests, faults item by item."""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeGuard

import numpy as np
import torch
from ray.serve.handle import DeploymentHandle

from serve_apps.batcher import Batcher
from serve_apps.encoded import Encoded, Prepared
from serve_apps.settings import Batching, Settings
from serve_apps.versions import Versions
from shoplens.errors import ShoplensError
from shoplens.evaluation.heads.extractor import Extractor
from shoplens.packages.embedder import Embedder
from shoplens.packages.photo_embedder import PhotoEmbedder
from shoplens.packages.ranking import Query
from shoplens.recipes.clik import Ranker
from shoplens.registry import versions as packages
from shoplens.schema import TopicText

log = logging.getLogger("ray.serve")

STUCK_AFTER_S = 20.0
"""Without a finished batch for so long while items wait, the model counts as stuck."""
SENTINEL = "shoplens 상품"
"""What the health check and the check of a new version encode, where the model reads texts."""


class Model:
    """A loaded version with its queues; texts and images take turns in one compute thread."""

    def __init__(
        self, embedder: PhotoEmbedder, batching: Batching, compute: ThreadPoolExecutor, prepared: Prepared | None = None
    ) -> None:
        self.embedder = embedder
        self.prepared = prepared
        self._texts: Batcher[str, tuple[np.ndarray, int]] = Batcher(
            self._encode_texts, compute, max_size=batching.texts, wait_s=batching.wait_s
        )
        self._images: Batcher[np.ndarray, np.ndarray] = Batcher(
            self._encode_images, compute, max_size=batching.images, wait_s=batching.wait_s
        )

        self._topics: Batcher[TopicText, Query] = Batcher(
            self._encode_topics, compute, max_size=batching.texts, wait_s=batching.wait_s
        )

    @property
    def sentinel(self) -> tuple[list[str], np.ndarray | None]:
        """What the health check asks `encode` for: a text, of a model that reads texts, or else a photo."""
        if reads_texts(self.embedder):
            return [SENTINEL], None
        side = self.embedder.image_size
        return [], np.zeros((1, 3, side, side), np.uint8)

    @property
    def batches(self) -> int:
        return self._texts.batches + self._images.batches + self._topics.batches

    def _encode_texts(self, texts: Sequence[str]) -> list[tuple[np.ndarray, int]]:
        if not reads_texts(self.embedder):
            raise ShoplensError("this model reads photos, and no texts")
        vectors = _checked(self.embedder.encode_texts(texts))
        return list(zip(vectors, self.embedder.count_tokens(texts), strict=True))

    def _encode_topics(self, topics: Sequence[TopicText]) -> list[Query]:
        assert isinstance(self.embedder, Ranker)
        asked = self.embedder.encode_topics(topics, datetime.date.today())
        return [Query(_checked(topic[None]), _checked(query[None])) for topic, query in zip(*asked, strict=True)]

    async def query(self, topic: TopicText) -> Query:
        (found,) = await self._topics.submit([topic])
        if isinstance(found, BaseException):
            raise found
        return found

    def _encode_images(self, pixels: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(_checked(self.embedder.encode_images(np.stack(pixels))))

    async def encode(self, texts: Sequence[str], images: np.ndarray | None) -> Encoded:
        pixels = [] if images is None else list(images)
        text_results, image_results = await asyncio.gather(self._texts.submit(texts), self._images.submit(pixels))
        encoded = Encoded(
            np.zeros((len(texts), self.embedder.dim), np.float32),
            np.zeros((len(pixels), self.embedder.dim), np.float32),
        )
        for i, result in enumerate(text_results):
            if isinstance(result, BaseException):
                encoded.text_faults[i] = _fault(result)
            else:
                encoded.texts[i] = result[0]
                encoded.tokens += result[1]
        for i, image_result in enumerate(image_results):
            if isinstance(image_result, BaseException):
                encoded.image_faults[i] = _fault(image_result)
            else:
                encoded.images[i] = image_result
        return encoded


def _checked(vectors: np.ndarray) -> np.ndarray:
    if not np.isfinite(vectors).all():
        raise ValueError("the model's answer is not a finite number")
    return vectors


def reads_texts(embedder: PhotoEmbedder) -> TypeGuard[Embedder]:
    """Whether the model has a text tower, beside that for photos."""
    return hasattr(embedder, "encode_texts")


def _fault(error: BaseException) -> str:
    if isinstance(error, ShoplensError):
        return str(error)
    log.warning("an item could not be encoded: %s: %s", type(error).__name__, error)
    return f"the model cannot encode it ({type(error).__name__})"


def prepared(folder: Path, embedder: PhotoEmbedder) -> Prepared:
    """Raises ShoplensError if the package's attribute heads are damaged, or of another model."""
    extractor = Extractor.load(folder)
    if extractor is not None and extractor.dim != embedder.dim:
        raise ShoplensError(
            f"the attribute heads take vectors of {extractor.dim} numbers, the model gives {embedder.dim}"
        )
    settings = json.loads((folder / "config.json").read_text()).get("evaluation", {})
    return Prepared(
        embedder.preprocessing,
        embedder.dim,
        embedder.model.logit_scale.exp().item() if reads_texts(embedder) else 1.0,
        extractor,
        settings.get("attribute_prompt", "{value}"),
        isinstance(embedder, Ranker),
        reads_texts(embedder),
    )


def check(embedder: PhotoEmbedder) -> None:
    """A loaded version before it is let near traffic: shapes, unit length, and a batch equal to its parts.

    Raises ShoplensError.
    """
    grey = np.arange(256, dtype=np.uint8)
    side = embedder.image_size
    pixels = np.stack([np.resize(grey[::step], (3, side, side)) for step in (1, 3)])
    encoded = [("photos", embedder.encode_images(pixels), embedder.encode_images(pixels[:1]))]
    if reads_texts(embedder):
        texts = [SENTINEL, f"{SENTINEL} 2"]
        encoded.append(("texts", embedder.encode_texts(texts), embedder.encode_texts(texts[:1])))
    for kind, together, alone in encoded:
        lengths = np.linalg.norm(together, axis=1)
        if together.shape != (2, embedder.dim) or not np.allclose(lengths, 1, atol=1e-3):
            raise ShoplensError(f"the package does not turn {kind} into unit vectors of {embedder.dim} numbers")
        if float(together[0] @ alone[0]) < 0.999:
            raise ShoplensError(f"the package encodes {kind} differently in a batch and alone")


class Encoder:
    """`encode` for any registered version; `prepare` and `activate` are for `Rollout`."""

    async def __init__(self, settings: Settings, rollout: DeploymentHandle) -> None:  # type: ignore[misc]  # Serve awaits it
        self._settings = settings
        settings.choose_registry()
        self._device = settings.device
        if self._device == "auto":
            self._device = "cuda" if torch.cuda.is_available() else "cpu"
        if settings.torch_threads is not None:
            torch.set_num_threads(settings.torch_threads)
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._models: Versions[str, Model] = Versions(self._load, settings.versions_kept)
        self._active: dict[str, str] = {}
        self._pulse: asyncio.Task[None] | None = None
        await self._catch_up(rollout)

    async def _catch_up(self, rollout: DeploymentHandle) -> None:
        """A replica that joins a service which already answers loads its versions before taking requests."""
        try:
            releases = await asyncio.wait_for(rollout.serving.remote(), 30)
            for reference, release in releases.items():
                await self.prepare(release.version)
                self.activate(reference, release.version)
        except Exception:
            log.exception("the Encoder starts without a model; the rollout will load it")

    async def _load(self, version: str) -> Model:
        embedder, prepared = await asyncio.to_thread(self._load_blocking, version)
        return Model(embedder, self._settings.batching, self._compute, prepared)

    def _load_blocking(self, version: str) -> tuple[PhotoEmbedder, Prepared]:
        folder = packages.download(packages.resolve(version), self._settings.cache_dir())
        embedder = PhotoEmbedder.load(folder).to(self._device)
        check(embedder)
        log.info("loaded %s on %s", version, self._device)
        return embedder, prepared(folder, embedder)

    async def prepare(self, version: str) -> Prepared:
        """Loads `version` beside what is there and checks it. Raises ShoplensError if it is not fit to serve."""
        found = (await self._models.get(version)).prepared
        assert found is not None
        return found

    def activate(self, reference: str, version: str) -> None:
        """Keeps `version` in memory as the one of `reference` in use."""
        self._active[reference] = version
        self._models.pinned = frozenset(self._active.values())

    async def encode(self, version: str, texts: Sequence[str], images: np.ndarray | None) -> Encoded:
        """`images` uint8 [n, 3, size, size], preprocessed for `version`."""
        model = await self._models.get(version)
        return await model.encode(texts, images)

    async def query(self, version: str, topic: TopicText) -> Query:
        """Of a model that ranks; a topic without a date opens today."""
        return await (await self._models.get(version)).query(topic)

    async def pulse(self) -> None:
        """Goes through the queue that requests go through.

        Raises RuntimeError if the sentinel does not come back and no batch has been finished meanwhile:
        a long queue is healthy, a stuck one is not.
        """
        if self._pulse is None or self._pulse.done():
            self._pulse = asyncio.get_running_loop().create_task(self._beat())
        await asyncio.shield(self._pulse)

    async def _beat(self) -> None:
        for version in self._active.values():
            model = self._models.peek(version)
            if model is None:
                continue
            before = sum(loaded.batches for loaded in self._models)
            try:
                encoded = await asyncio.wait_for(model.encode(*model.sentinel), STUCK_AFTER_S)
            except asyncio.TimeoutError:
                if sum(loaded.batches for loaded in self._models) == before:
                    raise RuntimeError(f"{version} has finished no batch for {STUCK_AFTER_S:.0f} s") from None
            else:
                if faults := encoded.text_faults or encoded.image_faults:
                    raise RuntimeError(f"{version} cannot encode the sentinel: {faults[0]}")

    async def check_health(self) -> None:
        await self.pulse()
