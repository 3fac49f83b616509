"""A trained dual encoder with its tokenizer and preprocessing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from tokenizers import Tokenizer
from typing_extensions import Self

from shoplens.config import validate
from shoplens.datasets.preprocessing import Preprocessing
from shoplens.datasets.tokenizers import tokenize
from shoplens.nn.dual_encoder import DualEncoder, DualEncoderConfig
from shoplens.packages.capabilities import EMBED_IMAGE, EMBED_TEXT, Capability
from shoplens.packages.model import read_file
from shoplens.packages.photo_embedder import PhotoEmbedder, read_preprocessing

PADDING = 64
"""Most tokens of padding in a batch of texts. To split a batch further costs more than its padding."""


class Embedder(PhotoEmbedder):
    """Photos and texts -> unit vectors in one space."""

    capabilities: ClassVar[tuple[Capability[Any, Any], ...]] = (EMBED_IMAGE, EMBED_TEXT)
    files: ClassVar[tuple[str, ...]] = ("preprocess.json", "tokenizer.json")
    Config: ClassVar[type[DualEncoderConfig]] = DualEncoderConfig
    Model: ClassVar[type[DualEncoder]] = DualEncoder
    model: DualEncoder
    config: DualEncoderConfig

    def __init__(
        self,
        name: str,
        config: DualEncoderConfig,
        preprocessing: Preprocessing,
        tokenizer: Tokenizer,
        model: DualEncoder,
    ) -> None:
        super().__init__(name, config, preprocessing, model)
        self.tokenizer = tokenizer

    @property
    def cosine_scale(self) -> float:
        return self.model.logit_scale.exp().item()

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        """Texts, cut at the model's longest, -> float32 unit rows [n, dim]. Texts of like length share a batch."""
        vectors = np.empty((len(texts), self.dim), np.float32)
        padded = (self.tokenizer.padding or {}).get("length")
        for chosen in by_length([padded] * len(texts) if padded else self.count_tokens(texts), batch_size):
            ids, mask = tokenize(self.tokenizer, [texts[i] for i in chosen])
            encoded = self.model.encode_text(
                torch.tensor(ids, device=self.device), torch.tensor(mask, device=self.device)
            )
            vectors[chosen] = encoded.cpu().numpy()
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return count_tokens(self.tokenizer, texts)

    def write(self, folder: Path) -> dict[str, Any]:
        self.tokenizer.save(str(folder / "tokenizer.json"))
        named = {} if self.config.text.name is None else {"text_config": self.model.text.trunk.config.to_dict()}
        return {**super().write(folder), **named}

    @classmethod
    def read(cls, config: Mapping[str, Any], folder: Path) -> Self:
        tokenizer = read_tokenizer(folder)
        architecture = dict(config["architecture"])
        if "text_config" in config:
            architecture["text"] = {**architecture["text"], "name": None, "config": config["text_config"]}
        settings = validate(cls.Config, architecture, f"{folder}/config.json")
        preprocessing = read_preprocessing(folder)
        model = cls.Model(settings, preprocessing, tokenizer.get_vocab_size(), pretrained=False)
        return cls(config["name"], settings, preprocessing, tokenizer, model)


def read_tokenizer(folder: Path) -> Tokenizer:
    """`tokenizer.json` of a package. Raises ShoplensError."""
    return read_file(folder, "tokenizer.json", lambda path: Tokenizer.from_file(str(path)))


def count_tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    """Tokens of each text, padding left out."""
    return [sum(encoding.attention_mask) for encoding in tokenizer.encode_batch(list(texts))]


def by_length(tokens: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Places of texts, in batches of like length: none is padded by more than `PADDING` tokens in all."""
    batch: list[int] = []
    padding = 0
    for place in sorted(range(len(tokens)), key=tokens.__getitem__):
        padding += len(batch) * (tokens[place] - tokens[batch[-1]]) if batch else 0
        if len(batch) == batch_size or padding > PADDING:
            yield batch
            batch, padding = [], 0
        batch.append(place)
    if batch:
        yield batch
