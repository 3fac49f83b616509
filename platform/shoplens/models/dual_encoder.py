"""Two towers and a logit scale: the model of CLIP, KELIP and e-CLIP."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from shoplens.config import Config
from shoplens.datasets.preprocessing import Preprocessing
from shoplens.errors import ShoplensError
from shoplens.models.towers import ImageTower, ImageTowerConfig, TextTower, TextTowerConfig


class DualEncoderConfig(Config):
    """Towers, and how they meet.

    start_from   hub name or folder of a CLIP, SigLIP or open_clip checkpoint, which fills in towers, dim,
                 tokenizer and preprocessing (`models.pretrained`)
    locked       parts that training leaves as they are, in evaluation mode: `image`, `text.trunk`, ...
    logit_bias   a bias beside the scale (SigLIP), which only the sigmoid loss sees and trains
    """

    start_from: str | None = None
    locked: tuple[str, ...] = ()
    image: ImageTowerConfig = ImageTowerConfig()
    text: TextTowerConfig
    dim: int = 256
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
        bias = torch.tensor(config.initial_logit_bias)
        self.logit_bias = nn.Parameter(bias, requires_grad=False) if config.logit_bias else None
        self._max_log_scale = math.log(config.max_logit_scale)
        for name, values in (("pixel_mean", preprocessing.mean), ("pixel_std", preprocessing.std)):
            self.register_buffer(name, 255 * torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self._locked = [self._part(path).requires_grad_(False).eval() for path in config.locked]

    def start(self, weights: Mapping[str, Tensor]) -> None:
        """Takes over trained weights; a logit scale above `max_logit_scale` becomes the new ceiling.

        Raises ShoplensError if a weight is missing, unknown or of another shape.
        """
        try:
            self.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise ShoplensError(f"the weights do not fit the architecture: {error}") from error
        self._max_log_scale = max(self._max_log_scale, self.logit_scale.item())

    def train(self, mode: bool = True) -> DualEncoder:
        super().train(mode)
        for part in self._locked:
            part.eval()
        return self

    def encode_image(self, pixels: Tensor) -> Tensor:
        """uint8 [n, 3, h, w] -> unit rows [n, dim]."""
        normal = (pixels.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std
        return functional.normalize(self.image(normal).float(), dim=-1)

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

    def _part(self, path: str) -> nn.Module:
        try:
            return self.get_submodule(path)
        except AttributeError:
            raise ShoplensError(
                f"model.locked: there is no part {path!r}; lock image, text, image.trunk, ..."
            ) from None
