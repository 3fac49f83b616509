"""What the Encoder returns to a Gateway."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from shoplens.datasets.preprocessing import Preprocessing
from shoplens.evaluation.heads.extractor import Extractor


@dataclass(frozen=True)
class Prepared:
    """What a Gateway must know of a version to ask it and to read its vectors; all of it of that one version.

    logit_scale        what cosines are multiplied by before a softmax
    extractor          its attribute heads, if the package has any
    attribute_prompt   what turns `{key}` and `{value}` into a text, where a key has no head
    ranks              whether it makes queries of topics
    reads_texts        whether it encodes texts, beside photos
    """

    preprocessing: Preprocessing
    dim: int
    logit_scale: float
    extractor: Extractor | None
    attribute_prompt: str
    ranks: bool = False
    reads_texts: bool = True


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
