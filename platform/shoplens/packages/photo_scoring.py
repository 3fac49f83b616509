"""Models of packages for photos that are in memory: scores of photos, and vectors of photos and texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shoplens.errors import ShoplensError
from shoplens.packages.capabilities import EMBED_IMAGE, EMBED_TEXT, SCORE_IMAGE, Capability
from shoplens.packages.model import PackagedModel


class PhotoScorer:
    """Scores photos, such as that of a watermark. Raises ShoplensError if the package's model scores none."""

    def __init__(self, package: str | Path) -> None:
        self._model = _load(package, SCORE_IMAGE)

    def __call__(self, photos: Sequence[Image.Image]) -> np.ndarray:
        """float32 [n], 0 to 1."""
        return np.asarray(self._model.score_images(_pixels(self._model, photos)))


class PairScorer:
    """Unit vectors of photos and texts in one space. Raises ShoplensError if the package's model does not make both."""

    def __init__(self, package: str | Path) -> None:
        self._model = _load(package, EMBED_IMAGE, EMBED_TEXT)

    def encode_photos(self, photos: Sequence[Image.Image]) -> np.ndarray:
        """float32 [n, d]."""
        return np.asarray(self._model.encode_images(_pixels(self._model, photos)))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [n, d]."""
        return np.concatenate(
            [np.asarray(self._model.encode_texts(texts[first : first + 256])) for first in range(0, len(texts), 256)]
        )


def _load(package: str | Path, *needed: Capability[Any, Any]) -> Any:
    model = PackagedModel.load(package)
    if lacking := [one for one in needed if one not in model.capabilities]:
        raise ShoplensError(
            f"{model.name} cannot do {', '.join(one.title for one in lacking)}, which the curation needs: name another model"
        )
    return model


def _pixels(model: Any, photos: Sequence[Image.Image]) -> np.ndarray:
    return np.stack([model.preprocessing(photo) for photo in photos])
