"""The package: what is saved is what is loaded, and what is damaged says so."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from shoplens.datasets.preprocessing import Preprocessing
from shoplens.datasets.tokenizers import tokenize, train_tokenizer
from shoplens.errors import ShoplensError
from shoplens.nn.dual_encoder import DualEncoder, DualEncoderConfig
from shoplens.nn.towers import ImageTowerConfig, TextTowerConfig
from shoplens.packages.embedder import PADDING, Embedder, by_length
from tests.packages.conftest import BERT, TEXTS, config


def test_a_saved_package_loads_to_the_same_vectors(embedder: Embedder, tmp_path: Path) -> None:
    embedder.save(tmp_path / "package", "# card", {"recipe": "eclip"})
    assert sorted(file.name for file in (tmp_path / "package").iterdir()) == [
        "MODEL_CARD.md",
        "config.json",
        "model.safetensors",
        "preprocess.json",
        "tokenizer.json",
    ]
    loaded = Embedder.load(tmp_path / "package")
    pixels = np.random.default_rng(0).integers(256, size=(7, 3, 32, 32), dtype=np.uint8)
    np.testing.assert_array_equal(loaded.encode_images(pixels), embedder.encode_images(pixels))
    np.testing.assert_array_equal(loaded.encode_texts(TEXTS), embedder.encode_texts(TEXTS))
    np.testing.assert_allclose(np.linalg.norm(loaded.encode_texts(TEXTS), axis=1), 1, rtol=1e-5)
    assert loaded.count_tokens(TEXTS) == embedder.count_tokens(TEXTS)
    assert max(loaded.count_tokens(TEXTS)) <= 12


def test_batches_and_neighbours_do_not_change_a_vector(embedder: Embedder) -> None:
    alone = np.concatenate([embedder.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(embedder.encode_texts(TEXTS, batch_size=3), alone, atol=1e-5)
    assert embedder.encode_texts([]).shape == (0, 24)
    assert embedder.encode_images(np.empty((0, 3, 32, 32), np.uint8)).shape == (0, 24)


@given(st.lists(st.integers(1, 77), max_size=80), st.integers(1, 40))
def test_texts_of_like_length_share_a_batch(tokens: list[int], size: int) -> None:
    batches = list(by_length(tokens, size))
    assert sorted(place for batch in batches for place in batch) == list(range(len(tokens)))
    for batch in batches:
        lengths = [tokens[place] for place in batch]
        assert len(batch) <= size and len(batch) * max(lengths) - sum(lengths) <= PADDING
    for batch, following in pairwise(batches):
        grown = [tokens[place] for place in (*batch, following[0])]
        assert len(batch) == size or len(grown) * max(grown) - sum(grown) > PADDING, "no batch ends before it must"


def test_a_pretrained_tower_by_local_path_survives_the_package(tmp_path: Path) -> None:
    """The package must not need the checkpoint that training started from."""
    torch.manual_seed(1)
    tokenizer = train_tokenizer(TEXTS * 3, 330, 12)
    source = BertModel(BertConfig(vocab_size=tokenizer.get_vocab_size(), **BERT))
    source.save_pretrained(tmp_path / "bert")
    settings = config(TextTowerConfig(name=str(tmp_path / "bert"), max_tokens=12))
    model = DualEncoder(settings, Preprocessing(size=32), tokenizer.get_vocab_size()).eval()
    ids, mask = (torch.tensor(array) for array in tokenize(tokenizer, TEXTS))
    theirs = source.eval()(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(model.text.trunk(input_ids=ids, attention_mask=mask).last_hidden_state, theirs)

    embedder = Embedder("eclip", settings, Preprocessing(size=32), tokenizer, model)
    embedder.save(tmp_path / "package", "", {})
    for file in (tmp_path / "bert").iterdir():
        file.unlink()
    loaded = Embedder.load(tmp_path / "package")
    np.testing.assert_array_equal(loaded.encode_texts(TEXTS), embedder.encode_texts(TEXTS))


def test_a_damaged_package_says_what_is_wrong(embedder: Embedder, tmp_path: Path) -> None:
    with pytest.raises(ShoplensError, match=r"config\.json is missing"):
        Embedder.load(tmp_path)
    embedder.save(tmp_path / "package", "", {})
    weights = tmp_path / "package" / "model.safetensors"
    assert load_file(weights)
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ShoplensError, match="is damaged"):
        Embedder.load(tmp_path / "package")


def test_the_temperature_is_clamped(embedder: Embedder) -> None:
    with torch.no_grad():
        embedder.model.logit_scale.fill_(50.0)
    pixels = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    ids, mask = (torch.tensor(array) for array in tokenize(embedder.tokenizer, TEXTS[:2]))
    assert embedder.model(pixels, ids, mask).logit_scale.item() == pytest.approx(100.0)


@pytest.mark.parametrize("resize", ["longest", "shortest", "squash", "crop"])
def test_preprocessing_keeps_to_its_square(resize: str) -> None:
    preprocessing = Preprocessing(size=32, resize=resize)  # type: ignore[arg-type]
    for size in ((90, 30), (30, 90), (32, 32), (1, 500), (3_000_000, 1)):
        pixels = preprocessing(Image.new("RGB", size, (10, 200, 30)))
        assert pixels.shape == (3, 32, 32)
        assert pixels.dtype == np.uint8
        white = (pixels == 255).all(0).mean()
        assert white == 0 if resize != "longest" or size == (32, 32) else white > 0.5


@pytest.mark.parametrize("name", ["no_such_model", "vit_tiny_patch16_224"])
def test_a_tower_that_cannot_be_built_says_so(name: str) -> None:
    tower = ImageTowerConfig(name=name, options={"no_such_option": 1})
    text = TextTowerConfig(config={"model_type": "bert", **BERT})
    with pytest.raises(ShoplensError, match="cannot build the image tower"):
        DualEncoder(DualEncoderConfig(image=tower, text=text), Preprocessing(size=32), 100)
