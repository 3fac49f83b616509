"""The first batch of a run as a picture: what the model is really shown, seen before hours are spent on it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from shoplens.recipes.base import Recipe

COLUMNS, ROWS = 12, 6


def log_sample_batch(recipe: Recipe, log_image: Callable[[Image.Image, str], None]) -> None:
    """Logs `sample_batch.png`: photos of the first step, augmented and resized as in training."""
    pixels = recipe.collate(recipe.plan(0)[0], 0)["pixels"]
    log_image(contact_sheet(pixels[: COLUMNS * ROWS]), "sample_batch.png")


def contact_sheet(pixels: np.ndarray) -> Image.Image:
    """uint8 [n, 3, h, w] -> one picture, `COLUMNS` photos a row on white."""
    n, _, height, width = pixels.shape
    gap = 4
    rows = -(-n // COLUMNS)
    sheet = np.full((rows * (height + gap) + gap, COLUMNS * (width + gap) + gap, 3), 255, np.uint8)
    for place, photo in enumerate(pixels):
        top, left = gap + place // COLUMNS * (height + gap), gap + place % COLUMNS * (width + gap)
        sheet[top : top + height, left : left + width] = photo.transpose(1, 2, 0)
    return Image.fromarray(sheet)
