"""Packages of tiny models with other capabilities than e-CLIP: texts alone, captions, a photo with a text, scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typing_extensions import Self

from shoplens import plugins
from shoplens.datasets.format import Dataset
from shoplens.datasets.preprocessing import Preprocessing
from shoplens.packages.capabilities import EMBED_IMAGE, EMBED_IMAGE_TEXT, EMBED_TEXT, SCORE_IMAGE, WRITE_TEXT
from shoplens.packages.model import PackagedModel
from shoplens.registry import versions as packages
from shoplens.search.index import Index
from shoplens.search.items import items

DIM, SIDE = 8, 16
WORDS = ("red", "green", "blue", "grey")


class Tiny(PackagedModel):
    """A model of bytes and mean colours."""

    @classmethod
    def make(cls, name: str) -> Self:
        torch.manual_seed(0)
        return cls(name, nn.ModuleDict({"bytes": nn.EmbeddingBag(256, DIM), "colours": nn.Linear(3, DIM)}))

    def write(self, folder: Path) -> Mapping[str, Any]:
        return {}

    @classmethod
    def read(cls, config: Mapping[str, Any], folder: Path) -> Self:
        return cls.make(config["name"])

    @torch.inference_mode()
    def of_texts(self, texts: Sequence[str]) -> Tensor:
        return torch.cat([self.model["bytes"](torch.tensor([list(text.encode())])) for text in texts])

    @torch.inference_mode()
    def of_photos(self, pixels: np.ndarray) -> Tensor:
        return self.model["colours"](torch.tensor(pixels).float().mean((2, 3)) / 255)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.encode()) for text in texts]


class Words(Tiny):
    """Embeds texts, and takes no photos."""

    capabilities = (EMBED_TEXT,)
    dim = DIM

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return _unit(self.of_texts(texts))


class Captioner(Tiny):
    """Writes a text for a photo, and gives no vectors."""

    capabilities = (WRITE_TEXT,)
    preprocessing = Preprocessing(size=SIDE)

    def write_texts(self, pixels: np.ndarray) -> list[str]:
        places = (self.of_photos(pixels) * 100).long() % len(WORDS)
        return [" ".join(WORDS[place] for place in row) for row in places.tolist()]


class Scorer(Tiny):
    """Gives a number from 0 to 1 for a photo, and no vectors."""

    capabilities = (SCORE_IMAGE,)
    preprocessing = Preprocessing(size=SIDE)

    def score_images(self, pixels: np.ndarray) -> np.ndarray:
        return torch.sigmoid(self.of_photos(pixels)[:, 0]).numpy()


class Pairs(Tiny):
    """Embeds photos, alone or with a text."""

    capabilities = (EMBED_IMAGE, EMBED_IMAGE_TEXT)
    preprocessing = Preprocessing(size=SIDE)
    dim = DIM

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        return _unit(self.of_photos(pixels))

    def encode_images_with_texts(self, pixels: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        return _unit(self.of_photos(pixels) + self.of_texts(texts))


def _unit(rows: Tensor) -> np.ndarray:
    return nn.functional.normalize(rows).numpy()


def save(folder: Path, kind: type[Tiny]) -> Path:
    kind.make(kind.__name__.lower()).save(folder, "# test", {})
    return folder


def index(folder: Path, name: str, shop: Dataset) -> Path:
    """Random vectors of the shop's photos for version 1 of `name`."""
    rows = np.random.default_rng(1).standard_normal((shop.images.num_rows, DIM)).astype(np.float32)
    about = {"model": name, "version": 1, "dataset_path": shop.path, "dataset_digest": shop.digest}
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    Index.build(folder, unit, items(shop, np.arange(len(rows))), shop.categories, {**about, "dataset": shop.name})
    return folder


def install(patch: pytest.MonkeyPatch, folders: Mapping[str, Path]) -> None:
    """Makes these packages those of the registry, by name, and their classes those of a plug-in."""
    patch.setattr(plugins, "recipe_modules", lambda: {"tiny": __name__})
    patch.setattr(packages, "download", lambda version, *_, **__: folders[version.split("/")[0]])
