"""Two towers and a logit scale: the model of CLIP, KELIP and e-CLIP."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from shoplens.config import Config
from shoplens.datasets.preprocessing import Preprocessing
from shoplens.models.towers import ImageTower, ImageTowerConfig, TextTower, TextTowerConfig


class DualEncoderConfig(Config):
    image: ImageTowerConfig = ImageTowerConfig()
    text: TextTowerConfig
    dim: int = 256
    initial_temperature: float = 0.07
    initial_logit_bias: float | None = None
    max_logit_scale: float = 100.0


class Encoded(NamedTuple):
    """Unit rows `image` and `text` [n, dim], scalars `logit_scale` = 1/temperature and, if there is one, `logit_bias`."""

    image: Tensor
    text: Tensor
    logit_scale: Tensor
    logit_bias: Tensor | None


class DualEncoder(nn.Module):
    """`logit_scale` holds log(1/temperature), clamped to log(max_logit_scale) at every forward (CLIP)."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self, config: DualEncoderConfig, preprocessing: Preprocessing, vocab_size: int, *, pretrained: bool = True
    ) -> None:
        super().__init__()
        image = config.image if pretrained else config.image.model_copy(update={"pretrained": False})
        self.image = ImageTower(image, preprocessing.size, config.dim)
        self.text = TextTower(config.text, vocab_size, config.dim, pretrained=pretrained)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / config.initial_temperature)))
        bias = config.initial_logit_bias
        self.logit_bias = None if bias is None else nn.Parameter(torch.tensor(bias))
        self._max_log_scale = math.log(config.max_logit_scale)
        for name, values in (("pixel_mean", preprocessing.mean), ("pixel_std", preprocessing.std)):
            self.register_buffer(name, 255 * torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """uint8 [n, 3, h, w] -> unit rows [n, dim]."""
        normal = (pixels.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std
        return functional.normalize(self.image(normal).float(), dim=-1)

    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids int64 [n, t], mask bool [n, t] -> unit rows [n, dim]."""
        return functional.normalize(self.text(ids, mask).float(), dim=-1)

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Encoded:
        return self.compared(self.encode_image(pixels), self.encode_text(ids, mask))

    def compared(self, image: Tensor, text: Tensor) -> Encoded:
        """Rows with the scale and bias of their scores; the scale is clamped first."""
        with torch.no_grad():
            self.logit_scale.clamp_(max=self._max_log_scale)
        return Encoded(image, text, self.logit_scale.exp(), self.logit_bias)
