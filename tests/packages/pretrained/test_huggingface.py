"""CLIP and SigLIP of transformers: reading, packaging and exporting a checkpoint keeps its vectors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPProcessor, CLIPTokenizerFast, SiglipModel, SiglipProcessor

from shoplens.errors import ShoplensError
from shoplens.nn.dual_encoder import DualEncoderConfig
from shoplens.packages.embedder import Embedder
from shoplens.packages.pretrained import huggingface, read
from tests.packages.pretrained.conftest import encode, start, unit


def original(folder: Path, photos: list[Image.Image], texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of the checkpoint by transformers alone, with the checkpoint's own processor."""
    siglip = json.loads((folder / "config.json").read_text())["model_type"] == "siglip"
    model = (SiglipModel if siglip else CLIPModel).from_pretrained(folder).eval()
    processor = (SiglipProcessor if siglip else CLIPProcessor).from_pretrained(folder, backend="pil")
    padding = "max_length" if siglip else True
    tokens = processor.tokenizer(texts, padding=padding, truncation=True, return_tensors="pt")
    if siglip:
        tokens.pop("attention_mask")
    with torch.no_grad():
        pixels = processor.image_processor(photos, return_tensors="pt")
        image = model.get_image_features(**pixels).pooler_output
        text = model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens.get("attention_mask"))
    return unit(image), unit(text.pooler_output)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_vectors_agree_before_and_after_the_way_round(
    kind: str, request: pytest.FixtureRequest, photos: list[Image.Image], texts: list[str], tmp_path: Path
) -> None:
    source: Path = request.getfixturevalue(f"{kind}_folder")
    wanted = original(source, photos, texts)
    distinct = len(np.unique(wanted[1].round(4), axis=0))
    assert distinct > 50, "equal vectors would agree even if the texts were read wrongly"
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(source, checkpoint)
    start(checkpoint).save(tmp_path / "package", "", {})
    shutil.rmtree(checkpoint)

    package = Embedder.load(tmp_path / "package")
    for ours, theirs in zip(encode(package, photos, texts), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert "checkpoint" not in (tmp_path / "package" / "config.json").read_text()

    huggingface.export(package, tmp_path / "exported")
    for ours, theirs in zip(original(tmp_path / "exported", photos, texts), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    again = encode(start(tmp_path / "exported"), photos, texts)
    for ours, theirs in zip(again, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_logits_agree_scale_and_bias_included(siglip_folder: Path, clip_folder: Path) -> None:
    siglip, clip = start(siglip_folder).model, start(clip_folder).model
    assert (siglip.logit_scale.item(), siglip.logit_bias.item()) == (4.75, -12.5)
    assert clip.logit_scale.item() == CLIPModel.from_pretrained(clip_folder).logit_scale.item()
    assert clip.logit_bias is None
    ids = torch.ones(2, 16, dtype=torch.int64)
    pixels = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    scale = siglip(pixels, ids, ids.bool()).logit_scale.item()
    assert scale == pytest.approx(np.exp(4.75)), "a scale above 100 is not clamped"


def test_clips_own_tokenizer_class_reads_the_export(clip_folder: Path, texts: list[str], tmp_path: Path) -> None:
    huggingface.export(start(clip_folder), tmp_path / "exported")
    ours = CLIPTokenizerFast.from_pretrained(tmp_path / "exported")(texts, padding=True, truncation=True)
    theirs = CLIPTokenizerFast.from_pretrained(clip_folder)(texts, padding=True, truncation=True)
    assert ours["input_ids"] == theirs["input_ids"]


def test_the_end_of_text_is_found_whatever_its_id(clip_folder: Path, tmp_path: Path) -> None:
    """Neither a token with a larger id nor padding with the same id counts as the end of the text."""
    embedder = start(clip_folder)
    end = embedder.tokenizer.token_to_id("<|endoftext|>")
    start_of_text = embedder.tokenizer.token_to_id("<|startoftext|>")
    ids = torch.tensor([[start_of_text, end + 2, end, end], [start_of_text, end, 7, end + 1]])
    tower = embedder.model.text.eval()
    with torch.no_grad():
        pooled = tower(ids, torch.ones_like(ids).bool())
        cut = [tower(row[None], torch.ones(1, len(row)).bool()) for row in (ids[0, :3], ids[1, :2])]
    torch.testing.assert_close(pooled, torch.cat(cut))


def broken(folder: Path, tmp_path: Path, name: str, change: dict[str, object] | None) -> Path:
    """A copy of a checkpoint with one file changed or removed."""
    copy = tmp_path / "broken"
    shutil.copytree(folder, copy)
    if change is None:
        (copy / name).unlink()
    else:
        tree = json.loads((copy / name).read_text())
        (copy / name).write_text(json.dumps(tree | change))
    return copy


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("config.json", None, "no config.json and no open_clip_config.json"),
        ("config.json", {"model_type": "blip"}, "model_type 'blip'"),
        ("processor_config.json", None, "prepares its images"),
        ("tokenizer.json", None, "has no tokenizer.json"),
        ("model.safetensors", None, "cannot read the weights"),
    ],
)
def test_a_checkpoint_that_cannot_serve_says_why(
    clip_folder: Path, tmp_path: Path, name: str, change: dict[str, object] | None, message: str
) -> None:
    with pytest.raises(ShoplensError, match=message):
        read(str(broken(clip_folder, tmp_path, name, change))).weights()


def test_a_missing_weight_is_not_made_up(clip_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(clip_folder, copy)
    weights = load_file(copy / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ShoplensError, match=r"visual_projection\.weight is missing"):
        read(str(copy)).weights()


def test_parts_that_do_not_belong_together_are_refused(clip_folder: Path, tmp_path: Path) -> None:
    config = json.loads((clip_folder / "config.json").read_text())
    small = broken(clip_folder, tmp_path, "config.json", {"text_config": config["text_config"] | {"vocab_size": 100}})
    with pytest.raises(ShoplensError, match="belong to different models"):
        read(str(small))
    shutil.rmtree(small)
    large = broken(
        clip_folder, tmp_path, "config.json", {"vision_config": config["vision_config"] | {"image_size": 48}}
    )
    with pytest.raises(ShoplensError, match=r"takes 48 px, its preprocessor_config.json makes 32 px"):
        read(str(large))


def test_a_name_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ShoplensError, match="there is no folder"):
        read(str(tmp_path / "none"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ShoplensError, match="cannot be fetched from the Hugging Face hub"):
        read("someone/clip-that-is-not-cached")


def test_towers_that_transformers_has_no_model_for_are_not_exported(clip_folder: Path, tmp_path: Path) -> None:
    embedder = start(clip_folder)
    (tmp_path / "taken").mkdir()
    with pytest.raises(ShoplensError, match="exists"):
        huggingface.export(embedder, tmp_path / "taken")
    embedder.config = DualEncoderConfig.model_validate(
        embedder.config.model_dump() | {"image": {"name": "convnext_atto"}}
    )
    with pytest.raises(ShoplensError, match=r"image: convnext_atto, text: clip_text_model"):
        huggingface.export(embedder, tmp_path / "exported")
    assert not list(tmp_path.glob("exported*"))
