"""CLIP and SigLIP checkpoints of transformers: reading them to start from, and exporting a package to them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from shoplens.config import validate
from shoplens.datasets.preprocessing import Preprocessing
from shoplens.datasets.tokenizers import pretrained_tokenizer
from shoplens.errors import ShoplensError
from shoplens.nn.dual_encoder import DualEncoderConfig
from shoplens.packages.embedder import Embedder
from shoplens.packages.pretrained.source import Pretrained, end_of_text, has_tokenizer, special_tokens

WEIGHT_NAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "clip": (
        ("vision_model.", "image.trunk."),
        ("visual_projection.", "image.projection."),
        ("text_model.", "text.trunk."),
        ("text_projection.", "text.projection."),
        ("logit_scale", "logit_scale"),
    ),
    "siglip": (
        ("vision_model.", "image.trunk."),
        ("text_model.head.", "text.projection."),
        ("text_model.", "text.trunk."),
        ("logit_scale", "logit_scale"),
        ("logit_bias", "logit_bias"),
    ),
}
"""Prefixes of weight names by model_type: (in transformers, in `DualEncoder`)."""
TOWER = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
    "attention_dropout",
)
IMAGE_TOWER = (*TOWER, "num_channels", "image_size", "patch_size")
TEXT_TOWER = (*TOWER, "vocab_size", "max_position_embeddings")


def read(source: str, kind: str) -> Pretrained:
    """Reads a transformers checkpoint; `kind` is its model_type, a key of `WEIGHT_NAMES`.

    Raises ShoplensError if a file is missing, the files contradict each other, or the model has no pooling head.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError, TypeError) as error:
        raise ShoplensError(f"cannot read the config.json of {source}: {error}") from error
    image = {key: getattr(config.vision_config, key) for key in IMAGE_TOWER}
    text = {key: getattr(config.text_config, key) for key in TEXT_TOWER}
    if not getattr(config.vision_config, "vision_use_head", True):
        raise ShoplensError(f"{source} has no pooling head, so it gives no image vector: start from another checkpoint")
    preprocessing = _preprocessing(source)
    if image["image_size"] != preprocessing.size:
        raise ShoplensError(
            f"{source} contradicts itself: the image tower takes {image['image_size']} px, "
            f"its preprocessor_config.json makes {preprocessing.size} px"
        )
    if not has_tokenizer(source):
        raise ShoplensError(f"{source} has no tokenizer.json: save its tokenizer beside the weights (save_pretrained)")
    longest = text["max_position_embeddings"]
    tokenizer = pretrained_tokenizer(source, longest, fixed_length=kind == "siglip")
    text["eos_token_id"] = end_of_text(tokenizer)
    clip = kind == "clip"
    model = {
        "image": {"config": image, "projection": "linear" if clip else "none"},
        "text": {
            "config": text,
            "pooling": "eos" if clip else "last",
            "projection": "linear" if clip else "affine",
            "max_tokens": longest,
            "vocab_size": text["vocab_size"],
        },
        "dim": config.projection_dim if clip else config.text_config.projection_size,
        "logit_bias": not clip,
    }
    settings = validate(DualEncoderConfig, model, source)
    return Pretrained(settings, preprocessing, tokenizer, lambda: _weights(source, kind))


def renamed(weights: Mapping[str, Tensor], names: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    """Renames weights by prefix. The first matching pair (old, new) applies; weights without a match are dropped."""
    pairs, result = tuple(names), {}
    for name, weight in weights.items():
        for old, new in pairs:
            if name.startswith(old):
                result[new + name.removeprefix(old)] = weight
                break
    return result


def _weights(source: str, kind: str) -> dict[str, Tensor]:
    from transformers import CLIPModel, SiglipModel

    try:
        model, info = (CLIPModel if kind == "clip" else SiglipModel).from_pretrained(
            source, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ShoplensError(f"cannot read the weights of {source}: {error}") from error
    if info["missing_keys"]:
        raise ShoplensError(f"the weights of {source} are incomplete: {min(info['missing_keys'])} is missing")
    weights = renamed(model.state_dict(), WEIGHT_NAMES[kind])
    return {name: weight.reshape(()) if name.startswith("logit_") else weight for name, weight in weights.items()}


def _preprocessing(source: str) -> Preprocessing:
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(source, backend="pil")
    except (OSError, ValueError, ImportError) as error:
        raise ShoplensError(
            f"cannot read how {source} prepares its images: {error} (add its preprocessor_config.json)"
        ) from error
    size, crop = processor.size, processor.crop_size if getattr(processor, "do_center_crop", False) else None
    resizing: dict[str, Any] | None = None
    if crop and size.shortest_edge and crop.height == crop.width:
        resizing = {"resize": "crop", "size": crop.height, "edge": size.shortest_edge}
    elif not crop and size.height and size.height == size.width:
        resizing = {"resize": "squash", "size": size.height}
    standard = processor.do_resize and processor.do_rescale and processor.do_normalize
    if resizing is None or not standard or abs(processor.rescale_factor * 255 - 1) > 1e-6:
        raise ShoplensError(
            f"{source} prepares its images in an unsupported way: its preprocessor_config.json must resize to a "
            "square, or resize the shortest edge and crop the centre, then rescale by 1/255 and normalize"
        )
    settings = {
        **resizing,
        "interpolation": Image.Resampling(processor.resample).name.lower(),
        "reducing_gap": None,
        "mean": processor.image_mean,
        "std": processor.image_std,
    }
    return validate(Preprocessing, settings, f"the preprocessor_config.json of {source}")


def export(embedder: Embedder, folder: str | Path) -> None:
    """Writes a package's model, tokenizer and image processor to `folder` as a CLIP or SigLIP of transformers.

    It writes to `FOLDER.partial` first and renames that when it is complete.
    Raises ShoplensError if `folder` exists, or transformers has no CLIP or SigLIP with these towers.
    """
    folder = Path(folder)
    if folder.exists():
        raise ShoplensError(f"{folder} exists: name a folder to make")
    kind = _kind(embedder)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    _model(embedder, kind).save_pretrained(partial)
    _image_processor(embedder.preprocessing, kind).save_pretrained(partial)
    _tokenizer(embedder).save_pretrained(partial)
    partial.rename(folder)


def _kind(embedder: Embedder) -> Literal["clip", "siglip"]:
    config, resize = embedder.config, embedder.preprocessing.resize
    image, text = config.image, config.text
    forms = [
        (tower.config or {}).get("model_type") or tower.name or "a transformers model by name"
        for tower in (image, text)
    ]
    heads = (image.projection, text.projection, text.pooling)
    if resize not in ("crop", "squash"):
        raise ShoplensError(
            f"transformers cannot prepare images by resize: {resize}; only crop and squash can be exported"
        )
    if forms == ["clip_vision_model", "clip_text_model"] and heads == ("linear", "linear", "eos"):
        if (text.config or {}).get("eos_token_id") == 2:
            raise ShoplensError(
                "transformers reads eos_token_id 2 as `the largest id`: this tokenizer cannot be exported"
            )
        return "clip"
    if forms == ["siglip_vision_model", "siglip_text_model"] and heads == ("none", "affine", "last"):
        return "siglip"
    raise ShoplensError(
        f"transformers has no CLIP or SigLIP with these towers (image: {forms[0]}, text: {forms[1]}, "
        f"{text.pooling} pooling): only a model that started from one can be exported"
    )


def _model(embedder: Embedder, kind: str) -> Any:
    from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

    dim = embedder.dim
    image, text = dict(embedder.config.image.config or {}), dict(embedder.config.text.config or {})
    names = [(ours, theirs) for theirs, ours in WEIGHT_NAMES[kind]]
    weights = renamed(embedder.model.state_dict(), names)
    if kind == "clip":
        config = CLIPConfig(
            vision_config={**image, "projection_dim": dim},
            text_config={**text, "projection_dim": dim},
            projection_dim=dim,
        )
        model = CLIPModel(config)
    else:
        model = SiglipModel(SiglipConfig(vision_config=image, text_config={**text, "projection_size": dim}))
        weights.update({name: weights[name].reshape(1) for name in ("logit_scale", "logit_bias")})
    model.load_state_dict(weights)
    return model


def _image_processor(preprocessing: Preprocessing, kind: str) -> Any:
    from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

    square = {"height": preprocessing.size, "width": preprocessing.size}
    common = {
        "resample": int(Image.Resampling[preprocessing.interpolation.upper()]),
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }
    if preprocessing.resize == "crop":
        edge = {"shortest_edge": preprocessing.edge or preprocessing.size}
        return CLIPImageProcessorPil(size=edge, crop_size=square, **common)
    if kind == "clip":
        return CLIPImageProcessorPil(size=square, do_center_crop=False, **common)
    return SiglipImageProcessorPil(size=square, **common)


def _tokenizer(embedder: Embedder) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer = embedder.tokenizer
    special = special_tokens(tokenizer)
    first = {"bos_token": special[0]} if len(special) > 1 else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=special[-1],
        pad_token=(tokenizer.padding or {})["pad_token"],
        unk_token=getattr(tokenizer.model, "unk_token", None),
        model_max_length=embedder.config.text.max_tokens,
        **first,
    )
