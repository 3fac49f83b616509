"""Colour profiles: pixels of a photo with an ICC profile become sRGB, the colours that models are trained on."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

MAX_PROFILE = 4 * 2**20
"""Bytes of the largest profile that is used. Profiles of printers have up to 3 MB."""
SRGB_LEVELS = 2
"""A profile that changes no colour by more levels is sRGB. Its photos keep their pixels as they are."""

_SRGB = ImageCms.createProfile("sRGB")


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An RGB, L or CMYK photo -> RGB in sRGB.

    The rendering intent is perceptual, as in Pillow and browsers. A profile that is damaged, too large, or of another
    kind of pixels than the photo is ignored. Browsers do the same.
    """
    conversion = None
    if profile and len(profile) <= MAX_PROFILE:
        conversion = _conversion(profile, image.mode)
    if conversion is None:
        return image if image.mode == "RGB" else image.convert("RGB")
    return conversion.apply(image)


@lru_cache(maxsize=16)
def _conversion(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform of pixels with this profile to sRGB. None if there is none, or if it would change nothing."""
    try:
        transform = ImageCms.buildTransform(ImageCms.ImageCmsProfile(io.BytesIO(profile)), _SRGB, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    if mode == "CMYK":
        return transform
    probe = _grid() if mode == "RGB" else Image.frombytes("L", (256, 1), bytes(range(256)))
    kept, changed = (np.asarray(colours, dtype=int) for colours in (probe.convert("RGB"), transform.apply(probe)))
    return transform if np.abs(changed - kept).max() > SRGB_LEVELS else None


def _grid() -> Image.Image:
    """RGB colours, 16 levels of each channel: [64, 64]."""
    levels = np.stack(np.meshgrid(*[np.arange(0, 256, 17, dtype=np.uint8)] * 3), axis=-1)
    return Image.fromarray(levels.reshape(64, 64, 3))
