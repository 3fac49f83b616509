"""What the Encoder returns to a Gateway."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Encoded:
    """Unit vectors of one request; a row whose item is in `*_faults` (by place) is zero.

    texts   float32 [texts, d]
    images  float32 [images, d]
    """

    texts: np.ndarray
    images: np.ndarray
    tokens: int = 0
    text_faults: dict[int, str] = field(default_factory=dict)
    image_faults: dict[int, str] = field(default_factory=dict)
