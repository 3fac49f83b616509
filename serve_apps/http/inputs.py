"""Parts of requests that several endpoints take: texts, photos, products and references to models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from serve_apps.http.errors import Place, bad_request
from shoplens.datasets import photo_text
from shoplens.datasets.images import ImageRejected
from shoplens.datasets.photo_text import is_data_uri

IMAGE = "data:image/...;base64,..., base64 alone or, from allowed hosts, http(s)://..."
"""Description of a field with a photo."""
FORM_IMAGE = "a file, or text as in the other kind of request"
ProductId = Annotated[str, Field(min_length=1, max_length=256)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
AttributeText = Annotated[str, Field(min_length=1, max_length=200)]


LongText = Annotated[str, Field(json_schema_extra={"maxLength": "limits.text_chars"})]
"""A text that a model reads. `api` writes the limit of the settings into OpenAPI."""
CategoryName = Annotated[str, Field(max_length=2000)]
"""A category of the shop, as `CategoryTree.find` takes it."""
CATEGORY = "category: its id, its `A > B` path, or its name if no other has it; upper and lower case are the same"


def given(model: type[BaseModel], fields: Any) -> Any:
    """The fields of an object without nulls: a field that is null counts as left out, whatever its name.

    Of unknown fields one is kept, because pydantic lists all of them in its error.
    """
    if not isinstance(fields, dict):
        return fields
    known = model.model_fields
    found = {name: value for name, value in fields.items() if value is not None}
    unknown = [name for name in found if name not in known]
    return {name: value for name, value in found.items() if name in known or name == unknown[0]} if unknown else found


def at_most(entries: int) -> BeforeValidator:
    """A limit for an object that is checked before its entries are."""

    def check(value: Any) -> Any:
        if isinstance(value, dict) and len(value) > entries:
            raise PydanticCustomError("too_long", "give at most {most} entries", {"most": entries})
        return value

    return BeforeValidator(check)


class Strict(BaseModel):
    """Base of requests: an unknown field or a wrong type is an error, and null counts as left out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _given(cls, fields: Any) -> Any:
        return given(cls, fields)

    @classmethod
    def place(cls, found: Place) -> Place:
        """pydantic's place of a fault -> the place in the request. Models with tagged unions leave out the tags."""
        return found


class TextItem(Strict):
    type: Literal["text"]
    text: LongText


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
    """A photo that is not decoded yet: its bytes, base64 of them, or a URL (`data:` too)."""

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


def is_url(source: str) -> bool:
    """Whether a photo's text is an address to fetch: neither a data URI nor base64, which have no `:` and no `.`."""
    return not is_data_uri(source) and not {":", "."}.isdisjoint(source[:4096])


def photo_bytes(source: str, place: str) -> bytes:
    """A data URI, or base64 alone, -> bytes. Raises ApiError 400."""
    try:
        return photo_text.photo_bytes(source)
    except ImageRejected as error:
        raise bad_request("invalid_image_url", str(error), place) from None
