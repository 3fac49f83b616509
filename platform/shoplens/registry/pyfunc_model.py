"""A package as an MLflow pyfunc (models from code): texts and photos in, unit vectors out.

MLflow copies this file into the model, so it imports nothing but installed packages.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from shoplens.datasets.images import ImageRejected, decode
from shoplens.errors import ShoplensError

IMAGES_AT_ONCE = 64


class PackagedEmbedder(mlflow.pyfunc.PythonModel):
    """`predict` takes the columns `text` and/or `image` and returns the column `embedding`, a row each.

    A row holds a text or an image, not both; an image is bytes, a data URI, base64, or the path of a file. Where the
    model reads photos alone, a text is refused.
    """

    def load_context(self, context: Any) -> None:
        from shoplens.packages.photo_embedder import PhotoEmbedder

        self.embedder: Any = PhotoEmbedder.load(context.artifacts["package"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Raises ShoplensError naming the row that cannot be embedded, and why."""
        absent = [None] * len(model_input)
        rows = list(zip(model_input.get("text", absent), model_input.get("image", absent), strict=True))
        texts = [row for row, (text, _) in enumerate(rows) if _given(text)]
        images = [row for row, (_, image) in enumerate(rows) if _given(image)]
        for row, (text, image) in enumerate(rows):
            if _given(text) == _given(image):
                raise ShoplensError(f"row {row}: give a text or an image (one of the two)")
        if texts and not hasattr(self.embedder, "encode_texts"):
            raise ShoplensError(f"row {texts[0]}: this model reads photos, and no texts")
        vectors = np.zeros((len(rows), self.embedder.dim), np.float32)
        if texts:
            vectors[texts] = self.embedder.encode_texts([str(rows[row][0]) for row in texts])
        for start in range(0, len(images), IMAGES_AT_ONCE):
            chunk = images[start : start + IMAGES_AT_ONCE]
            vectors[chunk] = self.embedder.encode_images(np.stack([self._pixels(row, rows[row][1]) for row in chunk]))
        return pd.DataFrame({"embedding": vectors.tolist()}, index=model_input.index)

    def _pixels(self, row: int, image: bytes | str) -> np.ndarray:
        try:
            return self.embedder.preprocess(decode(_bytes(image)).image)
        except ImageRejected as error:
            raise ShoplensError(f"row {row}: {error}") from error


def _given(value: Any) -> bool:
    """Neither None, NaN nor empty, which is how a table says that a cell has no value."""
    return isinstance(value, str | bytes | bytearray | memoryview) and len(value) > 0


def _bytes(image: bytes | str) -> bytes:
    if not isinstance(image, str):
        return bytes(image)
    if len(image) < 4096 and not image.startswith("data:") and Path(image).is_file():
        return Path(image).read_bytes()
    try:
        return base64.b64decode(image.partition(",")[2] if image.startswith("data:") else image, validate=True)
    except (binascii.Error, ValueError):
        raise ImageRejected(
            "unreadable",
            "the image is neither a file that exists nor base64; give bytes, base64, a data URI or a path",
        ) from None


mlflow.models.set_model(PackagedEmbedder())
