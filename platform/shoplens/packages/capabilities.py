"""Capabilities: what a trained model can do, each as one batched call.

A class of packages declares its capabilities. The Encoder keeps one queue for each, an endpoint asks for one, and the
pyfunc signature, index building, `shoplens models` and the page follow from them. A new capability is an entry here
and, where people should reach it over HTTP, a file in `serve_apps/endpoints`.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np

from shoplens.datasets.preprocessing import Preprocessing
from shoplens.errors import ShoplensError
from shoplens.packages.ranking import Query
from shoplens.schema import TopicText

Item = TypeVar("Item")
Result = TypeVar("Result")

Column = Literal["text", "image", "topic"]
Answer = Literal["vector", "query", "attributes", "text", "score"]

PROBE = "shoplens 상품"
"""The text that health checks encode."""
PROBES = (
    PROBE,
    "red dress",
    "여성 플로럴 원피스 무료배송",
    "navy canvas backpack 20L, water-resistant, two side pockets",
    "[특가] 스테인리스 프라이팬 28cm 인덕션 겸용 + 뒤집개 증정",
    "a photo of white running shoes, size 240, on white ground: breathable mesh, rubber sole, free returns in 30 days",
    "머그컵",
    "LG-1092 / hoodie / cotton / BEST 1+1 ★",
)
"""The texts that a new version is checked with."""


class PhotoText(NamedTuple):
    """A photo and a text that belong together: pixels uint8 [3, h, w]."""

    pixels: np.ndarray
    text: str


class TextVector(NamedTuple):
    """A unit vector float32 [d], and the number of tokens that were read for it."""

    vector: np.ndarray
    tokens: int


class TakesImages(Protocol):
    """A model that reads photos, preprocessed to uint8 [3, size, size]."""

    @property
    def preprocessing(self) -> Preprocessing: ...


class ReadsTexts(Protocol):
    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, as far as the model reads it."""
        ...


class EmbedsImages(TakesImages, Protocol):
    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [n, 3, size, size] -> float32 unit rows [n, d]."""
        ...


class EmbedsTexts(ReadsTexts, Protocol):
    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """n texts -> float32 unit rows [n, d]."""
        ...


class EmbedsImagesWithTexts(TakesImages, ReadsTexts, Protocol):
    def encode_images_with_texts(self, pixels: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """uint8 [n, 3, size, size] and n texts -> float32 unit rows [n, d], one for each pair."""
        ...


class RanksImages(EmbedsImages, Protocol):
    def encode_topics(self, topics: Sequence[TopicText], today: datetime.date | None = None) -> Query:
        """Topics -> unit rows [n, d]: the topics themselves, and the queries that image vectors are scored with."""
        ...


class WritesTexts(TakesImages, Protocol):
    def write_texts(self, pixels: np.ndarray) -> list[str]:
        """uint8 [n, 3, size, size] -> a text for each photo."""
        ...


class ScoresImages(TakesImages, Protocol):
    def score_images(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [n, 3, size, size] -> a number from 0 to 1 for each photo, float32 [n]."""
        ...


@dataclass(frozen=True)
class Capability(Generic[Item, Result]):
    """One thing that models can do.

    name      stable: packages, version tags and `GET /v1/models` state it
    title     for people, such as "photo → vector"
    takes     what one item is made of
    gives     what one result is
    call      (model, items) -> one result an item; None where the Gateway makes the answer from vectors
    samples   items that every model with this capability can answer, for health checks; [] without a `call`
    """

    name: str
    title: str
    takes: tuple[Column, ...]
    gives: Answer
    call: Callable[[Any, Sequence[Item]], Sequence[Result]] | None
    samples: Callable[[Any], list[Item]]

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Callable[[str], Capability[Any, Any]], tuple[str]]:
        return named, (self.name,)


def _pixels(model: TakesImages) -> list[np.ndarray]:
    """Two textures, and fields of random colours on grounds from black to white, the same every time."""
    side, grey = model.preprocessing.size, np.arange(256, dtype=np.uint8)
    photos = [np.resize(grey[::step], (3, side, side)) for step in (1, 3)]
    rng = np.random.default_rng(0)
    for fields, ground in ((2, 0), (3, 128), (5, 255), (7, 255), (12, 240), (16, 200)):
        colours = rng.integers(0, 256, (3, fields, fields), dtype=np.uint8)
        colours[:, rng.random((fields, fields)) < 0.4] = ground
        rows = np.arange(side) * fields // side
        photos.append(colours[:, rows][:, :, rows])
    return photos


def _texts(_: object) -> list[str]:
    return list(PROBES)


def _finite(vectors: np.ndarray) -> np.ndarray:
    if not np.isfinite(vectors).all():
        raise ValueError("the model's answer is not a finite number")
    return vectors


def _embed_images(model: EmbedsImages, pixels: Sequence[np.ndarray]) -> list[np.ndarray]:
    return list(_finite(model.encode_images(np.stack(pixels))))


def _embed_texts(model: EmbedsTexts, texts: Sequence[str]) -> list[TextVector]:
    vectors = _finite(model.encode_texts(texts))
    return [TextVector(*pair) for pair in zip(vectors, model.count_tokens(texts), strict=True)]


def _embed_images_with_texts(model: EmbedsImagesWithTexts, photos: Sequence[PhotoText]) -> list[TextVector]:
    pixels, texts = np.stack([photo.pixels for photo in photos]), [photo.text for photo in photos]
    vectors = _finite(model.encode_images_with_texts(pixels, texts))
    return [TextVector(*pair) for pair in zip(vectors, model.count_tokens(texts), strict=True)]


def _query_topics(model: RanksImages, topics: Sequence[TopicText]) -> list[Query]:
    asked = model.encode_topics(topics, datetime.date.today())
    return [Query(_finite(topic[None]), _finite(query[None])) for topic, query in zip(*asked, strict=True)]


def _write_texts(model: WritesTexts, pixels: Sequence[np.ndarray]) -> list[str]:
    return model.write_texts(np.stack(pixels))


def _score_images(model: ScoresImages, pixels: Sequence[np.ndarray]) -> list[float]:
    return [float(score) for score in _finite(model.score_images(np.stack(pixels)))]


EMBED_IMAGE: Capability[np.ndarray, np.ndarray] = Capability(
    "embed_image", "photo → vector", ("image",), "vector", _embed_images, _pixels
)
EMBED_TEXT: Capability[str, TextVector] = Capability(
    "embed_text", "text → vector", ("text",), "vector", _embed_texts, _texts
)
EMBED_IMAGE_TEXT: Capability[PhotoText, TextVector] = Capability(
    "embed_image_text",
    "photo + text → vector",
    ("image", "text"),
    "vector",
    _embed_images_with_texts,
    lambda model: [PhotoText(*pair) for pair in zip(_pixels(model), _texts(model), strict=True)],
)
RANK_IMAGES: Capability[TopicText, Query] = Capability(
    "rank_images",
    "topic + photos → ranking",
    ("topic",),
    "query",
    _query_topics,
    lambda model: [TopicText(name=text) for text in _texts(model)],
)
EXTRACT_ATTRIBUTES: Capability[Any, Any] = Capability(
    "extract_attributes", "photo, text → attributes", ("image", "text"), "attributes", None, lambda model: []
)
WRITE_TEXT: Capability[np.ndarray, str] = Capability(
    "write_text", "photo → text", ("image",), "text", _write_texts, _pixels
)
SCORE_IMAGE: Capability[np.ndarray, float] = Capability(
    "score_image", "photo → score", ("image",), "score", _score_images, _pixels
)

ALL: dict[str, Capability[Any, Any]] = {
    capability.name: capability
    for capability in (
        EMBED_IMAGE,
        EMBED_TEXT,
        EMBED_IMAGE_TEXT,
        RANK_IMAGES,
        EXTRACT_ATTRIBUTES,
        WRITE_TEXT,
        SCORE_IMAGE,
    )
}


def named(name: str) -> Capability[Any, Any]:
    """Raises ShoplensError if this version of shoplens does not know the capability."""
    if name not in ALL:
        raise ShoplensError(f"there is no capability {name!r} here (there are {', '.join(ALL)}): upgrade shoplens")
    return ALL[name]
