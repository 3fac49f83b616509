"""A tower for photos, from pixels to vectors: alone, and as one half of a dual encoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from shoplens.config import Config
from shoplens.datasets.preprocessing import Preprocessing
from shoplens.errors import ShoplensError
from shoplens.nn.towers import ImageTower, ImageTowerConfig


class PhotoEncoderConfig(Config):
    """The tower, and the width of its vectors.

    start_from   hub name or folder of a CLIP, SigLIP or open_clip checkpoint, which fills in tower, dim and
                 preprocessing (`models.pretrained`)
    locked       parts that training leaves as they are, in evaluation mode: `image`, `image.trunk.patch_embed`, ...
    """

    start_from: str | None = None
    locked: tuple[str, ...] = ()
    image: ImageTowerConfig = ImageTowerConfig()
    dim: int = 256


class PhotoEncoder(nn.Module):
    """The image tower, with the normalisation of its pixels."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: PhotoEncoderConfig, preprocessing: Preprocessing, *, pretrained: bool = True) -> None:
        super().__init__()
        image = config.image if pretrained else config.image.model_copy(update={"pretrained": False})
        self.image = ImageTower(image, preprocessing.size, config.dim)
        for name, values in (("pixel_mean", preprocessing.mean), ("pixel_std", preprocessing.std)):
            self.register_buffer(name, 255 * torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self._locked: list[nn.Module] = []

    def start(self, weights: Mapping[str, Tensor]) -> None:
        """Takes over trained weights. Raises ShoplensError if one is missing, unknown or of another shape."""
        try:
            self.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise ShoplensError(f"the weights do not fit the architecture: {error}") from error

    def lock(self, paths: Iterable[str]) -> None:
        """Excludes parts from training. Raises ShoplensError if there is no such part."""
        self._locked = [self._part(path).requires_grad_(False).eval() for path in paths]

    def train(self, mode: bool = True) -> PhotoEncoder:
        super().train(mode)
        for part in self._locked:
            part.eval()
        return self

    def tower_rows(self, pixels: Tensor) -> Tensor:
        """uint8 [n, 3, h, w] -> float32 [n, dim] as the tower gives them, not normalised."""
        normal = (pixels.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std
        rows: Tensor = self.image(normal)
        return rows.float()

    def encode_image(self, pixels: Tensor) -> Tensor:
        """uint8 [n, 3, h, w] -> unit rows [n, dim]."""
        return functional.normalize(self.tower_rows(pixels), dim=-1)

    def _part(self, path: str) -> nn.Module:
        try:
            return self.get_submodule(path)
        except AttributeError:
            raise ShoplensError(
                f"model.locked: there is no part {path!r}; lock image, text, image.trunk, ..."
            ) from None
