"""Image towers from timm or transformers and text towers from transformers, each with a projection to `dim`.

timm and transformers are imported only when a tower is built. Processes that only read batches never load them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from shoplens.config import Config
from shoplens.errors import ShoplensError
from shoplens.nn.packaged_weights import packaged_weights

Projection = Literal["linear", "affine", "mlp", "none"]
"""`linear` has no bias, `affine` has one. `mlp` is two layers with a ReLU. `none` returns the trunk's vectors."""


class ImageTowerConfig(Config):
    """Settings of the image tower: a timm model by `name`, or CLIP's or SigLIP's vision model by `config`."""

    name: str | None = Field(
        None, description="timm model, such as `vit_base_patch16_224`; `convnext_atto` if `config` is not given either."
    )
    pretrained: bool | str = Field(
        False,
        description="timm weights to start from: `true` loads those of the hub, `packaged` those of an installed Python "
        "package (`tf_efficientnet_lite0`), a path loads a local checkpoint.",
    )
    options: dict[str, Any] = Field(
        {}, description="Further arguments of `timm.create_model`, such as `{img_size: 256}`."
    )
    config: dict[str, Any] | None = Field(
        None,
        description="transformers configuration of CLIP's or SigLIP's vision model, with its `model_type` "
        "(`clip_vision_model` or `siglip_vision_model`). It replaces `name`, `pretrained` and `options`.",
    )
    pooling: Literal["last", "stages"] = Field(
        "last",
        description="Vector of the trunk: `last` is timm's own pooling of the last stage. `stages` appends the mean and "
        "the standard deviation of every stage's map, each number standardised over the batch: early stages know "
        "colour and texture, so a locked trunk says more.",
    )
    projection: Projection = Field(
        "linear",
        description="Layers from the trunk's vector to `dim`: `linear` (no bias), `affine` (with bias), `mlp` (two "
        "layers with a ReLU) or `none` (the trunk already gives `dim` numbers).",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_source(cls, tree: Any) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        if tree.get("config") is None:
            return {**tree, "name": tree.get("name") or "convnext_atto"}
        if any(tree.get(key) for key in ("name", "pretrained", "options")) or tree.get("pooling", "last") != "last":
            raise ValueError(
                "`name`, `pretrained`, `options` and `pooling` are timm's: leave them out if you give `config`"
            )
        if tree["config"].get("model_type") not in ("clip_vision_model", "siglip_vision_model"):
            raise ValueError(
                "`config` needs model_type clip_vision_model or siglip_vision_model; use `name` for timm models"
            )
        return tree


class TextTowerConfig(Config):
    """Settings of the text tower: a pretrained transformers model by `name`, or a new one by `config`."""

    name: str | None = Field(
        None, description="Hub name or local path of a pretrained transformers model. Give either `name` or `config`."
    )
    config: dict[str, Any] | None = Field(
        None,
        description="transformers configuration of a model with random weights, with its `model_type`, such as `bert`. "
        "If it sets no `vocab_size` or `max_position_embeddings`, the tokenizer's size and `max_tokens` are used.",
    )
    max_tokens: int = Field(32, description="Longest text in tokens; longer texts are truncated.")
    vocab_size: int = Field(8000, description="Tokens in the vocabulary of a tokenizer that training learns.")
    pooling: Literal["mean", "cls", "eos", "last"] = Field(
        "mean",
        description="How token states become one vector: `mean` over the tokens of the text; `cls`: the first token; "
        "`eos`: the first end-of-text token, the `eos_token_id` of `config` (CLIP); `last`: the last position of "
        "a text padded to `max_tokens`, with attention to the padding (SigLIP).",
    )
    projection: Projection = Field(
        "linear",
        description="Layers from the pooled state to `dim`: `linear` (no bias), `affine` (with bias), `mlp` (two "
        "layers with a ReLU) or `none` (the trunk already gives `dim` numbers).",
    )

    @model_validator(mode="after")
    def _one_source(self) -> TextTowerConfig:
        if (self.name is None) == (self.config is None):
            raise ValueError(
                "give either `name` (a pretrained transformers model) or `config` (a model with random weights)"
            )
        if self.config is not None and "model_type" not in self.config:
            raise ValueError("`config` needs a `model_type`, such as bert")
        if self.pooling == "eos" and not isinstance((self.config or {}).get("eos_token_id"), int):
            raise ValueError("pooling `eos` needs the `eos_token_id` of `config`")
        return self


class ImageTower(nn.Module):
    """Trunk, standardisation of pooled stages, and projection.

    Raises ShoplensError if the trunk cannot be built or does not fit `image_size` or `dim`.
    """

    def __init__(self, config: ImageTowerConfig, image_size: int, dim: int) -> None:
        super().__init__()
        self._pools = config.config is not None
        if config.config is not None:
            self.trunk = _transformer(config.config, "image")
            width, expected = self.trunk.config.hidden_size, self.trunk.config.image_size
            if expected != image_size:
                raise ShoplensError(
                    f"the image tower takes {expected} px, but preprocessing.size is {image_size}: make them equal"
                )
        else:
            self.trunk = timm_trunk(config)
            width = getattr(
                self.trunk, "head_hidden_size", self.trunk.num_features
            )  # layers after the pooling change the width
        self._stages = config.pooling == "stages"
        self.standardise: nn.Module = nn.Identity()
        if self._stages:
            width += 2 * sum(_stage_widths(self.trunk, config.name))
            self.standardise = nn.BatchNorm1d(width, affine=False)
        self.width = width
        self.projection = _projection(config.projection, width, dim, "image")

    def trunk_vectors(self, pixels: Tensor) -> Tensor:
        """Standardised pixels float [n, 3, h, w] -> vectors of the trunk [n, width]."""
        if not self._stages:
            vectors: Tensor = self.trunk(pixels).pooler_output if self._pools else self.trunk(pixels)
            return vectors
        last, maps = self.trunk.forward_intermediates(pixels)
        stages = [stage.flatten(2).float() for stage in maps]
        pooled = [statistic for stage in stages for statistic in (stage.mean(2), stage.std(2, correction=0))]
        return torch.cat([self.trunk.forward_head(last), *pooled], 1)

    def forward(self, photos: Tensor) -> Tensor:
        """Standardised pixels float [n, 3, h, w], or `trunk_vectors` [n, width] -> vectors [n, dim], not of unit length."""
        vectors = photos if photos.ndim == 2 else self.trunk_vectors(photos)
        return self.projection(self.standardise(vectors))


class TextTower(nn.Module):
    """Trunk, pooling and projection. Raises ShoplensError if the trunk cannot be built or does not fit `dim`."""

    def __init__(self, config: TextTowerConfig, vocab_size: int, dim: int, *, pretrained: bool = True) -> None:
        """`pretrained=False` builds a named model without its weights; a package loads them later."""
        super().__init__()
        self.pooling = config.pooling
        if config.config is not None:
            sizes = {"vocab_size": vocab_size, "max_position_embeddings": config.max_tokens}
            self.trunk = _transformer({**sizes, **config.config}, "text")
        else:
            self.trunk = _named(config.name, pretrained)
        for part, replacement in (("pooler", None), ("head", nn.Identity())):
            if getattr(self.trunk, part, None) is not None:
                setattr(self.trunk, part, replacement)
        self.projection = _projection(config.projection, self.trunk.config.hidden_size, dim, "text")

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor | None = None) -> Tensor:
        """Token ids int64 [n, t] and mask bool [n, t] -> vectors [n, dim], not of unit length.

        types   token type ids int64 [n, t], for trunks that use them (BERT)
        """
        attention_mask = None if self.pooling == "last" else mask.long()
        token_types = {} if types is None else {"token_type_ids": types}
        states = self.trunk(input_ids=ids, attention_mask=attention_mask, **token_types).last_hidden_state
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


def timm_trunk(config: ImageTowerConfig) -> Any:
    """The timm model of the settings, without a classifier. Raises ShoplensError if it cannot be built."""
    import timm

    options = dict(config.options)
    if config.pretrained == "packaged":
        options["pretrained_cfg_overlay"] = {"state_dict": packaged_weights(str(config.name))}
    elif isinstance(config.pretrained, str):
        options["pretrained_cfg_overlay"] = {"file": config.pretrained}
    try:
        return timm.create_model(config.name, pretrained=bool(config.pretrained), num_classes=0, **options)
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        raise ShoplensError(f"cannot build the image tower {config.name!r}: {error}") from error


def _stage_widths(trunk: Any, name: str | None) -> list[int]:
    """Channels of every map of `forward_intermediates`. Raises ShoplensError if the trunk has no such maps."""
    try:
        return [int(stage["num_chs"]) for stage in trunk.feature_info]
    except (AttributeError, KeyError, TypeError):
        raise ShoplensError(f"the image tower {name!r} has no stages: use `pooling: last`") from None


def _transformer(config: dict[str, Any], tower: str) -> Any:
    """A transformers model with random weights."""
    from transformers import AutoConfig, AutoModel, SiglipTextModel

    options = dict(config)
    try:
        architecture = AutoConfig.for_model(options.pop("model_type"), **options)
        if architecture.model_type == "siglip_text_model":  # AutoModel does not know it
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
        raise ShoplensError(
            f"the {tower} tower without a projection gives {width} numbers, but model.dim is {dim}: make them equal, "
            "or add a projection"
        )
    return nn.Identity()
