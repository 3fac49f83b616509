"""Parts of requests that several endpoints take: texts, photos, products and references to models."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from serve_apps.http.errors import Place, bad_request

IMAGE = "data:image/...;base64,... or, from allowed hosts, http(s)://..."
"""Description of a field with a photo."""
ProductId = Annotated[str, Field(min_length=1, max_length=256)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
AttributeText = Annotated[str, Field(min_length=1, max_length=200)]


class Strict(BaseModel):
    """Base of requests: an unknown field or a wrong type is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @classmethod
    def place(cls, found: Place) -> Place:
        """pydantic's place of a fault -> the place in the request. Models with tagged unions leave out the tags."""
        return found


class TextItem(Strict):
    type: Literal["text"]
    text: str


class ImageUrl(Strict):
    url: str = Field(description=IMAGE)


class ImageItem(Strict):
    type: Literal["image_url"]
    image_url: ImageUrl


class ProductItem(Strict):
    type: Literal["product"]
    product_id: ProductId


def item_kind(item: Any) -> str | None:
    """The tag of an item in a tagged union: its `type`, or `string` for a string."""
    kind = item.get("type") if isinstance(item, dict) else "string" if isinstance(item, str) else None
    return kind if isinstance(kind, str) else None


@dataclass(frozen=True)
class Text:
    """A text; `place` is where it stands in the request, such as `input[3]`."""

    place: str
    text: str


@dataclass(frozen=True)
class Photo:
    """A photo that is not decoded yet: its bytes, or a URL (`data:` too)."""

    place: str
    source: bytes | str


@dataclass(frozen=True)
class PhotoAndText:
    """A photo and a text that are embedded together."""

    place: str
    photo: Photo
    text: Text


@dataclass(frozen=True)
class ProductRef:
    """A product of the index."""

    place: str
    product_id: str


Input = Text | Photo | PhotoAndText | ProductRef

_DATA_URI = re.compile(r"data:(?P<type>[\w.+/-]{0,100})(?P<parameters>(;[\w.=+/-]{0,100}){0,4}),")


def data_uri_bytes(uri: str, place: str) -> bytes:
    """`data:image/jpeg;base64,...` -> bytes. Raises ApiError 400."""
    head = _DATA_URI.match(uri)
    if head is None or not head["parameters"].endswith(";base64") or not head["type"].startswith("image/"):
        raise bad_request("invalid_image_url", "a data URI reads data:image/TYPE;base64,DATA", place)
    try:
        return base64.b64decode(uri[head.end() :], validate=True)
    except ValueError as error:
        raise bad_request("invalid_image_url", f"the data URI is not base64: {error}", place) from None
