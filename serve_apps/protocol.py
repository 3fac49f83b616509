"""Requests and answers of the HTTP API, parsed strictly: a misspelt field or a wrong type is an error."""

from __future__ import annotations

import base64
import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Json, Tag, ValidationError, model_validator
from pydantic_core import to_json
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response

from serve_apps.http.errors import Place, bad_request, invalid
from shoplens.schema import Identifier, TopicText
from shoplens.search.rings import Widening
from shoplens.search.rules import NAMES, Rules, SameProduct

MAX_K = 1000
MAX_PAGE = 1000
MAX_KEYS = 200
MAX_ATTRIBUTES = 20
MODEL_HEADER = "X-Model-Version"

ModelRef = Annotated[str, Field(pattern=r"^[\w.-]{1,100}(@[\w-]{1,100}|/[1-9][0-9]{0,8})?$", examples=["eclip"])]
ProductId = Annotated[str, Field(min_length=1, max_length=256)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
AttributeText = Annotated[str, Field(min_length=1, max_length=200)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextItem(Strict):
    type: Literal["text"]
    text: str


class ImageUrl(Strict):
    url: str = Field(description="data:image/...;base64,... or, from allowed hosts, http(s)://...")


class ImageItem(Strict):
    type: Literal["image_url"]
    image_url: ImageUrl


class ProductItem(Strict):
    type: Literal["product"]
    product_id: ProductId


def _item_kind(item: Any) -> str | None:
    kind = item.get("type") if isinstance(item, dict) else "string" if isinstance(item, str) else None
    return kind if isinstance(kind, str) else None


def _input_kind(value: Any) -> str | None:
    return "string" if isinstance(value, str) else "list" if isinstance(value, list) else None


Item = Annotated[
    Annotated[str, Tag("string")]
    | Annotated[TextItem, Tag("text")]
    | Annotated[ImageItem, Tag("image_url")]
    | Annotated[ProductItem, Tag("product")],
    Discriminator(
        _item_kind,
        custom_error_type="unknown_item",
        custom_error_message='an item is a string or an object of "type" text, image_url or product',
    ),
]


class EmbeddingRequest(Strict):
    model: ModelRef
    input: Annotated[
        Annotated[str, Tag("string")] | Annotated[list[Item], Field(min_length=1), Tag("list")],
        Discriminator(
            _input_kind,
            custom_error_type="unknown_input",
            custom_error_message="give a string, or a list of strings and typed items",
        ),
    ]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, description="if given, must be the model's own")
    user: str | None = Field(None, description="accepted for OpenAI clients, not used")

    @property
    def inputs(self) -> list[Input]:
        items = [self.input] if isinstance(self.input, str) else self.input
        places = ["input"] if isinstance(self.input, str) else [f"input[{i}]" for i in range(len(items))]
        return [_input(item, place) for item, place in zip(items, places, strict=True)]


class PriceRange(Strict):
    min: Price | None = None
    max: Price | None = None

    @model_validator(mode="after")
    def _ordered(self) -> PriceRange:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is greater than max")
        return self


class SimilarRequest(Strict):
    """Exactly one of `product_id`, `text` and `image` is the query; the rest says what may be shown.

    Beside a product the search goes through its own category first and widens ring by ring until `k` may be shown;
    with `category` that subtree is the only ring. For a text or a photo without one the whole shop is.
    """

    product_id: ProductId | None = Field(None, description="a product of the index; it is never in its own answer")
    text: str | None = Field(None, description="words, for a model that reads texts")
    image: str | None = Field(None, description="data:image/...;base64,... or, from allowed hosts, http(s)://...")
    k: int = Field(10, ge=1, le=MAX_K, description="most products that are answered")
    category: str | None = Field(None, max_length=256, description="category id; the whole subtree is searched")
    price: PriceRange | None = Field(None, description="inclusive; with a bound, products without a price are left out")
    attributes: dict[AttributeText, AttributeText] = Field(
        {}, max_length=MAX_ATTRIBUTES, description="the value that a product must have, among others, of each of these"
    )
    in_stock: bool = Field(True, description="leave out products whose stock is known and zero")
    exclude_catalog: bool = Field(False, description="leave out other listings of the query product")
    cheapest: bool | None = Field(
        None,
        description="of the listings of a product that may be shown, show the cheapest only, whatever its category; "
        "null: beside a product, not for a text or a photo, which may show a dearer one",
    )
    photo_cap: int | None = Field(
        None, ge=1, description="most products that share a photo though they are different; null: all"
    )
    widening: Widening = Widening()
    model: ModelRef | None = Field(None, description="a name (its champion), name@alias or name/version")
    user: Identifier | None = Field(None, description="who is asking; while an experiment runs, it decides the model")

    @model_validator(mode="after")
    def _one_query(self) -> SimilarRequest:
        if sum(query is not None for query in (self.product_id, self.text, self.image)) != 1:
            raise ValueError("give exactly one of product_id, text and image")
        return self

    def rules(self, same_product: SameProduct = SameProduct()) -> Rules:
        """Those of the shop, as the request has them."""
        price = self.price or PriceRange()
        return Rules(
            identifiers=same_product.identifiers,
            variants=same_product.variants,
            in_stock=self.in_stock,
            price_min=price.min,
            price_max=price.max,
            attributes=self.attributes,
            seed_catalog=not self.exclude_catalog,
            cheapest=self.product_id is not None if self.cheapest is None else self.cheapest,
            component_cap=self.photo_cap,
        )


Candidate = Annotated[
    Annotated[str, Tag("string")] | Annotated[ImageItem, Tag("image_url")] | Annotated[ProductItem, Tag("product")],
    Discriminator(
        _item_kind,
        custom_error_type="unknown_candidate",
        custom_error_message='a candidate is a URL (data:image/... too) or an object of "type" image_url or product',
    ),
]
TopicField = Annotated[str, Field(max_length=2000)]


class TopicFields(Strict):
    """What is said of a shopping exhibition; anything may be left out, though not everything."""

    name: TopicField = ""
    desc: TopicField = ""
    date: str | None = Field(None, description="YYYY-MM-DD, the day it opens; today if it is left out")
    cat1: TopicField = ""
    cat2: TopicField = ""
    cat3: TopicField = ""
    cat4: TopicField = ""
    kwds: list[TopicField] = Field([], max_length=100)

    @model_validator(mode="after")
    def _says_something(self) -> TopicFields:
        if not "".join((self.name, self.desc, self.cat1, self.cat2, self.cat3, self.cat4, *self.kwds)).strip():
            raise ValueError("say something of the topic: its name, desc, cat1 to cat4 or kwds")
        if self.date is not None:
            try:
                datetime.date.fromisoformat(self.date)
            except ValueError:
                raise ValueError(f"date {self.date[:40]!r} is no date: write YYYY-MM-DD") from None
        return self

    @property
    def text(self) -> TopicText:
        return TopicText(**self.model_dump())


class RankRequest(Strict):
    """Rank `images` for `topic`, best first."""

    model: ModelRef | None = None
    topic: TopicFields
    images: list[Candidate] = Field(min_length=1)
    top_n: int | None = Field(None, ge=1, description="how many to answer with; all by default")
    return_images: bool = Field(False, description="repeat each image in its result")

    @property
    def inputs(self) -> list[Photo | ProductRef]:
        found: list[Photo | ProductRef] = []
        for i, item in enumerate(self.images):
            match item:
                case str():
                    found.append(Photo(f"images[{i}]", item))
                case ImageItem():
                    found.append(Photo(f"images[{i}]", item.image_url.url))
                case ProductItem():
                    found.append(ProductRef(f"images[{i}]", item.product_id))
        return found


def _keys_kind(value: Any) -> str | None:
    return "list" if isinstance(value, list) else "mapping" if isinstance(value, dict) else None


Keys = Annotated[
    Annotated[list[AttributeText], Field(min_length=1, max_length=MAX_KEYS), Tag("list")]
    | Annotated[
        dict[AttributeText, Annotated[list[AttributeText], Field(min_length=2)] | None],
        Field(min_length=1, max_length=MAX_KEYS),
        Tag("mapping"),
    ],
    Discriminator(
        _keys_kind,
        custom_error_type="unknown_keys",
        custom_error_message="give a list of keys, or an object of candidate values by key",
    ),
]


class AttributesRequest(Strict):
    """What is asked about: `text`, and `image` or the photos of `product_id`; either alone or both together."""

    model: ModelRef | None = None
    image: str | None = Field(None, description="data:image/...;base64,... or, from allowed hosts, http(s)://...")
    product_id: ProductId | None = Field(None, description="a product of the index: its photos")
    text: str | None = Field(None, description="the product's title")
    category: str | None = Field(None, max_length=2000, description="hint: category id, name or `A > B` path")
    keys: Keys | None = Field(
        None,
        description="which attributes; by default all that products of the category have. An object gives candidate "
        "values by key, null for those of the head. Where the head of a key knows all candidates it chooses among "
        "them, with probabilities given that one of them is right; otherwise the nearest text does (zero-shot)",
    )

    @property
    def inputs(self) -> list[Input]:
        found: list[Input] = []
        if self.image is not None:
            found.append(Photo("image", self.image))
        if self.product_id is not None:
            found.append(ProductRef("product_id", self.product_id))
        if self.text is not None:
            found.append(Text("text", self.text))
        return found


@dataclass(frozen=True)
class Text:
    place: str
    text: str


@dataclass(frozen=True)
class Photo:
    """A photo to be decoded: its bytes, or the URL (`data:` too) that they come from."""

    place: str
    source: bytes | str


@dataclass(frozen=True)
class ProductRef:
    place: str
    product_id: str


Input = Text | Photo | ProductRef


def _input(item: str | TextItem | ImageItem | ProductItem, place: str) -> Input:
    match item:
        case str():
            return Text(place, item)
        case TextItem():
            return Text(place, item.text)
        case ImageItem():
            return Photo(place, item.image_url.url)
        case ProductItem():
            return ProductRef(place, item.product_id)


R = TypeVar("R", bound=Strict)


def parse(model: type[R], body: bytes) -> R:
    """JSON text -> request. Raises ApiError 400: not UTF-8, not JSON, nested too deeply, wrong fields."""
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise invalid(error, _without_tags) from None


def _without_tags(place: Place) -> Place:
    """`("input", "list", 3, "image_url", "image_url", "url")` -> `("input", 3, "image_url", "url")`."""
    item = place[2:]
    if place[:1] == ("input",):
        return ("input", *item[:1], *item[2:])
    if place[:1] == ("images",):
        return (*place[:2], *place[3:])
    return ("keys", *item) if place[:1] == ("keys",) else place


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


async def form_inputs(form: FormData, text: str = "input") -> tuple[Mapping[str, str], list[Input]]:
    """Fields and inputs of a multipart request, in the order sent. Raises ApiError 400.

    `text` names the field that holds texts; it and `image` (file) may be repeated; other fields are plain strings.
    """
    fields: dict[str, str] = {}
    inputs: list[Input] = []
    for name, value in form.multi_items():
        place = f"{name}[{len(inputs)}]"
        if name == "image":
            if not isinstance(value, UploadFile):
                raise bad_request("invalid_value", "send the image as a file (with a filename)", place)
            inputs.append(Photo(place, await value.read()))
        elif not isinstance(value, str):
            raise bad_request("invalid_value", f"{name[:40]} is text, not a file; files go into `image`", place)
        elif name == text:
            inputs.append(Text(place, value))
        elif name in fields:
            raise bad_request("invalid_value", f"{name[:40]} is given twice", name[:40])
        else:
            fields[name] = value
    if not inputs:
        raise bad_request("missing_field", f"give at least one `{text}` (text) or `image` (file)", text)
    return fields, inputs


class EmbeddingForm(Strict):
    """The plain fields of a multipart request."""

    model: ModelRef
    encoding_format: Literal["float", "base64"] = "float"


class AttributesForm(Strict):
    """The plain fields of a multipart request; `keys` is JSON."""

    model: ModelRef | None = None
    category: str | None = Field(None, max_length=2000)
    keys: Json[Keys] | None = None


def parse_form(model: type[R], fields: Mapping[str, str]) -> R:
    """Raises ApiError 400."""
    try:
        return model.model_validate(dict(fields))
    except ValidationError as error:
        raise invalid(error, _without_tags) from None


class Embedding(BaseModel):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="floats, or base64 of little-endian float32")


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingAnswer(BaseModel):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str = Field(examples=["eclip/3"])
    usage: Usage


class ProductSummary(BaseModel):
    product_id: str
    catalog_id: str | None
    title: str
    category_id: str | None
    category_path: list[str]
    price: float | None
    currency: str | None
    stock: int | None = Field(description="pieces; null: unknown")
    seller: str | None
    image: str = Field(examples=["/v1/images/IMAGE_ID"])


class SimilarProduct(ProductSummary):
    score: float = Field(description="cosine similarity to the query, of the product's best photo")
    ring: int = Field(description="0: found in the first category searched, 1: in the one searched next, ...")
    rules: list[Literal[NAMES]] = Field(  # type: ignore[valid-type]
        description="in_stock: its stock is known and not zero; price, attributes: they are those asked for; cheapest: "
        "dearer listings of the product were left out; shared_photo: another result shares a photo with it; capped: "
        "more would have, but for `photo_cap`"
    )


class ProductDetail(ProductSummary):
    description: str
    attributes: dict[str, list[str]]
    review_count: int | None
    images: list[str]
    model: str


class InArm(BaseModel):
    """The experiment that an answer is part of, and its user's arm."""

    name: str
    arm: str


class SimilarAnswer(BaseModel):
    object: Literal["list"] = "list"
    model: str = Field(examples=["similar/2"])
    dataset: str = Field(description="whose products these are", examples=["shop@0123456789ab"])
    snapshot: str = Field(
        description="what was searched: the model version, and its index with the deltas it had then",
        examples=["similar/2@0123456789abcdef+3.01234567"],
    )
    request_id: str = Field(description="names this answer in the events that are logged of it")
    experiment: InArm | None = Field(description="null: the answer is part of none, and counts for no arm")
    data: list[SimilarProduct] = Field(
        description="best first: by ring, as far as `widening.margin` lets it, then score"
    )


class AttributeValue(BaseModel):
    value: str
    probability: float


class Attribute(AttributeValue):
    """The likeliest value of one key. One that is not `answered` is too unsure to be used."""

    key: str
    answered: bool
    calibrated: bool = Field(description="whether the probability was calibrated on products of the shop")
    source: Literal["head", "zero_shot"]
    alternatives: list[AttributeValue] = Field(description="the next likely values, at most 3")


class AttributesCategory(BaseModel):
    """The category that the answer goes by: the hint of the request, or the likeliest one."""

    id: str
    path: list[str]
    source: Literal["request", "head"]
    probability: float | None


class AttributesAnswer(BaseModel):
    object: Literal["attributes"] = "attributes"
    model: str = Field(examples=["eclip/3"])
    modality: Literal["image", "text", "fused"]
    category: AttributesCategory | None
    data: list[Attribute]


class RankResult(BaseModel):
    """One image; `relevance_score` is `fit`, what the topic itself says for it, and `attraction`, the rest."""

    index: int = Field(description="its place in the request")
    relevance_score: float = Field(description="-1 to 1")
    fit: float
    attraction: float
    image: Any = Field(None, description="as it was sent, if that was asked for")


class RankFailure(BaseModel):
    """An image that could not be ranked."""

    index: int
    code: str
    message: str


class RankAnswer(BaseModel):
    object: Literal["list"] = "list"
    model: str = Field(examples=["clik/3"])
    results: list[RankResult] = Field(description="best first")
    failed: list[RankFailure]


class ProductsAnswer(BaseModel):
    object: Literal["list"] = "list"
    model: str
    dataset: str
    total: int
    data: list[ProductSummary]


class CategoryRow(BaseModel):
    id: str
    parent_id: str | None
    level: int
    name: str
    path: list[str]
    n_products: int = Field(description="products of the whole subtree")


class CategoriesAnswer(BaseModel):
    object: Literal["list"] = "list"
    model: str
    dataset: str
    data: list[CategoryRow]


class ModelRow(BaseModel):
    id: str = Field(examples=["eclip/3"])
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "shoplens"
    aliases: list[str]
    active: bool


class ModelsAnswer(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelRow]


class Health(BaseModel):
    status: Literal["ok", "waiting"] = Field(description="waiting: nothing is promoted yet")
    model: str | None
    models: dict[str, str | None]
    ranker: str | None = Field(description="what /v1/rank answers with if no model is named")


def answer(body: Mapping[str, Any], model: str | None) -> Response:
    """JSON body with the header that names the version that made it."""
    headers = {} if model is None else {MODEL_HEADER: model}
    return Response(to_json(body), media_type="application/json", headers=headers)


def embedding_answer(vectors: np.ndarray, encoding_format: str, model: str, tokens: int) -> Response:
    """`vectors` float32 [n, d]."""
    if encoding_format == "base64":
        rows: Sequence[Any] = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    else:
        rows = vectors.tolist()
    data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return answer({"object": "list", "data": data, "model": model, "usage": usage}, model)
