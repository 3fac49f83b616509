"""Image towers from timm or transformers, text towers from transformers, each ending in a projection.

The two libraries are imported where a tower is built: processes that only read batches never load them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from shoplens.config import Config
from shoplens.errors import ShoplensError

Projection = Literal["linear", "affine", "mlp", "none"]
"""`affine` has a bias; `mlp` is two layers with a ReLU between; `none` leaves the trunk's vectors as they are."""


class ImageTowerConfig(Config):
    """A timm model by `name`, or CLIP's or SigLIP's own vision model by its transformers `config`.

    For timm, `pretrained` true loads its hub weights, a path loads a local checkpoint.
    """

    name: str | None = None
    pretrained: bool | str = False
    options: dict[str, Any] = {}
    config: dict[str, Any] | None = None
    projection: Projection = "linear"

    @model_validator(mode="before")
    @classmethod
    def _one_source(cls, tree: Any) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        if tree.get("config") is None:
            return {**tree, "name": tree.get("name") or "convnext_atto"}
        if any(tree.get(key) for key in ("name", "pretrained", "options")):
            raise ValueError("`name`, `pretrained` and `options` are timm's: leave them out beside `config`")
        if tree["config"].get("model_type") not in ("clip_vision_model", "siglip_vision_model"):
            raise ValueError(
                "`config` has model_type clip_vision_model or siglip_vision_model; name others as timm does"
            )
        return tree


class TextTowerConfig(Config):
    """A transformers model: `name` (hub name or local path, pretrained), or `config` for one built anew.

    `config` is a transformers configuration with its `model_type`; the vocabulary size and the longest
    text come from the tokenizer and `max_tokens` unless it says otherwise.
    pooling: `mean` over the text, `cls` its first token, `eos` the first end-of-text token (`eos_token_id` of
    `config`; CLIP), `last` the last position of a text padded to `max_tokens`, padding attended to (SigLIP).
    """

    name: str | None = None
    config: dict[str, Any] | None = None
    max_tokens: int = 32
    vocab_size: int = 8000
    pooling: Literal["mean", "cls", "eos", "last"] = "mean"
    projection: Projection = "linear"

    @model_validator(mode="after")
    def _one_source(self) -> TextTowerConfig:
        if (self.name is None) == (self.config is None):
            raise ValueError("give either `name` (a pretrained transformers model) or `config` (one built anew)")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError("`config` needs a `model_type`, such as bert")
        if self.pooling == "eos" and not isinstance((self.config or {}).get("eos_token_id"), int):
            raise ValueError("pooling `eos` needs the `eos_token_id` of `config`")
        return self


class ImageTower(nn.Module):
    def __init__(self, config: ImageTowerConfig, image_size: int, dim: int) -> None:
        super().__init__()
        self._pools = config.config is not None
        if config.config is not None:
            self.trunk = _transformer(config.config, "image")
            width, expected = self.trunk.config.hidden_size, self.trunk.config.image_size
            if expected != image_size:
                raise ShoplensError(f"the image tower takes {expected} px, preprocessing.size is {image_size}")
        else:
            self.trunk = _timm(config)
            width = getattr(self.trunk, "head_hidden_size", self.trunk.num_features)  # where layers follow the pooling
        self.projection = _projection(config.projection, width, dim, "image")

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels float [n, 3, h, w] -> [n, dim], not normalised."""
        vectors = self.trunk(pixels)
        return self.projection(vectors.pooler_output if self._pools else vectors)


class TextTower(nn.Module):
    def __init__(self, config: TextTowerConfig, vocab_size: int, dim: int, *, pretrained: bool = True) -> None:
        """With `pretrained` false a named model gets its architecture only (weights follow from a package)."""
        super().__init__()
        self.pooling = config.pooling
        if config.config is not None:
            sizes = {"vocab_size": vocab_size, "max_position_embeddings": config.max_tokens}
            self.trunk = _transformer({**sizes, **config.config}, "text")
        else:
            self.trunk = _named(config.name, pretrained)
        for part, without in (("pooler", None), ("head", nn.Identity())):
            if getattr(self.trunk, part, None) is not None:
                setattr(self.trunk, part, without)
        self.projection = _projection(config.projection, self.trunk.config.hidden_size, dim, "text")

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor | None = None) -> Tensor:
        """Token ids int64 [n, t], mask bool [n, t] -> [n, dim], not normalised.

        types   int64 [n, t], for trunks that tell kinds of tokens apart (BERT)
        """
        attended = None if self.pooling == "last" else mask.long()
        kinds = {} if types is None else {"token_type_ids": types}
        states = self.trunk(input_ids=ids, attention_mask=attended, **kinds).last_hidden_state
        return self.projection(self._pooled(states, ids, mask))

    def _pooled(self, states: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        if self.pooling == "cls":
            return states[:, 0]
        if self.pooling == "last":
            return states[:, -1]
        if self.pooling == "eos":
            first = (ids == self.trunk.config.eos_token_id).int().argmax(1)
            return states[torch.arange(len(ids), device=ids.device), first]
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)


def _timm(config: ImageTowerConfig) -> Any:
    import timm

    options = dict(config.options)
    if isinstance(config.pretrained, str):
        options["pretrained_cfg_overlay"] = {"file": config.pretrained}
    try:
        return timm.create_model(config.name, pretrained=bool(config.pretrained), num_classes=0, **options)
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        raise ShoplensError(f"cannot build the image tower {config.name!r}: {error}") from error


def _transformer(config: dict[str, Any], tower: str) -> Any:
    """A transformers model built anew."""
    from transformers import AutoConfig, AutoModel, SiglipTextModel

    options = dict(config)
    try:
        architecture = AutoConfig.for_model(options.pop("model_type"), **options)
        if architecture.model_type == "siglip_text_model":  # which AutoModel does not know
            return SiglipTextModel(architecture)
        return AutoModel.from_config(architecture, dtype=torch.float32)
    except (OSError, ValueError, TypeError) as error:
        raise ShoplensError(f"cannot build the {tower} tower: {error}") from error


def _named(name: str | None, pretrained: bool) -> Any:
    from transformers import AutoConfig, AutoModel

    try:
        if pretrained:
            return AutoModel.from_pretrained(name, dtype=torch.float32)
        return AutoModel.from_config(AutoConfig.from_pretrained(name), dtype=torch.float32)
    except (OSError, ValueError, TypeError) as error:
        raise ShoplensError(f"cannot build the text tower: {error}") from error


def _projection(kind: Projection, width: int, dim: int, tower: str) -> nn.Module:
    if kind == "mlp":
        return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dim))
    if kind != "none":
        return nn.Linear(width, dim, bias=kind == "affine")
    if width != dim:
        raise ShoplensError(f"the {tower} tower without a projection gives {width} numbers, model.dim is {dim}")
    return nn.Identity()
