"""A trained dual encoder with its tokenizer and preprocessing: what a package holds and an endpoint runs."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from shoplens.config import validate
from shoplens.datasets.preprocessing import Preprocessing
from shoplens.datasets.tokenizers import tokenize
from shoplens.errors import ShoplensError
from shoplens.models.dual_encoder import DualEncoder, DualEncoderConfig


class Embedder:
    """Photos and texts -> unit vectors in one space.

    A package names its kind of embedder, `module:class` below `shoplens.models`, and `load` returns that kind.
    """

    Config: ClassVar[type[DualEncoderConfig]] = DualEncoderConfig
    Model: ClassVar[type[DualEncoder]] = DualEncoder

    def __init__(
        self,
        name: str,
        config: DualEncoderConfig,
        preprocessing: Preprocessing,
        tokenizer: Tokenizer,
        model: DualEncoder,
    ) -> None:
        self.name, self.config, self.preprocessing = name, config, preprocessing
        self.tokenizer, self.model = tokenizer, model.eval()

    @property
    def dim(self) -> int:
        return self.config.dim

    @property
    def image_size(self) -> int:
        return self.preprocessing.size

    def to(self, device: str | torch.device) -> Embedder:
        self.model.to(device)
        return self

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """RGB photo -> uint8 [3, image_size, image_size]."""
        return self.preprocessing(image)

    @torch.inference_mode()
    def encode_images(self, pixels: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """uint8 [n, 3, image_size, image_size] -> float32 unit rows [n, dim]."""
        device = self.model.logit_scale.device
        rows = [
            self.model.encode_image(torch.tensor(pixels[start : start + batch_size], device=device)).cpu().numpy()
            for start in range(0, len(pixels), batch_size)
        ]
        return np.concatenate(rows) if rows else np.empty((0, self.dim), np.float32)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        """Texts, cut at the model's longest, -> float32 unit rows [n, dim]."""
        device = self.model.logit_scale.device
        vectors = np.empty((len(texts), self.dim), np.float32)
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(texts), batch_size):
            chosen = by_length[start : start + batch_size]
            ids, mask = tokenize(self.tokenizer, [texts[i] for i in chosen])
            encoded = self.model.encode_text(torch.tensor(ids, device=device), torch.tensor(mask, device=device))
            vectors[chosen] = encoded.cpu().numpy()
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [sum(encoding.attention_mask) for encoding in self.tokenizer.encode_batch(list(texts))]

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
        self.tokenizer.save(str(partial / "tokenizer.json"))
        (partial / "preprocess.json").write_text(self.preprocessing.model_dump_json(indent=1))
        architecture = self.config.model_dump(mode="json", exclude={"start_from", "locked"})
        kind = f"{type(self).__module__}:{type(self).__name__}"
        config = {"name": self.name, "embedder": kind, "architecture": architecture, **about}
        if self.config.text.name is not None:
            config["text_config"] = self.model.text.trunk.config.to_dict()
        (partial / "config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False))
        (partial / "MODEL_CARD.md").write_text(card)
        partial.rename(folder)

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> Embedder:
        """Raises ShoplensError if a file of the package is missing or does not fit the others."""
        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text())
            preprocess = json.loads((folder / "preprocess.json").read_text())
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            weights = load_file(folder / "model.safetensors")
        except FileNotFoundError as error:
            raise ShoplensError(f"{folder} is not a package: {Path(str(error.filename)).name} is missing") from error
        except Exception as error:  # tokenizers and safetensors raise classes of their own
            raise ShoplensError(f"the package {folder} is damaged: {error}") from error
        architecture = dict(config["architecture"])
        if "text_config" in config:
            architecture["text"] = {**architecture["text"], "name": None, "config": config["text_config"]}
        kind = _kind(config.get("embedder", ""), folder)
        settings = validate(kind.Config, architecture, f"{folder}/config.json")
        preprocessing = validate(Preprocessing, preprocess, f"{folder}/preprocess.json")
        model = kind.Model(settings, preprocessing, tokenizer.get_vocab_size(), pretrained=False)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise ShoplensError(f"the weights of {folder} do not fit its config.json: {error}") from error
        return kind(config["name"], settings, preprocessing, tokenizer, model)


def _kind(name: str, folder: Path) -> type[Embedder]:
    match = re.fullmatch(r"(shoplens\.models\.\w+):(\w+)", str(name))
    try:
        found = match and getattr(import_module(match[1]), match[2], None)
    except ImportError:
        found = None
    if not (isinstance(found, type) and issubclass(found, Embedder)):
        raise ShoplensError(f"{folder}/config.json names an embedder that there is not here: {name!r}")
    return found
