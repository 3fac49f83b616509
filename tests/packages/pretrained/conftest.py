"""Tiny checkpoints with random weights, and photos and texts to compare their vectors on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipProcessor,
)

from shoplens.nn.dual_encoder import DualEncoder
from shoplens.packages.embedder import Embedder
from shoplens.packages.pretrained import read

SHOP = "빨간 원피스 리본 무료배송 머그컵 350ml Black boots, SIZE 240 denim 치마 it's new! 운동화 (2-pack) ★특가★ cotton snake_case"
WORDS = SHOP.split()
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZE, LONGEST = 32, 16


def make_texts() -> list[str]:
    rng = np.random.default_rng(0)
    odd = ["", "  two   spaces ", "early <|endoftext|> end", "原題 Ünïcode", "longer than the model takes " * 9]
    return odd + [" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(64 - len(odd))]


def make_photos() -> list[Image.Image]:
    """Photos of smooth colours and noise at 64 aspect ratios, larger and smaller than the model's input."""
    rng = np.random.default_rng(1)
    photos = []
    for number in range(64):
        width, height = (int(side) * (4 if number % 8 == 0 else 1) for side in rng.integers(20, 150, 2))
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((width, height))
        noise = rng.normal(0, 3 * (number % 5), (height, width, 3))
        photos.append(Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)))
    return photos


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's own tokenizer class with a vocabulary learnt from the texts, which contains every byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    learner.train_from_iterator(WORDS * 3, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    tokens = list(dict.fromkeys([*tokens, "<|startoftext|>", "<|endoftext|>"]))
    return CLIPTokenizer({token: id_ for id_, token in enumerate(tokens)}, merges, model_max_length=LONGEST)


def siglip_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(WORDS * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>", model_max_length=LONGEST
    )


def spread(model: torch.nn.Module) -> None:
    """Adds noise to all weights, so that each of them changes the vectors."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return make_texts()


@pytest.fixture(scope="session")
def photos() -> list[Image.Image]:
    return make_photos()


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "clip"
    tokenizer = clip_tokenizer()
    text = {"vocab_size": len(tokenizer) + 4, "max_position_embeddings": LONGEST, "eos_token_id": 2}  # 2: as OpenAI's
    image = {"image_size": SIZE, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config={**TOWER, **text}, vision_config={**TOWER, **image}, projection_dim=24))
    spread(model)
    model.save_pretrained(folder)
    square = {"height": SIZE, "width": SIZE}
    CLIPProcessor(CLIPImageProcessorPil(size={"shortest_edge": SIZE + 5}, crop_size=square), tokenizer).save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="session")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "siglip"
    tokenizer = siglip_tokenizer()
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": LONGEST}
    image = {"image_size": SIZE, "patch_size": 8}
    model = SiglipModel(SiglipConfig(text_config={**TOWER, **text}, vision_config={**TOWER, **image}))
    spread(model)
    with torch.no_grad():
        model.logit_scale.fill_(4.75)
        model.logit_bias.fill_(-12.5)
    model.save_pretrained(folder)
    square = {"height": SIZE, "width": SIZE}
    SiglipProcessor(SiglipImageProcessorPil(size=square), tokenizer).save_pretrained(folder)
    return folder


def start(folder: Path) -> Embedder:
    """The checkpoint as an e-CLIP without further training."""
    checkpoint = read(str(folder))
    vocab_size = checkpoint.tokenizer.get_vocab_size()
    model = DualEncoder(checkpoint.model, checkpoint.preprocessing, vocab_size, pretrained=False)
    model.start(checkpoint.weights())
    return Embedder("eclip", checkpoint.model, checkpoint.preprocessing, checkpoint.tokenizer, model)


def encode(embedder: Embedder, photos: Sequence[Image.Image], texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.stack([embedder.preprocess(photo) for photo in photos])
    return embedder.encode_images(pixels), embedder.encode_texts(texts, batch_size=16)


def unit(vectors: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(vectors.detach().double(), dim=-1).numpy()
