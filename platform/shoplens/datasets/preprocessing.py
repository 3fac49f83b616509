"""Preprocessing of decoded photos to model pixels, and augmentation in training."""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from shoplens.config import Config

LONGEST_STRIP = 16
"""If the aspect ratio of a photo is larger, `resize: crop` resamples its centre only. Otherwise a long strip of a few
bytes would be scaled up to fill the memory."""


class Preprocessing(Config):
    """Conversion of a photo to `size` x `size` pixels. Every package stores it as `preprocess.json`."""

    size: int = Field(64, description="side of the model's input, in pixels")
    resize: Literal["longest", "shortest", "squash", "crop"] = Field(
        "longest",
        description="`longest` fits the whole photo and pads it with white, so no part of the product is cut off; "
        "`shortest` resamples the centre square; `squash` changes the aspect ratio; `crop` scales the shorter side to "
        "`edge`, rounds the size to whole pixels and cuts out the centre, as CLIP does",
    )
    edge: int | None = Field(None, description="shorter side in pixels before a `crop`; null: `size`")
    centre: Literal["floor", "round"] = Field(
        "floor",
        description="offset of a `crop` if the margin is odd: `floor` as in transformers, `round` as in torchvision",
    )
    interpolation: Literal["bilinear", "bicubic", "lanczos"] = Field(
        "bicubic", description="Resampling filter of Pillow."
    )
    reducing_gap: float | None = Field(
        3.0,
        ge=1,
        description="Pillow's reducing_gap: large photos are shrunk in two steps, and JPEGs are decoded at a reduced "
        "scale. null: one full resampling, as models trained elsewhere expect",
    )
    mean: tuple[float, float, float] = Field(
        (0.48145466, 0.4578275, 0.40821073), description="the model subtracts it from pixels in 0..1"
    )
    std: tuple[float, float, float] = Field(
        (0.26862954, 0.26130258, 0.27577711), description="the model divides by it after `mean`"
    )

    @model_validator(mode="after")
    def _crop_lies_within(self) -> Preprocessing:
        if self.edge is not None and (self.resize != "crop" or self.edge < self.size):
            raise ValueError("`edge` needs `resize: crop` and must be at least `size`")
        return self

    @property
    def draft(self) -> int | None:
        """The `draft` of `images.decode`: least shorter side of a decoded JPEG, in pixels; None: full size."""
        return self.size if self.reducing_gap else None

    def __call__(self, image: Image.Image) -> np.ndarray:
        """RGB photo -> uint8 [3, size, size]."""
        width, height = image.size
        if self.resize == "crop":
            return _chw(self._cropped(image))
        if self.resize == "shortest":
            return _chw(self._centre_square(image, min(width, height)))
        if self.resize == "squash":
            return _chw(self._scaled(image, (self.size, self.size), (0, 0, width, height)))
        scale = self.size / max(width, height)
        fitted = max(1, round(width * scale)), max(1, round(height * scale))
        square = Image.new("RGB", (self.size, self.size), (255, 255, 255))
        place = ((self.size - fitted[0]) // 2, (self.size - fitted[1]) // 2)
        square.paste(self._scaled(image, fitted, (0, 0, width, height)), place)
        return _chw(square)

    def _cropped(self, image: Image.Image) -> Image.Image:
        edge, short = self.edge or self.size, min(image.size)
        if max(image.size) > LONGEST_STRIP * short:
            return self._centre_square(image, short * self.size / edge)
        fitted = int(edge * image.width / short), int(edge * image.height / short)
        scaled = self._scaled(image, fitted, (0, 0, *image.size))
        margins = [(side - self.size) / 2 for side in fitted]
        left, top = (round(margin) if self.centre == "round" else int(margin) for margin in margins)
        return scaled.crop((left, top, left + self.size, top + self.size))

    def _centre_square(self, image: Image.Image, side: float) -> Image.Image:
        left, top = (image.width - side) / 2, (image.height - side) / 2
        return self._scaled(image, (self.size, self.size), (left, top, left + side, top + side))

    def _scaled(self, image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]) -> Image.Image:
        method = Image.Resampling[self.interpolation.upper()]
        return image.resize(size, method, box=box, reducing_gap=self.reducing_gap)


class Augmentation(Config):
    """Random crop, mirror and brightness, drawn for each photo and epoch.

    Not torchvision's v2: its transforms draw from PyTorch's global generator only, so the draws of a photo could not
    depend on seed, epoch and sample alone.
    """

    crop: float = Field(0.8, description="smallest share of each side that a random crop keeps")
    mirror: bool = Field(True, description="whether half of the photos are mirrored left to right")
    brightness: float = Field(0.1, description="largest change of brightness: 0.1 scales pixels by 0.9 to 1.1")

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """RGB photo -> RGB photo, at most as large."""
        share_x, share_y, at_x, at_y, brightness = rng.uniform(size=5)
        mirrored = self.mirror and rng.uniform() < 0.5
        width = max(1, round(image.width * (self.crop + (1 - self.crop) * share_x)))
        height = max(1, round(image.height * (self.crop + (1 - self.crop) * share_y)))
        left, top = round(at_x * (image.width - width)), round(at_y * (image.height - height))
        image = image.crop((left, top, left + width, top + height))
        if mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.brightness:
            gain = 1 + self.brightness * (2 * brightness - 1)
            image = image.point(np.rint(np.arange(256) * gain).clip(max=255).astype(int).tolist() * 3)
        return image


def _chw(image: Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))
