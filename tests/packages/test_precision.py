"""Precision: what keeps the answers and is fastest is taken, and the answers stay near those in float32."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from shoplens.datasets.preprocessing import Preprocessing
from shoplens.datasets.tokenizers import train_tokenizer
from shoplens.errors import ShoplensError
from shoplens.nn.dual_encoder import DualEncoder, DualEncoderConfig
from shoplens.nn.towers import ImageTowerConfig, TextTowerConfig
from shoplens.packages import precision
from shoplens.packages.capabilities import EMBED_IMAGE, EMBED_TEXT, PROBES
from shoplens.packages.embedder import Embedder
from shoplens.packages.precision import Runner, choose, converted
from tests.packages.conftest import BERT, TEXTS, VIT


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    torch.manual_seed(0)
    text = TextTowerConfig(config={"model_type": "bert", **BERT}, max_tokens=12)
    settings = DualEncoderConfig(image=ImageTowerConfig(name="vit_tiny_patch16_224", options=VIT), text=text, dim=24)
    tokenizer, preprocessing = train_tokenizer(TEXTS * 3, 330, 12), Preprocessing(size=32)
    model = DualEncoder(settings, preprocessing, tokenizer.get_vocab_size())
    return Embedder("eclip", settings, preprocessing, tokenizer, model)


def test_answers_in_another_precision_are_near_and_the_model_stays_as_it_is(embedder: Embedder) -> None:
    before = {name: weight.clone() for name, weight in embedder.model.state_dict().items()}
    pixels = EMBED_IMAGE.samples(embedder)
    texts, photos = embedder.encode_texts(PROBES), embedder.encode_images(np.stack(pixels))
    for name, least, most in (("float32", 1 - 1e-6, 2.0), ("bfloat16", 0.9995, 1 - 1e-9), ("int8", 0.98, 1 - 1e-9)):
        runner = converted(embedder, name)  # type: ignore[arg-type]
        said = np.stack([answer.vector for answer in runner.call(EMBED_TEXT, PROBES)]).astype(np.float64)
        seen = np.stack(list(runner.call(EMBED_IMAGE, pixels))).astype(np.float64)
        assert said.dtype == seen.dtype == np.float64
        for rows, truth in ((said, texts), (seen, photos)):
            cosine = (rows * truth).sum(1) / np.linalg.norm(truth, axis=1) / np.linalg.norm(rows, axis=1)
            assert least <= cosine.min() <= most
        assert runner.model.cosine_scale == embedder.cosine_scale
    for key, weight in embedder.model.state_dict().items():
        assert weight.dtype == before[key].dtype and torch.equal(weight, before[key])


@dataclass
class Angled:
    """A model of texts whose answers lie at an angle to the true ones, and that takes its time."""

    angle: float = 0.0
    seconds: float = 0.0
    name: str = "angled"
    dim: int = 2

    def __post_init__(self) -> None:
        self.model, self.can, self.device = nn.Linear(1, 1), (EMBED_TEXT,), torch.device("cpu")

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        time.sleep(self.seconds)
        angles = np.arange(len(texts)) + self.angle
        return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [1] * len(texts)


NEAR, FAR, TOO_NEAR_THE_BOUND = np.arccos(0.9999), np.arccos(0.99), np.arccos(0.9996)


@pytest.mark.parametrize(
    ("half", "byte", "chosen"),
    [
        ((NEAR, 0.01), (FAR, 0.005), "bfloat16"),
        ((NEAR, 0.02), (NEAR, 0.005), "int8"),
        ((FAR, 0.005), (FAR, 0.005), "float32"),
        ((TOO_NEAR_THE_BOUND, 0.005), (FAR, 0.005), "float32"),
        ((NEAR, 0.12), (NEAR, 0.12), "float32"),
        (None, (NEAR, 0.01), "int8"),
    ],
)
def test_the_fastest_that_keeps_the_answers_is_taken(
    monkeypatch: pytest.MonkeyPatch, half: tuple[float, float] | None, byte: tuple[float, float], chosen: str
) -> None:
    def convert(model: Any, name: str) -> Runner:
        found = {"bfloat16": half, "int8": byte}[name]
        if found is None:
            raise RuntimeError("this model cannot")
        return Runner(Angled(*found), name)  # type: ignore[arg-type]

    monkeypatch.setattr(precision, "converted", convert)
    model: Any = Angled(0.0, 0.06)
    assert choose(model).model is model, "a small model stays in float32"
    monkeypatch.setattr(precision, "LEAST_PARAMETERS", 0)
    runner = choose(model)
    assert runner.precision == chosen
    assert runner.cosine >= 0.99975


def test_a_given_precision_is_taken_and_checked(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(embedder, "bfloat16").precision == "bfloat16"
    assert choose(embedder, "float32").model is embedder

    class Broken(Angled):
        def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
            return 2 * super().encode_texts(texts)

    monkeypatch.setattr(precision, "converted", lambda model, name: Runner(Broken(), name))  # type: ignore[arg-type]
    with pytest.raises(ShoplensError, match="unit vectors"):
        choose(Angled(), "int8")  # type: ignore[arg-type]
