"""open_clip checkpoints (`open_clip_config.json`), read without open_clip.

The CLIP and SigLIP towers of transformers compute open_clip's own transformers; timm computes its timm towers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, normalizers
from torch import Tensor

from shoplens.config import validate
from shoplens.datasets.preprocessing import Preprocessing
from shoplens.datasets.tokenizers import pretrained_tokenizer
from shoplens.errors import ShoplensError
from shoplens.nn.dual_encoder import DualEncoderConfig
from shoplens.packages.pretrained.source import Pretrained, end_of_text, find_file, has_tokenizer

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
ANY = object()
PLAIN: dict[str, dict[str, Any]] = {
    "model": {"custom_text": ANY, "init_logit_scale": ANY, "nonscalar_logit_scale": ANY},
    "image tower": {
        "patch_dropout": ANY,
        "attn_pooler_queries": ANY,
        "attn_pooler_heads": ANY,
        "timm_model_pretrained": ANY,
        "timm_drop": ANY,
        "timm_drop_path": ANY,
        "pool_type": "tok",
        "pos_embed_type": "learnable",
        "block_type": "default",
    },
    "text tower": {
        "hf_model_pretrained": ANY,
        "hf_proj_type": ANY,
        "hf_pooler_type": ANY,
        "pad_id": ANY,
        "eos_id": ANY,
        "proj_type": "linear",
        "block_type": "default",
    },
}
"""Keys that do not change the architecture at this value; `ANY`: at any value."""
PUNCTUATION = r"[!-/:-@\[-`{-~]"


def read(source: str, settings: Mapping[str, Any]) -> Pretrained:
    """Reads an open_clip checkpoint with the content `settings` of its `open_clip_config.json`.

    Raises ShoplensError if a file is missing or a part of the architecture is not supported; the message names it.
    """
    model, prepared = settings.get("model_cfg"), settings.get("preprocess_cfg", {})
    if not isinstance(model, Mapping) or not {"embed_dim", "vision_cfg", "text_cfg"} <= model.keys():
        raise ShoplensError(f"the {CONFIG} of {source} should have model_cfg with embed_dim, vision_cfg and text_cfg")
    vision, text = model["vision_cfg"], model["text_cfg"]
    quick = bool(model.get("quick_gelu", False))
    _known("model", model, ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_bias"))
    image_tower = _timm_tower(vision) if vision.get("timm_model_name") else _vision_tower(vision, quick)
    tokenizer = _tokenizer(source, text)
    text_tower = _text_tower(text, quick, end_of_text(tokenizer))
    architecture = {
        "image": image_tower,
        "text": text_tower,
        "dim": model["embed_dim"],
        "logit_bias": model.get("init_logit_bias") is not None,
    }
    checked = validate(DualEncoderConfig, architecture, f"the {CONFIG} of {source}")
    preprocessing = _preprocessing(source, prepared, vision.get("image_size", 224))
    return Pretrained(checked, preprocessing, tokenizer, lambda: _weights(source, checked))


def _known(place: str, config: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    for key, value in config.items():
        plain = PLAIN[place].get(key)
        if key not in keys and value and plain is not ANY and value != plain:
            raise ShoplensError(f"open_clip's {key}: {value!r} in the {place} is not supported")


def _vision_tower(config: Mapping[str, Any], quick: bool) -> dict[str, Any]:
    if not isinstance(config.get("layers", 12), int):
        raise ShoplensError(
            "open_clip's ResNet image towers are not supported: use a checkpoint with a ViT or timm tower"
        )
    sizes = ("layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "norm_kwargs", "act_kwargs")
    _known("image tower", config, sizes)
    width = config.get("width", 768)
    return {
        "config": {
            "model_type": "clip_vision_model",
            "num_attention_heads": width // config.get("head_width", 64),
            "image_size": config.get("image_size", 224),
            "patch_size": config.get("patch_size", 16),
            **_transformer(config, width, quick),
        }
    }


def _timm_tower(config: Mapping[str, Any]) -> dict[str, Any]:
    own = ("timm_model_name", "timm_pool", "timm_proj", "timm_proj_bias", "image_size")
    _known("image tower", config, (*own, "layers", "width", "head_width", "mlp_ratio", "patch_size"))
    pool, projection = config.get("timm_pool", "avg"), config.get("timm_proj", "linear")
    if projection not in ("linear", "none") or pool in ("abs_attn", "rot_attn"):
        raise ShoplensError(f"open_clip's timm tower with pooling {pool!r}, projection {projection!r} is not supported")
    affine = "affine" if config.get("timm_proj_bias") else "linear"
    return {
        "name": config["timm_model_name"],
        "options": {"global_pool": pool} if pool else {},
        "projection": affine if projection == "linear" else "none",
    }


def _text_tower(config: Mapping[str, Any], quick: bool, eos: int) -> dict[str, Any]:
    if config.get("hf_model_name"):
        raise ShoplensError(
            f"open_clip with a text tower from transformers ({config['hf_model_name']}) is not supported"
        )
    sizes = ("context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "norm_kwargs", "act_kwargs")
    tokens = ("hf_tokenizer_name", "tokenizer_kwargs", "no_causal_mask", "pool_type", "proj_bias")
    _known("text tower", config, sizes + tokens)
    width, longest, causal = (
        config.get("width", 512),
        config.get("context_length", 77),
        not config.get("no_causal_mask"),
    )
    pool_type = config.get("pool_type", "argmax")
    pooling = {"argmax": "eos", "eos": "eos", "last": "last"}.get(pool_type)
    if pooling is None or (pooling == "eos" and not causal):
        raise ShoplensError(
            f"open_clip's text pooling {pool_type!r} {'with' if causal else 'without'} a causal mask is not supported"
        )
    return {
        "config": {
            "model_type": "clip_text_model" if causal else "siglip_text_model",
            "num_attention_heads": config.get("heads", 8),
            "vocab_size": config.get("vocab_size", 49408),
            "max_position_embeddings": longest,
            "eos_token_id": eos,
            **_transformer(config, width, quick),
        },
        "pooling": pooling,
        "projection": "affine" if config.get("proj_bias") else "linear",
        "max_tokens": longest,
        "vocab_size": config.get("vocab_size", 49408),
    }


def _transformer(config: Mapping[str, Any], width: int, quick: bool) -> dict[str, Any]:
    norm, activation = config.get("norm_kwargs") or {}, config.get("act_kwargs") or {}
    if norm.keys() - {"eps"} or activation.keys() - {"approximate"} or (quick and activation):
        raise ShoplensError(f"open_clip's norm_kwargs {norm} or act_kwargs {activation} are not supported")
    tanh = activation.get("approximate") == "tanh"
    return {
        "hidden_size": width,
        "intermediate_size": int(width * config.get("mlp_ratio", 4.0)),
        "num_hidden_layers": config.get("layers", 12),
        "hidden_act": "quick_gelu" if quick else "gelu_pytorch_tanh" if tanh else "gelu",
        "layer_norm_eps": norm.get("eps", 1e-5),
    }


def _preprocessing(source: str, config: Mapping[str, Any], image_size: int) -> Preprocessing:
    resize = {"shortest": "crop", "squash": "squash"}.get(config.get("resize_mode", "shortest"))
    if resize is None or config.get("mode", "RGB") != "RGB":
        raise ShoplensError(f"open_clip's preprocessing {dict(config)} of {source} is not supported")
    settings = {
        "size": config.get("size", image_size),
        "resize": resize,
        "centre": "round",
        "reducing_gap": None,
        **{key: config[key] for key in ("interpolation", "mean", "std") if key in config},
    }
    return validate(Preprocessing, settings, f"the preprocess_cfg of {source}")


def _tokenizer(source: str, config: Mapping[str, Any]) -> Tokenizer:
    own = config.get("hf_tokenizer_name")
    options = dict(config.get("tokenizer_kwargs") or {})
    clean = options.pop("clean", "whitespace" if own else "lower")
    if options or clean not in ("lower", "whitespace", "canonicalize"):
        raise ShoplensError(f"open_clip's tokenizer_kwargs {config.get('tokenizer_kwargs')} are not supported")
    bundled = has_tokenizer(source)
    if not bundled and not own:
        raise ShoplensError(
            f"{source} has no tokenizer.json: open_clip keeps its default vocabulary in its own package. Save the "
            "same one beside the weights: transformers.CLIPTokenizer.from_pretrained('openai/clip-vit-base-patch32')"
            ".save_pretrained(FOLDER)"
        )
    longest, fixed = config.get("context_length", 77), config.get("pool_type") == "last"
    tokenizer = pretrained_tokenizer(source if bundled else str(own), longest, fixed_length=fixed)
    tokenizer.normalizer = normalizers.Sequence([*_cleaning(clean), *_parts(tokenizer.normalizer)])
    return tokenizer


def _cleaning(kind: str) -> Iterator[normalizers.Normalizer]:
    """open_clip's text cleaning before the tokenizer, without ftfy's repairs and HTML entities."""
    if kind == "canonicalize":
        yield normalizers.Replace("_", " ")
        yield normalizers.Replace(Regex(PUNCTUATION), "")
    if kind != "whitespace":
        yield normalizers.Lowercase()
    yield normalizers.Replace(Regex(r"\s+"), " ")
    yield normalizers.Strip()


def _parts(normalizer: normalizers.Normalizer | None) -> list[normalizers.Normalizer]:
    return [] if normalizer is None else [normalizer]


LAYER: tuple[tuple[str, str], ...] = (
    (r"ln_1\.", "layer_norm1."),
    (r"ln_2\.", "layer_norm2."),
    (r"attn\.out_proj\.", "self_attn.out_proj."),
    (r"mlp\.c_fc\.", "mlp.fc1."),
    (r"mlp\.c_proj\.", "mlp.fc2."),
)
NAMES: tuple[tuple[str, str], ...] = (
    (r"visual\.class_embedding$", "image.trunk.embeddings.class_embedding"),
    (r"visual\.positional_embedding$", "image.trunk.embeddings.position_embedding.weight"),
    (r"visual\.conv1\.", "image.trunk.embeddings.patch_embedding."),
    (r"visual\.ln_pre\.", "image.trunk.pre_layrnorm."),
    (r"visual\.ln_post\.", "image.trunk.post_layernorm."),
    (r"visual\.proj$", "image.projection.weight"),
    (r"visual\.trunk\.", "image.trunk."),
    (r"visual\.head\.proj\.", "image.projection."),
    *(
        (rf"visual\.transformer\.resblocks\.(\d+)\.{old}", rf"image.trunk.encoder.layers.\1.{new}")
        for old, new in LAYER
    ),
    (r"(?:text\.)?token_embedding\.", "text.trunk.embeddings.token_embedding."),
    (r"(?:text\.)?positional_embedding$", "text.trunk.embeddings.position_embedding.weight"),
    (r"(?:text\.)?ln_final\.", "text.trunk.final_layer_norm."),
    (r"(?:text\.)?text_projection\.", "text.projection."),
    (r"(?:text\.)?text_projection$", "text.projection.weight"),
    *(
        (rf"(?:text\.)?transformer\.resblocks\.(\d+)\.{old}", rf"text.trunk.encoder.layers.\1.{new}")
        for old, new in LAYER
    ),
    (r"logit_(scale|bias)$", r"logit_\1"),
)
"""open_clip's weight names as patterns, each with the name in a `DualEncoder`."""
JOINED = re.compile(
    r"(?P<tower>visual\.|text\.|)transformer\.resblocks\.(?P<layer>\d+)\.attn\.in_proj_(?P<kind>weight|bias)"
)


def _weights(source: str, config: DualEncoderConfig) -> dict[str, Tensor]:
    return dict(_renamed(source, _read(source)))


def _renamed(source: str, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, stored in weights.items():
        weight = stored.float()
        if joined := JOINED.fullmatch(name):
            tower = "image" if joined["tower"] == "visual." else "text"
            for part, share in zip("qkv", weight.chunk(3), strict=True):
                yield f"{tower}.trunk.encoder.layers.{joined['layer']}.self_attn.{part}_proj.{joined['kind']}", share
        elif name in ("visual.proj", "text_projection", "text.text_projection"):  # stored as [width, dim]
            yield _name(source, name), weight.T
        else:
            yield _name(source, name), weight.reshape(()) if name.startswith("logit_") else weight


def _name(source: str, name: str) -> str:
    for pattern, ours in NAMES:
        if match := re.match(pattern, name):
            return match.expand(ours) + name[match.end() :]
    raise ShoplensError(f"the weights of {source} have {name}, which is not supported")


def _read(source: str) -> dict[str, Tensor]:
    readers: dict[str, Callable[[str], Any]] = {
        WEIGHTS[0]: load_file,
        WEIGHTS[1]: lambda path: torch.load(path, map_location="cpu", weights_only=True),
    }
    for name, reader in readers.items():
        file = find_file(source, name)
        if file is not None:
            try:
                weights: dict[str, Tensor] = reader(str(file))
            except (SafetensorError, UnpicklingError, RuntimeError, EOFError) as error:
                raise ShoplensError(f"{file} cannot be read: {error}") from error
            return weights
    raise ShoplensError(f"{source} has a {CONFIG} but no weights: {' or '.join(WEIGHTS)} is missing")
