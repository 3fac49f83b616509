"""Signals of a photo that need no model, all from one decode, and the cut by them.

White share is NAVER Search's signal: of photos cut out on white, little is left to learn from.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops
from pydantic import Field

from shoplens.config import Config
from shoplens.curation.verdict import Verdict
from shoplens.datasets.images import HASH_SIDE, decode, perceptual_hash

WHITE_SIDE = 64
"""Side of the thumbnail whose white pixels are counted."""
WHITE_LEAST = 250
"""A pixel is white if red, green and blue are at least this: JPEG leaves few at 255."""
_SHARP_SIDE = 128


class PhotoSignals(NamedTuple):
    """What was measured of a photo.

    width, height   pixels, upright
    white           share of white pixels of a thumbnail of `WHITE_SIDE` squared, on white where it was transparent
    sharpness       variance of the Laplacian of the grey levels, at most 128 pixels wide and high; low: blurred
    animated        whether the file holds more than one picture in time; the first one is measured
    phash           perceptual hash, 64 bits
    sha256          of the file's bytes, as hexadecimal digits
    bytes           size of the file
    format          its suffix, such as `jpg`
    """

    width: int
    height: int
    white: float
    sharpness: float
    animated: bool
    phash: int
    sha256: str
    bytes: int
    format: str


class PhotoCut(Config):
    """What keeps a photo."""

    short_side: int = Field(200, ge=1, description="Least width and height, in pixels.")
    aspect: int = Field(3, ge=1, description="Largest ratio of the longer side to the shorter.")
    white: float = Field(0.9, gt=0, le=1, description="Share of white pixels from which on a photo is dropped.")
    sharpness: float = Field(0.0, ge=0, description="Least variance of the Laplacian; 0: blurred photos are kept.")
    animated: bool = Field(True, description="Whether the first picture of an animation is kept.")


def photo_signals(data: bytes) -> PhotoSignals:
    """Measures the bytes of an image file. Raises ImageRejected as `datasets.images.decode` does."""
    photo = decode(data, draft=HASH_SIDE)
    grey = photo.image.convert("L")
    return PhotoSignals(
        photo.width,
        photo.height,
        white_share(photo.image),
        sharpness(grey),
        photo.animated,
        perceptual_hash(grey),
        hashlib.sha256(data).hexdigest(),
        len(data),
        photo.format,
    )


def white_share(image: Image.Image) -> float:
    """Share of the thumbnail's pixels whose three channels are at least `WHITE_LEAST`. `image` is RGB."""
    thumbnail = image.resize((WHITE_SIDE, WHITE_SIDE), Image.Resampling.BOX, reducing_gap=1.0)
    darkest = functools.reduce(ImageChops.darker, thumbnail.split())
    return sum(darkest.histogram()[WHITE_LEAST:]) / WHITE_SIDE**2


def sharpness(image: Image.Image) -> float:
    """Variance of the 4-neighbour Laplacian of the grey levels 0 to 255, of the photo reduced to 128 pixels at most.

    `image` is L.
    """
    factor = -(-max(image.size) // _SHARP_SIDE)
    grey = np.asarray(image.reduce(factor) if factor > 1 else image).astype(np.int16)
    if min(grey.shape) < 3:
        return 0.0
    laplacian = (grey[:-2] + grey[2:])[:, 1:-1]
    laplacian += grey[1:-1, :-2]
    laplacian += grey[1:-1, 2:]
    laplacian -= 4 * grey[1:-1, 1:-1]
    return float(laplacian.var())


def verdicts(signals: PhotoSignals, cut: PhotoCut) -> tuple[Verdict, ...]:
    """Every reason against a photo; none if it is kept."""
    return tuple(_verdicts(signals, cut))


def _verdicts(signals: PhotoSignals, cut: PhotoCut) -> Iterator[Verdict]:
    shorter, longer = sorted((signals.width, signals.height))
    if shorter < cut.short_side:
        yield Verdict("short_side", shorter, cut.short_side)
    if longer > cut.aspect * shorter:  # integers: 600 x 200 stays, 601 x 200 does not
        yield Verdict("aspect", longer / shorter, cut.aspect)
    if signals.white >= cut.white:
        yield Verdict("white", signals.white, cut.white)
    if signals.sharpness < cut.sharpness:
        yield Verdict("sharpness", signals.sharpness, cut.sharpness)
    if signals.animated and not cut.animated:
        yield Verdict("animated", 1, 0)
