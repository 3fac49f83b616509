"""A trained encoder of photos with its preprocessing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from typing_extensions import Self

from shoplens.config import validate
from shoplens.datasets.preprocessing import Preprocessing
from shoplens.nn.photo_encoder import PhotoEncoder, PhotoEncoderConfig
from shoplens.packages.capabilities import EMBED_IMAGE, Capability
from shoplens.packages.model import PackagedModel, read_file


class PhotoEmbedder(PackagedModel):
    """Photos -> unit vectors, to be compared by inner product."""

    capabilities: ClassVar[tuple[Capability[Any, Any], ...]] = (EMBED_IMAGE,)
    files: ClassVar[tuple[str, ...]] = ("preprocess.json",)
    Config: ClassVar[type[PhotoEncoderConfig]] = PhotoEncoderConfig
    Model: ClassVar[type[PhotoEncoder]] = PhotoEncoder
    model: PhotoEncoder

    def __init__(
        self, name: str, config: PhotoEncoderConfig, preprocessing: Preprocessing, model: PhotoEncoder
    ) -> None:
        super().__init__(name, model)
        self.config = config
        self._preprocessing = preprocessing

    @property
    def preprocessing(self) -> Preprocessing:
        return self._preprocessing

    @property
    def dim(self) -> int:
        return self.config.dim

    @property
    def image_size(self) -> int:
        return self.preprocessing.size

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """RGB photo -> uint8 [3, image_size, image_size]."""
        return self.preprocessing(image)

    def encode_images(self, pixels: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """uint8 [n, 3, image_size, image_size] -> float32 unit rows [n, dim]."""
        return self.in_batches(self.model.encode_image, pixels, batch_size, self.dim)

    @torch.inference_mode()
    def in_batches(
        self, encode: Callable[[Tensor], Tensor], pixels: np.ndarray, batch_size: int, dim: int
    ) -> np.ndarray:
        """Rows float32 [n, dim] that `encode` makes of pixels [n, ...], `batch_size` at a time."""
        rows = [
            encode(torch.tensor(pixels[start : start + batch_size], device=self.device)).cpu().numpy()
            for start in range(0, len(pixels), batch_size)
        ]
        return np.concatenate(rows) if rows else np.empty((0, dim), np.float32)

    def write(self, folder: Path) -> dict[str, Any]:
        (folder / "preprocess.json").write_text(self.preprocessing.model_dump_json(indent=1))
        return {"architecture": self.config.model_dump(mode="json", exclude={"start_from", "locked"})}

    @classmethod
    def read(cls, config: Mapping[str, Any], folder: Path) -> Self:
        settings = validate(cls.Config, config["architecture"], f"{folder}/config.json")
        preprocessing = read_preprocessing(folder)
        return cls(config["name"], settings, preprocessing, cls.Model(settings, preprocessing, pretrained=False))


def read_preprocessing(folder: Path) -> Preprocessing:
    """`preprocess.json` of a package. Raises ShoplensError."""
    text = read_file(folder, "preprocess.json", lambda path: json.loads(path.read_text()))
    return validate(Preprocessing, text, f"{folder}/preprocess.json")
