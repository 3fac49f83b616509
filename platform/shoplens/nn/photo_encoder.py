"""Photo encoder: an image tower from pixels to vectors, alone or as one half of a dual encoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from shoplens.config import Config
from shoplens.datasets.preprocessing import Preprocessing
from shoplens.errors import ShoplensError
from shoplens.nn.towers import ImageTower, ImageTowerConfig


class PhotoEncoderConfig(Config):
    """Settings of a photo encoder."""

    start_from: str | None = Field(
        None,
        description="Checkpoint to start from: hub name or folder of CLIP, SigLIP or open_clip, folder of a shoplens "
        "package, or a registered model such as `models:/eclip@champion`. It fills in the towers, `dim`, the "
        "preprocessing and, with a text tower, the tokenizer.",
    )
    locked: tuple[str, ...] = Field(
        (),
        description="Modules that training does not change; they stay in evaluation mode. Examples: `image`, "
        "`image.trunk.patch_embed`, `text.trunk`.",
    )
    image: ImageTowerConfig = Field(ImageTowerConfig(), description="The image tower.")
    dim: int = Field(256, description="Size of a tower's vectors, in numbers.")


class PhotoEncoder(nn.Module):
    """The image tower behind the standardisation of its pixels: `(pixels - mean) / std`, per channel."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: PhotoEncoderConfig, preprocessing: Preprocessing, *, pretrained: bool = True) -> None:
        super().__init__()
        image = config.image if pretrained else config.image.model_copy(update={"pretrained": False})
        self.image = self.make_tower(config.model_copy(update={"image": image}), preprocessing.size)
        for name, values in (("pixel_mean", preprocessing.mean), ("pixel_std", preprocessing.std)):
            self.register_buffer(name, 255 * torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self._locked: list[nn.Module] = []

    def make_tower(self, config: PhotoEncoderConfig, image_size: int) -> ImageTower:
        """The image tower; a subclass may read the trunk in another way. Raises ShoplensError if it cannot be built."""
        return ImageTower(config.image, image_size, config.dim)

    def start(self, weights: Mapping[str, Tensor]) -> None:
        """Loads trained weights. Raises ShoplensError if a weight is missing, is unknown or has another shape."""
        try:
            self.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise ShoplensError(f"the weights do not fit the architecture: {error}") from error

    def lock(self, paths: Iterable[str]) -> None:
        """Freezes modules, such as `image.trunk`. Raises ShoplensError if a module does not exist."""
        self._locked = [self._part(path).requires_grad_(False).eval() for path in paths]

    def train(self, mode: bool = True) -> PhotoEncoder:
        super().train(mode)
        for part in self._locked:
            part.eval()
        return self

    def trunk_vectors(self, pixels: Tensor) -> Tensor:
        """Pixels uint8 [n, 3, h, w] -> vectors of the image trunk float32 [n, width]."""
        return self.image.trunk_vectors(self._standardised(pixels)).float()

    def tower_rows(self, photos: Tensor) -> Tensor:
        """The tower's vectors float32 [n, dim], not of unit length.

        photos   pixels uint8 [n, 3, h, w], or `trunk_vectors` of a locked trunk, float [n, width]
        """
        rows: Tensor = self.image(photos.float() if photos.ndim == 2 else self._standardised(photos))
        return rows.float()

    def encode_image(self, photos: Tensor) -> Tensor:
        """Photos as in `tower_rows` -> unit rows [n, dim]."""
        return functional.normalize(self.tower_rows(photos), dim=-1)

    def _standardised(self, pixels: Tensor) -> Tensor:
        return (pixels.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std

    def _part(self, path: str) -> nn.Module:
        try:
            return self.get_submodule(path)
        except AttributeError:
            raise ShoplensError(
                f"model.locked: there is no part {path!r}; name a module such as image, text or image.trunk"
            ) from None
