"""A small package of photos and texts."""

from __future__ import annotations

import pytest
import torch

from shoplens.datasets.preprocessing import Preprocessing
from shoplens.datasets.tokenizers import train_tokenizer
from shoplens.nn.dual_encoder import DualEncoder, DualEncoderConfig
from shoplens.nn.towers import ImageTowerConfig, TextTowerConfig
from shoplens.packages.embedder import Embedder

TEXTS = ["빨간 원피스 리본", "Black boots, size 240", "머그컵 350ml", "★특가★ denim 치마", "a"]
BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
VIT = {"img_size": 32, "patch_size": 16, "depth": 2, "embed_dim": 32, "num_heads": 2}


def config(text: TextTowerConfig) -> DualEncoderConfig:
    return DualEncoderConfig(image=ImageTowerConfig(name="vit_tiny_patch16_224", options=VIT), text=text, dim=24)


@pytest.fixture
def embedder() -> Embedder:
    torch.manual_seed(0)
    settings = config(TextTowerConfig(config={"model_type": "bert", **BERT}, max_tokens=12))
    tokenizer = train_tokenizer(TEXTS * 3, 330, 12)
    preprocessing = Preprocessing(size=32)
    model = DualEncoder(settings, preprocessing, tokenizer.get_vocab_size())
    return Embedder("eclip", settings, preprocessing, tokenizer, model)
