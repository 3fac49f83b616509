"""A trained CLIK with its tokenizer and preprocessing: photos ranked for topics, with the reasons."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from shoplens.datasets.topic_text import TopicTokens
from shoplens.errors import ShoplensError
from shoplens.nn.clik import Clik, ClikConfig
from shoplens.packages.embedder import Embedder
from shoplens.schema import TopicText


class Query(NamedTuple):
    """Unit rows [n, dim]: the topics as the text tower sees them, and the queries that photos are scored with."""

    topic: np.ndarray
    query: np.ndarray


class Reasons(NamedTuple):
    """`score` [n] in -1 to 1 and its two parts: `fit`, along the topic itself, and `attraction`, the rest."""

    score: np.ndarray
    fit: np.ndarray
    attraction: np.ndarray


@dataclass(frozen=True)
class Place:
    """One photo in a ranking, best first; `index` is its place in what was asked for."""

    index: int
    score: float
    fit: float
    attraction: float


class Ranker(Embedder):
    """Texts are names of topics here; `rank` takes whole ones."""

    Config = ClikConfig
    Model = Clik
    model: Clik
    config: ClikConfig

    @cached_property
    def _write(self) -> TopicTokens:
        return TopicTokens(self.tokenizer, self.config.topic_text)

    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        """Names of topics -> float32 unit rows [n, dim]."""
        return self.encode_topics([TopicText(name=text) for text in texts], batch_size=batch_size).topic

    @torch.inference_mode()
    def encode_topics(
        self, topics: Sequence[TopicText], today: datetime.date | None = None, batch_size: int = 256
    ) -> Query:
        """Topics without a date open `today`, or in no season. Raises ShoplensError if a date is no date."""
        device = self.model.logit_scale.device
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for start in range(0, len(topics), batch_size):
            written = self._write(topics[start : start + batch_size], today)
            rows = self.model.encode_text(
                **{name: torch.tensor(array, device=device) for name, array in written.items()}
            )
            found.append((rows.cpu().numpy(), self.model.query(rows).cpu().numpy()))
        none = np.empty((0, self.dim), np.float32)
        topic, query = zip(*found, strict=True) if found else ((none,), (none,))
        return Query(np.concatenate(topic), np.concatenate(query))

    def rank(
        self,
        topic: TopicText,
        photos: Sequence[Image.Image] | np.ndarray,
        top_n: int | None = None,
        today: datetime.date | None = None,
    ) -> list[Place]:
        """The photos, or their vectors [n, dim], best first, `top_n` of them at most; a topic opens today unless it
        says otherwise.

        Raises ShoplensError if there is nothing to rank.
        """
        if not len(photos):
            raise ShoplensError("there is no photo to rank")
        vectors = (
            photos
            if isinstance(photos, np.ndarray)
            else self.encode_images(np.stack([self.preprocess(photo) for photo in photos]))
        )
        asked = self.encode_topics([topic], today or datetime.date.today())
        return places(reasons(asked.topic[0], asked.query[0], vectors), top_n)


def reasons(topic: np.ndarray, query: np.ndarray, vectors: np.ndarray) -> Reasons:
    """Why photos score as they do: query [dim] = (query . topic) topic + rest, both applied to vectors [n, dim]."""
    along = (query @ topic) * topic
    score, fit = vectors @ query, vectors @ along
    return Reasons(score, fit, score - fit)


def places(found: Reasons, top_n: int | None = None) -> list[Place]:
    """In order of score, photos of equal score in the order in which they came."""
    order = np.argsort(-found.score, kind="stable")[:top_n]
    return [Place(int(i), *(float(part[i]) for part in found)) for i in order]
