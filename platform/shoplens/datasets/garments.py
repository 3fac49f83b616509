"""The side table `garments`: which products a photo shows, and the exact mask of each."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
from PIL import Image

GARMENTS = pa.schema(
    [
        ("image_id", pa.string()),
        ("product_id", pa.string()),
        ("part", pa.string()),
        ("layer", pa.int32()),
        ("box", pa.list_(pa.int32(), 4)),
        ("area", pa.float64()),
        ("visible", pa.float64()),
        ("mask", pa.binary()),
    ]
)
"""Columns of `garments.parquet`: one row a product that a photo shows.

part      what is worn: `top`, `skirt`, `trousers`, `dress`, `shoes` or `bag`
layer     garments of a higher layer hide those of a lower one
box       left, top, right, bottom of the mask in pixels; right and bottom are the first column and row without it
area      share of the photo's pixels in the mask
visible   share of the garment's own area that no other layer hides
mask      PNG of 1 bit a pixel, of the photo's size: white where the garment is seen. Masks of a photo are disjoint"""


def encode_mask(mask: np.ndarray) -> bytes:
    """The PNG of a mask, bool [height, width]."""
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG", optimize=True)
    return file.getvalue()


def decode_mask(data: bytes) -> np.ndarray:
    """The mask in a PNG of `encode_mask`, bool [height, width]."""
    return np.asarray(Image.open(io.BytesIO(data)), dtype=bool)


def mask_box(mask: np.ndarray) -> list[int]:
    """Left, top, right and bottom of a mask, bool [height, width], that is not empty; right and bottom lie outside."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
