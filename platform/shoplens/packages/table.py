"""Answers of a packaged model to the rows of a table, as its pyfunc gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from shoplens.datasets.images import ImageRejected
from shoplens.errors import ShoplensError
from shoplens.packages.capabilities import Capability, PhotoText, named
from shoplens.packages.model import PackagedModel
from shoplens.packages.rows import COLUMNS, photo, rows
from shoplens.schema import TopicText

AT_ONCE = 64
ARTICLE = {"text": "a", "image": "an", "topic": "a"}


def answer(model: PackagedModel, table: Any, capability: str | None = None) -> pd.DataFrame:
    """A row for each row of `table`: column `embedding`, `query`, `text` or `score`, as the capability gives it.

    table        columns `text`, `image` and `topic` (its name) as the model takes them, or values without columns; see
                 `rows.rows`, and `rows.photo` for an image
    capability   which of the model's capabilities answers; by default the first that takes just what a row gives

    Raises ShoplensError naming the column or row that cannot be answered, and why.
    """
    offered = _offered(model, capability)
    takes = [name for name in COLUMNS if any(name in one.takes for one in offered)]
    given, index = rows(table, takes)
    chosen = [_chosen(offered, place, frozenset(row)) for place, row in enumerate(given)]
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
    return pd.DataFrame(columns, index=index)


def _offered(model: PackagedModel, wanted: str | None) -> list[Capability[Any, Any]]:
    offered = [capability for capability in model.can if capability.call is not None]
    if wanted is not None:
        offered = [capability for capability in offered if capability is named(wanted)]
        if not offered:
            raise ShoplensError(f"this model does not do {wanted}; it does {', '.join(map(str, model.can))}")
    return offered


def _chosen(offered: Sequence[Capability[Any, Any]], place: int, has: frozenset[str]) -> Capability[Any, Any]:
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


def _pixels(model: PackagedModel, place: int, image: Any) -> np.ndarray:
    assert model.preprocessing is not None
    try:
        return model.preprocessing(photo(image))
    except ImageRejected as error:
        raise ShoplensError(f"row {place}: {error}") from error


def _shown(capability: Capability[Any, Any], result: Any) -> tuple[str, Any]:
    """Column and cell of a result."""
    if capability.gives == "text":
        return "text", str(result)
    if capability.gives == "score":
        return "score", float(result)
    if capability.gives == "query":
        return "query", _list(result.query[0])
    return "embedding", _list(getattr(result, "vector", result))


def _list(vector: Sequence[float]) -> list[float]:
    return np.asarray(vector, dtype=np.float32).tolist()
