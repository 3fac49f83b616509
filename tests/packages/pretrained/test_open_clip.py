"""open_clip checkpoints against a second implementation of its architecture in plain torch and torchvision.

`benchmarks/agree_with_open_clip.py` makes the same comparison with open_clip itself.
"""

from __future__ import annotations

import json
import string
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import transforms
from transformers import AutoTokenizer

from shoplens.errors import ShoplensError
from shoplens.packages.embedder import Embedder
from shoplens.packages.pretrained import huggingface, read
from tests.packages.pretrained.conftest import (
    LONGEST,
    SIZE,
    clip_tokenizer,
    encode,
    siglip_tokenizer,
    spread,
    start,
    unit,
)

WIDTH, HEADS, LAYERS, PATCH, DIM = 32, 2, 2, 8, 24
TIMM, TIMM_SIZE = "test_vit", 160


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        layers = OrderedDict(c_fc=nn.Linear(WIDTH, 4 * WIDTH), gelu=activation, c_proj=nn.Linear(4 * WIDTH, WIDTH))
        self.mlp = nn.Sequential(layers)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        normal = self.ln_1(x)
        x = x + self.attn(normal, normal, normal, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList([Block(activation) for _ in range(LAYERS)])

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Visual(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(WIDTH))
        self.positional_embedding = nn.Parameter(torch.randn((SIZE // PATCH) ** 2 + 1, WIDTH))
        self.ln_pre, self.ln_post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.transformer = Transformer(activation)
        self.proj = nn.Parameter(torch.randn(WIDTH, DIM))

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_embedding.expand(len(pixels), 1, -1), patches], 1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(tokens)))[:, 0] @ self.proj


class Timm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = timm.create_model(TIMM, num_classes=0, global_pool="avg")
        self.head = nn.Sequential(OrderedDict(proj=nn.Linear(self.trunk.num_features, DIM, bias=False)))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.trunk(pixels))


class Text(nn.Module):
    def __init__(self, activation: nn.Module, vocabulary: int, causal: bool) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, WIDTH)
        self.positional_embedding = nn.Parameter(torch.randn(LONGEST, WIDTH))
        self.transformer = Transformer(activation)
        self.ln_final = nn.LayerNorm(WIDTH)
        self.causal = causal
        if causal:
            self.text_projection = nn.Parameter(torch.randn(WIDTH, DIM))
        else:
            self.text_projection = nn.Linear(WIDTH, DIM)  # type: ignore[assignment]

    def forward(self, ids: Tensor) -> Tensor:
        mask = torch.full((LONGEST, LONGEST), -torch.inf).triu(1) if self.causal else None
        states = self.ln_final(self.transformer(self.token_embedding(ids) + self.positional_embedding, mask))
        if self.causal:
            return states[torch.arange(len(ids)), ids.argmax(1)] @ self.text_projection
        return self.text_projection(states[:, -1])  # type: ignore[operator]


TEXT_CFG = {"context_length": LONGEST, "width": WIDTH, "heads": HEADS, "layers": LAYERS}
VISION_CFG = {
    "image_size": SIZE,
    "layers": LAYERS,
    "width": WIDTH,
    "head_width": WIDTH // HEADS,
    "patch_size": PATCH,
}


class Case:
    """A checkpoint in a folder, its modules, and its preparation of photos and texts."""

    def __init__(self, folder: Path, kind: str) -> None:
        folder.mkdir()
        self.folder, siglip = folder, kind == "siglip"
        tokenizer = siglip_tokenizer() if siglip else clip_tokenizer()
        tokenizer.save_pretrained(folder)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        activation = QuickGELU() if kind == "quick" else nn.GELU()
        self.visual = Timm() if siglip else Visual(activation)
        self.text = Text(activation, len(tokenizer), causal=not siglip)
        spread(self.visual)
        spread(self.text)
        text_prefix = "text." if siglip else ""
        weights = {f"visual.{name}": weight for name, weight in self.visual.state_dict().items()}
        weights |= {f"{text_prefix}{name}": weight for name, weight in self.text.state_dict().items()}
        weights |= {"logit_scale": torch.tensor(3.5)} | ({"logit_bias": torch.tensor(-9.0)} if siglip else {})
        model: dict[str, Any] = {
            "embed_dim": DIM,
            "vision_cfg": VISION_CFG,
            "text_cfg": TEXT_CFG | {"vocab_size": len(tokenizer)},
        }
        prepared: dict[str, Any] = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25), "interpolation": "bicubic"}
        resize: list[Any] = [
            transforms.Resize(SIZE, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(SIZE),
        ]
        if kind == "quick":
            model["quick_gelu"] = True
        if siglip:
            model["init_logit_bias"] = -10
            model["vision_cfg"] = {
                "timm_model_name": TIMM,
                "timm_pool": "avg",
                "timm_proj": "linear",
                "image_size": TIMM_SIZE,
            }
            model["text_cfg"] |= {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
            model["text_cfg"] |= {"hf_tokenizer_name": "elsewhere", "tokenizer_kwargs": {"clean": "canonicalize"}}
            prepared["resize_mode"] = "squash"
            resize = [transforms.Resize((TIMM_SIZE, TIMM_SIZE), transforms.InterpolationMode.BICUBIC)]
        self.transform = transforms.Compose(
            [*resize, transforms.ToTensor(), transforms.Normalize(prepared["mean"], prepared["std"])]
        )
        self.canonical = siglip
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": prepared}))
        if kind == "quick":
            torch.save(weights, folder / "open_clip_pytorch_model.bin")
        else:
            save_file(
                {name: weight.contiguous() for name, weight in weights.items()}, folder / "open_clip_model.safetensors"
            )

    @torch.no_grad()
    def vectors(self, photos: list[Image.Image], texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        pixels = torch.stack([self.transform(photo) for photo in photos])
        if self.canonical:
            texts = [text.replace("_", " ").translate(dict.fromkeys(map(ord, string.punctuation))) for text in texts]
            texts = [" ".join(text.lower().split()) for text in texts]
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, max_length=LONGEST, return_tensors="pt")
        return unit(self.visual.eval()(pixels)), unit(self.text.eval()(tokens["input_ids"]))


@pytest.fixture(scope="module", params=["gelu", "quick", "siglip"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("open_clip") / request.param, request.param)


def test_vectors_agree(case: Case, photos: list[Image.Image], texts: list[str], tmp_path: Path) -> None:
    texts = [text for text in texts if "<|" not in text or not case.canonical]
    wanted = case.vectors(photos, texts)
    start(case.folder).save(tmp_path / "package", "", {})
    package = Embedder.load(tmp_path / "package")
    for ours, theirs in zip(encode(package, photos, texts), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert package.model.logit_scale.item() == 3.5
    if case.canonical:
        assert package.model.logit_bias.item() == -9.0
        with pytest.raises(ShoplensError, match=f"image: {TIMM}, text: siglip_text_model"):
            huggingface.export(package, tmp_path / "exported")
    else:
        huggingface.export(package, tmp_path / "exported")
        np.testing.assert_allclose(encode(start(tmp_path / "exported"), photos, texts)[1], wanted[1], atol=1e-5)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("vision_cfg", {"layers": [3, 4, 6, 3]}, "ResNet"),
        ("vision_cfg", {"no_ln_pre": True}, "no_ln_pre: True in the image tower"),
        ("vision_cfg", {"pool_type": "avg"}, "pool_type: 'avg' in the image tower"),
        ("vision_cfg", {"timm_model_name": TIMM, "timm_pool": "abs_attn"}, "timm tower with pooling 'abs_attn'"),
        ("text_cfg", {"hf_model_name": "roberta-base"}, "text tower from transformers"),
        ("text_cfg", {"embed_cls": True}, "embed_cls: True in the text tower"),
        ("text_cfg", {"no_causal_mask": True}, "text pooling .argmax. without a causal mask"),
        ("text_cfg", {"tokenizer_kwargs": {"strip_sep_token": True}}, "tokenizer_kwargs"),
        ("text_cfg", {"vocab_size": 99}, "belong to different models"),
        ("text_cfg", {"layers": 3}, "Missing key"),
        ("multimodal_cfg", {"width": 3}, "multimodal_cfg"),
    ],
)
def test_what_is_not_known_is_refused_by_name(
    tmp_path: Path, section: str, change: dict[str, object], message: str
) -> None:
    folder = Case(tmp_path / "case", "gelu").folder
    config = folder / "open_clip_config.json"
    tree = json.loads(config.read_text())
    tree["model_cfg"][section] = tree["model_cfg"].get(section, {}) | change
    config.write_text(json.dumps(tree))
    with pytest.raises(ShoplensError, match=message):
        start(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [("tokenizer.json", "open_clip keeps its default vocabulary"), ("open_clip_model.safetensors", "but no weights")],
)
def test_a_missing_file_is_named(tmp_path: Path, name: str, message: str) -> None:
    folder = Case(tmp_path / "case", "gelu").folder
    (folder / name).unlink()
    with pytest.raises(ShoplensError, match=message):
        read(str(folder)).weights()


def test_a_pickle_that_would_run_code_is_not_opened(tmp_path: Path) -> None:
    folder = Case(tmp_path / "case", "quick").folder
    torch.save({"visual.proj": print}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(ShoplensError, match="cannot be read"):
        read(str(folder)).weights()
