"""A trained encoder of photos with its preprocessing: what every package holds and an endpoint runs."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from typing_extensions import Self

from shoplens.config import validate
from shoplens.datasets.preprocessing import Preprocessing
from shoplens.errors import ShoplensError
from shoplens.nn.photo_encoder import PhotoEncoder, PhotoEncoderConfig

T = TypeVar("T")

MOVED = {
    "shoplens.models.photo_embedder:PhotoEmbedder": "shoplens.packages.photo_embedder:PhotoEmbedder",
    "shoplens.models.embedder:Embedder": "shoplens.packages.embedder:Embedder",
    "shoplens.models.ranker:Ranker": "shoplens.packages.ranker:Ranker",
    "shoplens.models.similar:SimilarEmbedder": "shoplens.nn.similar:SimilarEmbedder",
}


class PhotoEmbedder:
    """Photos -> unit vectors, to be compared by inner product. `models.embedder.Embedder` reads texts too.

    A package names its kind of embedder, `module:class` below `shoplens.nn`, and `load` returns that kind.
    """

    Config: ClassVar[type[PhotoEncoderConfig]] = PhotoEncoderConfig
    Model: ClassVar[type[PhotoEncoder]] = PhotoEncoder

    def __init__(
        self, name: str, config: PhotoEncoderConfig, preprocessing: Preprocessing, model: PhotoEncoder
    ) -> None:
        self.name, self.config, self.preprocessing = name, config, preprocessing
        self.model = model.eval()

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        return self.config.dim

    @property
    def image_size(self) -> int:
        return self.preprocessing.size

    def to(self, device: str | torch.device) -> Self:
        self.model.to(device)
        return self

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """RGB photo -> uint8 [3, image_size, image_size]."""
        return self.preprocessing(image)

    def encode_images(self, pixels: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """uint8 [n, 3, image_size, image_size] -> float32 unit rows [n, dim]."""
        return self._in_batches(self.model.encode_image, pixels, batch_size, self.dim)

    @torch.inference_mode()
    def _in_batches(
        self, encode: Callable[[Tensor], Tensor], pixels: np.ndarray, batch_size: int, dim: int
    ) -> np.ndarray:
        device = self.model.pixel_mean.device
        rows = [
            encode(torch.tensor(pixels[start : start + batch_size], device=device)).cpu().numpy()
            for start in range(0, len(pixels), batch_size)
        ]
        return np.concatenate(rows) if rows else np.empty((0, dim), np.float32)

    def save(self, folder: str | os.PathLike[str], card: str, about: dict[str, Any]) -> None:
        """Writes the package aside, then moves it to `folder` (which must not exist).

        `about` (recipe, its configuration, dataset digest) goes into `config.json` beside the architecture.
        """
        folder = Path(folder)
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.model.state_dict().items()}
        save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
        (partial / "preprocess.json").write_text(self.preprocessing.model_dump_json(indent=1))
        architecture = self.config.model_dump(mode="json", exclude={"start_from", "locked"})
        kind = f"{type(self).__module__}:{type(self).__name__}"
        config = {"name": self.name, "embedder": kind, "architecture": architecture, **about, **self._further(partial)}
        (partial / "config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False))
        (partial / "MODEL_CARD.md").write_text(card)
        partial.rename(folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Raises ShoplensError if a file of the package is missing or does not fit the others, or if it holds an
        embedder that cannot do what this class can."""
        folder = Path(folder)
        config = read_file(folder, "config.json", lambda path: json.loads(path.read_text()))
        preprocess = read_file(folder, "preprocess.json", lambda path: json.loads(path.read_text()))
        weights = read_file(folder, "model.safetensors", load_file)
        kind = _kind(config.get("embedder", ""), folder)
        if not issubclass(kind, cls):
            raise ShoplensError(
                f"{folder} holds a {kind.__name__}, and this takes a {cls.__name__}"
                + ("" if hasattr(kind, "encode_texts") else ": it reads photos, and no texts")
            )
        preprocessing = validate(Preprocessing, preprocess, f"{folder}/preprocess.json")
        embedder = kind._untrained(config, preprocessing, folder)
        try:
            embedder.model.load_state_dict(weights)
        except RuntimeError as error:
            raise ShoplensError(f"the weights of {folder} do not fit its config.json: {error}") from error
        return embedder

    def _further(self, folder: Path) -> dict[str, Any]:
        """Writes what else belongs into the package; returns what else belongs into its `config.json`."""
        return {}

    @classmethod
    def _untrained(cls, config: Mapping[str, Any], preprocessing: Preprocessing, folder: Path) -> Self:
        """What `config.json` describes."""
        settings = validate(cls.Config, config["architecture"], f"{folder}/config.json")
        return cls(config["name"], settings, preprocessing, cls.Model(settings, preprocessing, pretrained=False))


def read_file(folder: Path, name: str, read: Callable[[Path], T]) -> T:
    """A file of a package. Raises ShoplensError if it is missing or damaged."""
    if not (folder / name).is_file():
        raise ShoplensError(f"{folder} is not a package: {name} is missing")
    try:
        return read(folder / name)
    except Exception as error:  # tokenizers and safetensors raise classes of their own
        raise ShoplensError(f"the package {folder} is damaged: {error}") from error


def _kind(name: str, folder: Path) -> type[Any]:
    match = re.fullmatch(r"(shoplens\.(?:nn|packages)\.\w+):(\w+)", MOVED.get(str(name), str(name)))
    try:
        found = match and getattr(import_module(match[1]), match[2], None)
    except ImportError:
        found = None
    if not (isinstance(found, type) and issubclass(found, PhotoEmbedder)):
        raise ShoplensError(f"{folder}/config.json names an embedder that there is not here: {name!r}")
    return found
