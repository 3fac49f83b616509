"""Image towers from timm, text towers from transformers, each ending in a linear projection.

The two libraries are imported where a tower is built: processes that only read batches never load them.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from shoplens.config import Config
from shoplens.errors import ShoplensError


class ImageTowerConfig(Config):
    """A timm model: `pretrained` true loads its hub weights, a path loads a local checkpoint."""

    name: str = "convnext_atto"
    pretrained: bool | str = False
    options: dict[str, Any] = {}


class TextTowerConfig(Config):
    """A transformers model: `name` (hub name or local path, pretrained), or `config` for one built anew.

    `config` is a transformers configuration with its `model_type`; the vocabulary size and the longest
    text come from the tokenizer and `max_tokens`.
    """

    name: str | None = None
    config: dict[str, Any] | None = None
    max_tokens: int = 32
    vocab_size: int = 8000
    pooling: Literal["mean", "cls"] = "mean"

    @model_validator(mode="after")
    def _one_source(self) -> TextTowerConfig:
        if (self.name is None) == (self.config is None):
            raise ValueError("give either `name` (a pretrained transformers model) or `config` (one built anew)")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError("`config` needs a `model_type`, such as bert")
        return self


class ImageTower(nn.Module):
    def __init__(self, config: ImageTowerConfig, image_size: int, dim: int) -> None:
        import timm

        super().__init__()
        options = dict(config.options)
        if isinstance(config.pretrained, str):
            options["pretrained_cfg_overlay"] = {"file": config.pretrained}
        try:
            self.trunk = timm.create_model(config.name, pretrained=bool(config.pretrained), num_classes=0, **options)
        except (RuntimeError, ValueError, TypeError, OSError) as error:
            raise ShoplensError(f"cannot build the image tower {config.name!r}: {error}") from error
        self.projection = nn.Linear(self.trunk.num_features, dim, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels float [n, 3, h, w] -> [n, dim], not normalised."""
        return self.projection(self.trunk(pixels))


class TextTower(nn.Module):
    def __init__(self, config: TextTowerConfig, vocab_size: int, dim: int, *, pretrained: bool = True) -> None:
        """With `pretrained` false a named model gets its architecture only (weights follow from a package)."""
        from transformers import AutoModel

        super().__init__()
        self.pooling = config.pooling
        try:
            if config.name is not None and pretrained:
                self.trunk = AutoModel.from_pretrained(config.name, dtype=torch.float32)
            else:
                self.trunk = AutoModel.from_config(self._architecture(config, vocab_size), dtype=torch.float32)
        except (OSError, ValueError, TypeError) as error:
            raise ShoplensError(f"cannot build the text tower: {error}") from error
        if getattr(self.trunk, "pooler", None) is not None:
            self.trunk.pooler = None
        self.projection = nn.Linear(self.trunk.config.hidden_size, dim, bias=False)

    @staticmethod
    def _architecture(config: TextTowerConfig, vocab_size: int) -> Any:
        from transformers import AutoConfig

        if config.name is not None:
            return AutoConfig.from_pretrained(config.name)
        sizes = {"vocab_size": vocab_size, "max_position_embeddings": config.max_tokens}
        options = {**sizes, **(config.config or {})}
        return AutoConfig.for_model(options.pop("model_type"), **options)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids int64 [n, t], mask bool [n, t] -> [n, dim], not normalised."""
        states = self.trunk(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        if self.pooling == "cls":
            pooled = states[:, 0]
        else:
            weights = mask.unsqueeze(-1).to(states.dtype)
            pooled = (states * weights).sum(1) / weights.sum(1)
        return self.projection(pooled)
