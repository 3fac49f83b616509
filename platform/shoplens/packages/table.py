"""Answers of a packaged model to the rows of a table, as its pyfunc gives them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from shoplens.datasets.images import ImageRejected, decode
from shoplens.errors import ShoplensError
from shoplens.packages.capabilities import Capability, PhotoText, named
from shoplens.packages.model import PackagedModel
from shoplens.schema import TopicText

AT_ONCE = 64
COLUMNS = ("text", "image", "topic")
ARTICLE = {"text": "a", "image": "an", "topic": "a"}


def answer(model: PackagedModel, table: pd.DataFrame, capability: str | None = None) -> pd.DataFrame:
    """A row for each row of `table`: column `embedding`, `query` or `text`, as the capability gives it.

    table        columns `text`, `image` and `topic` (its name) as the model takes them. An image is bytes, a data URI,
                 base64, or the path of a file
    capability   which of the model's capabilities answers; by default the first that takes just what a row gives

    Raises ShoplensError naming the row that cannot be answered, and why.
    """
    given = [_given(row) for row in table.to_dict("records")]
    chosen = [_chosen(model, place, frozenset(row), capability) for place, row in enumerate(given)]
    columns: dict[str, list[Any]] = {}
    for used in dict.fromkeys(chosen):
        assert used.call is not None
        places = [place for place, one in enumerate(chosen) if one is used]
        for start in range(0, len(places), AT_ONCE):
            part = places[start : start + AT_ONCE]
            results = used.call(model, [_item(model, used, place, given[place]) for place in part])
            for place, result in zip(part, results, strict=True):
                name, value = _shown(used, result)
                columns.setdefault(name, [None] * len(given))[place] = value
    return pd.DataFrame(columns, index=table.index)


def _given(row: dict[str, Any]) -> dict[str, Any]:
    """Cells with a value: neither None, NaN nor empty."""
    return {
        name: value
        for name, value in row.items()
        if name in COLUMNS and isinstance(value, str | bytes | bytearray | memoryview) and len(value) > 0
    }


def _chosen(model: PackagedModel, place: int, has: frozenset[str], wanted: str | None) -> Capability[Any, Any]:
    offered = [capability for capability in model.can if capability.call is not None]
    if wanted is not None:
        offered = [capability for capability in offered if capability is named(wanted)]
        if not offered:
            raise ShoplensError(f"this model does not do {wanted}; it does {', '.join(map(str, model.can))}")
    for capability in offered:
        if frozenset(capability.takes) == has:
            return capability
    takes = sorted({tuple(sorted(capability.takes, key=COLUMNS.index)) for capability in offered})
    needs = " or ".join(" with ".join(f"{ARTICLE[name]} {name}" for name in names) for names in reversed(takes))
    raise ShoplensError(f"row {place}: give {needs}; the row has {' and '.join(sorted(has)) or 'none of these'}")


def _item(model: PackagedModel, capability: Capability[Any, Any], place: int, row: dict[str, Any]) -> Any:
    if capability.takes == ("topic",):
        return TopicText(name=str(row["topic"]))
    if capability.takes == ("text",):
        return str(row["text"])
    pixels = _pixels(model, place, row["image"])
    return pixels if capability.takes == ("image",) else PhotoText(pixels, str(row["text"]))


def _pixels(model: PackagedModel, place: int, image: bytes | str) -> np.ndarray:
    assert model.preprocessing is not None
    try:
        return model.preprocessing(decode(_bytes(image)).image)
    except ImageRejected as error:
        raise ShoplensError(f"row {place}: {error}") from error


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


def _shown(capability: Capability[Any, Any], result: Any) -> tuple[str, Any]:
    """Column and cell of a result."""
    if capability.gives == "text":
        return "text", str(result)
    if capability.gives == "query":
        return "query", _list(result.query[0])
    return "embedding", _list(getattr(result, "vector", result))


def _list(vector: Sequence[float]) -> list[float]:
    return np.asarray(vector, dtype=np.float32).tolist()
