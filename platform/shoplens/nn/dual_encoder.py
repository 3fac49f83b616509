"""Dual encoder: two towers and a logit scale, the model of CLIP, KELIP and e-CLIP."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from shoplens.datasets.preprocessing import Preprocessing
from shoplens.nn.photo_encoder import PhotoEncoder, PhotoEncoderConfig
from shoplens.nn.towers import TextTower, TextTowerConfig


class DualEncoderConfig(PhotoEncoderConfig):
    """Settings of a dual encoder: two towers, and the logits between their vectors."""

    text: TextTowerConfig = Field(description="The text tower.")
    initial_temperature: float = Field(
        0.07, description="Temperature of the logits before training. Their scale is 1/temperature."
    )
    max_logit_scale: float = Field(100.0, description="Upper limit of the logit scale, as in CLIP.")
    logit_bias: bool = Field(
        False, description="Add a bias to the logits (SigLIP). Only the sigmoid loss uses and trains it."
    )
    initial_logit_bias: float = Field(-10.0, description="The logit bias before training.")


class Encoded(NamedTuple):
    """Unit rows `image` and `text` [n, dim], and the scalars `logit_scale` = 1/temperature and `logit_bias`."""

    image: Tensor
    text: Tensor
    logit_scale: Tensor
    logit_bias: Tensor | None


class DualEncoder(PhotoEncoder):
    """Image tower, text tower and logit scale.

    `logit_scale` stores log(1/temperature). Each forward pass clamps it to log(max_logit_scale), as CLIP does.
    """

    def __init__(
        self, config: DualEncoderConfig, preprocessing: Preprocessing, vocab_size: int, *, pretrained: bool = True
    ) -> None:
        super().__init__(config, preprocessing, pretrained=pretrained)
        self.text = TextTower(config.text, vocab_size, config.dim, pretrained=pretrained)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / config.initial_temperature)))
        bias = torch.tensor(config.initial_logit_bias)
        self.logit_bias = nn.Parameter(bias, requires_grad=False) if config.logit_bias else None
        self._max_log_scale = math.log(config.max_logit_scale)
        self.lock(config.locked)

    def start(self, weights: Mapping[str, Tensor]) -> None:
        """Loads trained weights. If their logit scale exceeds `max_logit_scale`, it becomes the new limit.

        Raises ShoplensError if a weight is missing, is unknown or has another shape.
        """
        super().start(weights)
        self._max_log_scale = max(self._max_log_scale, self.logit_scale.item())

    def encode_text(self, ids: Tensor, mask: Tensor, types: Tensor | None = None) -> Tensor:
        """Token ids int64 [n, t], mask bool [n, t] and optional token types int64 [n, t] -> unit rows [n, dim]."""
        return functional.normalize(self.text(ids, mask, types).float(), dim=-1)

    def forward(self, photos: Tensor, ids: Tensor, mask: Tensor, *further: tuple[Tensor, Tensor]) -> Encoded:
        """Photos as in `tower_rows` and texts; the rows of `further` texts (ids, mask) follow those of the first."""
        texts = [self.encode_text(*text) for text in ((ids, mask), *further)]
        return self.compared(self.encode_image(photos), torch.cat(texts))

    def compared(self, image: Tensor, text: Tensor) -> Encoded:
        """Clamps the logit scale, then returns it and the bias with the unit rows [n, dim]."""
        with torch.no_grad():
            self.logit_scale.clamp_(max=self._max_log_scale)
        return Encoded(image, text, self.logit_scale.exp(), self.logit_bias)
