"""Unit vectors of the inputs of a request: texts and photos by the model, products by the index."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from serve_apps.encoded import Fault
from serve_apps.gateway import AT_ONCE, Gateway, Served
from serve_apps.http.errors import ApiError, bad_request, not_found
from serve_apps.http.inputs import Input, Photo, PhotoAndText, ProductRef, Text
from serve_apps.photos import UNPROCESSABLE
from serve_apps.settings import Limits
from shoplens.packages.capabilities import EMBED_IMAGE, EMBED_IMAGE_TEXT, EMBED_TEXT, Capability, PhotoText, TextVector
from shoplens.search.index import UnknownProduct


async def embed(gateway: Gateway, served: Served, inputs: Sequence[Input]) -> tuple[np.ndarray, int]:
    """float32 [n, d] in the order of `inputs`, and the number of tokens in the texts.

    Raises ApiError that names the first input at fault.
    """
    _within(gateway.settings.limits, inputs)
    rows: list[np.ndarray | ApiError] = []
    tokens = 0
    for start in range(0, len(inputs), AT_ONCE):  # so that a long request holds few pixels, and lets others pass
        part = inputs[start : start + AT_ONCE]
        vectors, read = await embed_each(gateway, served, part, all_or_none=True)
        _raise_first(vectors)
        rows += vectors
        tokens += read
    return np.stack(rows), tokens  # type: ignore[arg-type]


async def embed_each(
    gateway: Gateway, served: Served, inputs: Sequence[Input], *, all_or_none: bool = False
) -> tuple[list[np.ndarray | ApiError], int]:
    """As `embed`, with the error of an input in its place.

    `all_or_none` raises the first error that is known before the model is called.
    """
    rows: list[np.ndarray | ApiError] = [np.empty(0)] * len(inputs)
    photos: list[tuple[int, Photo]] = []
    waiting: dict[Capability[Any, Any], list[tuple[int, Any]]] = defaultdict(list)
    for i, item in enumerate(inputs):
        capability = _needed(item)
        if isinstance(item, ProductRef):
            rows[i] = _of_product(served, item)
        elif capability is not None and not served.can(capability):
            rows[i] = ApiError(UNPROCESSABLE, "not_encodable", served.lacks(capability), item.place)
        elif isinstance(item, Text):
            waiting[EMBED_TEXT].append((i, item.text))
        else:
            photos.append((i, item.photo if isinstance(item, PhotoAndText) else item))
    if photos:
        assert served.model.preprocessing is not None
        decoded = await gateway.photos.pixels([photo for _, photo in photos], served.model.preprocessing)
        for (i, _), pixels in zip(photos, decoded, strict=True):
            item = inputs[i]
            if isinstance(pixels, ApiError):
                rows[i] = pixels
            elif isinstance(item, PhotoAndText):
                waiting[EMBED_IMAGE_TEXT].append((i, PhotoText(pixels, item.text.text)))
            else:
                waiting[EMBED_IMAGE].append((i, pixels))
    if all_or_none:
        _raise_first(rows)
    tokens = 0
    called = (gateway.call(served, capability, [item for _, item in asked]) for capability, asked in waiting.items())
    for asked, results in zip(waiting.values(), await asyncio.gather(*called), strict=True):
        for (i, _), result in zip(asked, results, strict=True):
            if isinstance(result, Fault):
                rows[i] = ApiError(UNPROCESSABLE, "not_encodable", result.message, inputs[i].place)
            elif isinstance(result, TextVector):
                rows[i] = result.vector
                tokens += result.tokens
            else:
                rows[i] = result
    return rows, tokens


def _needed(item: Input) -> Capability[Any, Any] | None:
    """The capability that embeds the input; None for a product, whose vector the index holds."""
    match item:
        case Text():
            return EMBED_TEXT
        case Photo():
            return EMBED_IMAGE
        case PhotoAndText():
            return EMBED_IMAGE_TEXT
        case ProductRef():
            return None


def _of_product(served: Served, item: ProductRef) -> np.ndarray | ApiError:
    if served.catalogue is None:
        return not_found("no_index", f"{served.version} has no index to find products in", item.place)
    try:
        return served.catalogue.index.vector_of(item.product_id)
    except UnknownProduct as error:
        return not_found("product_not_found", str(error)[:300], item.place)


def _within(limits: Limits, inputs: Sequence[Input]) -> None:
    """Raises ApiError 400."""
    if len(inputs) > limits.inputs:
        raise bad_request(
            "too_many_inputs",
            f"{len(inputs)} inputs; at most {limits.inputs} at a time: send several requests",
            "input",
        )
    for item in inputs:
        text = item.text if isinstance(item, PhotoAndText) else item
        if not isinstance(text, Text):
            continue
        if not text.text.strip():
            raise bad_request("empty_text", "the text is empty", text.place)
        if len(text.text) > limits.text_chars:
            message = f"the text has {len(text.text)} characters; at most {limits.text_chars} are taken"
            raise bad_request("text_too_long", message, text.place)


def _raise_first(rows: Sequence[np.ndarray | ApiError]) -> None:
    for row in rows:
        if isinstance(row, ApiError):
            raise row
