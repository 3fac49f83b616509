"""Two towers and a logit scale: the model of CLIP, KELIP and e-CLIP."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from shoplens.datasets.preprocessing import Preprocessing
from shoplens.nn.photo_encoder import PhotoEncoder, PhotoEncoderConfig
from shoplens.nn.towers import TextTower, TextTowerConfig


class DualEncoderConfig(PhotoEncoderConfig):
    """Towers, and how they meet.

    start_from   hub name or folder of a CLIP, SigLIP or open_clip checkpoint, which fills in towers, dim,
                 tokenizer and preprocessing (`models.pretrained`)
    locked       parts that training leaves as they are, in evaluation mode: `image`, `text.trunk`, ...
    logit_bias   a bias beside the scale (SigLIP), which only the sigmoid loss sees and trains
    """

    text: TextTowerConfig
    initial_temperature: float = 0.07
    max_logit_scale: float = 100.0
    logit_bias: bool = False
    initial_logit_bias: float = -10.0


class Encoded(NamedTuple):
    """Unit rows `image` and `text` [n, dim], scalars `logit_scale` = 1/temperature and, if there is one, `logit_bias`."""

    image: Tensor
    text: Tensor
    logit_scale: Tensor
    logit_bias: Tensor | None


class DualEncoder(PhotoEncoder):
    """`logit_scale` holds log(1/temperature), clamped to log(max_logit_scale) at every forward (CLIP)."""

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
        """Takes over trained weights; a logit scale above `max_logit_scale` becomes the new ceiling.

        Raises ShoplensError if a weight is missing, unknown or of another shape.
        """
        super().start(weights)
        self._max_log_scale = max(self._max_log_scale, self.logit_scale.item())

    def encode_text(self, ids: Tensor, mask: Tensor, types: Tensor | None = None) -> Tensor:
        """Token ids int64 [n, t], mask bool [n, t], types int64 [n, t] or none -> unit rows [n, dim]."""
        return functional.normalize(self.text(ids, mask, types).float(), dim=-1)

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Encoded:
        return self.compared(self.encode_image(pixels), self.encode_text(ids, mask))

    def compared(self, image: Tensor, text: Tensor) -> Encoded:
        """Rows with the scale and bias of their scores; the scale is clamped first."""
        with torch.no_grad():
            self.logit_scale.clamp_(max=self._max_log_scale)
        return Encoded(image, text, self.logit_scale.exp(), self.logit_bias)
