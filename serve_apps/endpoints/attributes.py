"""`POST /v1/attributes`: colour, material, neckline, ... of a product, read from its photo and title."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Discriminator, Field, Json, Tag
from scipy.special import softmax
from starlette.responses import Response

from serve_apps.gateway import Gateway, Needs, Served
from serve_apps.http.answers import answer
from serve_apps.http.errors import Place, bad_request, not_found
from serve_apps.http.inputs import (
    CATEGORY,
    FORM_IMAGE,
    IMAGE,
    AttributeText,
    CategoryName,
    Input,
    LongText,
    Photo,
    ProductId,
    ProductRef,
    Strict,
    Text,
    at_most,
)
from serve_apps.http.parsing import Body, form_inputs, form_limits, is_form, must_be_json, parse, parse_form
from serve_apps.references import AskedModel
from serve_apps.vectors import embed
from shoplens.errors import ShoplensError, did_you_mean
from shoplens.evaluation.embedded import Modality, fuse
from shoplens.evaluation.heads.extractor import Extracted, Extractor
from shoplens.packages.capabilities import EMBED_IMAGE, EMBED_TEXT, EXTRACT_ATTRIBUTES

ALTERNATIVES = 3
MAX_KEYS = 200


def _keys_kind(value: Any) -> str | None:
    return "list" if isinstance(value, list) else "mapping" if isinstance(value, dict) else None


Keys = Annotated[
    Annotated[list[AttributeText], Field(min_length=1, max_length=MAX_KEYS, fail_fast=True), Tag("list")]
    | Annotated[
        dict[AttributeText, Annotated[list[AttributeText], Field(min_length=2, fail_fast=True)] | None],
        Field(min_length=1, max_length=MAX_KEYS),
        at_most(MAX_KEYS),
        Tag("mapping"),
    ],
    Discriminator(
        _keys_kind,
        custom_error_type="unknown_keys",
        custom_error_message="give a list of keys, or an object of candidate values by key",
    ),
]


def _without_tag(found: Place) -> Place:
    """`("keys", "mapping", "colour", ...)` -> `("keys", "colour", ...)`."""
    return ("keys", *found[2:]) if found[:1] == ("keys",) else found


class AttributesRequest(Strict):
    """One product: its `text`, and its `image` or the photos of `product_id`; one of them or both."""

    model: AskedModel | None = None
    image: str | None = Field(None, description=IMAGE)
    product_id: ProductId | None = Field(None, description="a product of the index: its photos")
    text: LongText | None = Field(None, description="the product's title")
    category: CategoryName | None = Field(None, description=f"hint, a {CATEGORY}")
    keys: Keys | None = Field(
        None,
        description="the attributes to extract; default: all that products of the category have. An object gives "
        "candidate values by key; null means the values that the head of the key knows. A head that knows all "
        "candidates chooses among them, with probabilities given that one of them is right. Otherwise the nearest "
        "text is chosen (zero-shot)",
    )

    @classmethod
    def place(cls, found: Place) -> Place:
        return _without_tag(found)

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


class AttributesForm(Strict):
    """The plain fields of a multipart request; `keys` is JSON."""

    model: AskedModel | None = None
    category: CategoryName | None = None
    keys: Json[Keys] | None = None

    @classmethod
    def place(cls, found: Place) -> Place:
        return _without_tag(found)


class AttributeValue(BaseModel):
    value: str
    probability: float


class Attribute(AttributeValue):
    """The likeliest value of one key. A value that is not `answered` is too unsure to be used."""

    key: str
    answered: bool
    calibrated: bool = Field(description="whether the probability was calibrated on products of the shop")
    source: Literal["head", "zero_shot"]
    alternatives: list[AttributeValue] = Field(description="the next likely values, at most 3")


class AttributesCategory(BaseModel):
    """The category that the answer is based on: the hint of the request, or the likeliest one."""

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


BODY = Body(
    AttributesRequest,
    {
        "title": {"text": "red striped cotton dress"},
        "photo": {
            "model": "eclip",
            "image": "data:image/jpeg;base64,...",
            "text": "red striped cotton dress",
            "category": "Clothing > Dresses",
            "keys": {"colour": None, "mood": ["festive", "plain", "sporty"]},
        },
    },
    form={
        "properties": {
            "model": {"type": "string"},
            "image": {"type": "string", "format": "binary", "description": FORM_IMAGE},
            "text": {"type": "string"},
            "category": {"type": "string"},
            "keys": {"type": "string", "description": "JSON, as in the other kind of request"},
        }
    },
)


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["attributes"])

    @routes.post("/v1/attributes", response_model=AttributesAnswer, openapi_extra=BODY)
    async def attributes(request: Request) -> Response:
        """The attributes of one product by photo, title or both, each with a probability.

        Heads trained with the model answer the keys of its shop. Their probabilities are calibrated. A value that
        is not sure enough comes with `answered: false`. With a category, the probabilities are those of its
        products, and keys that none of them has are left out unless the request names them. Without one, the
        category is guessed, only to choose the keys. A key of your own needs candidate values, which are compared
        as texts: `source: zero_shot`, always answered, not calibrated.
        """
        asked: AttributesRequest | AttributesForm
        inputs: Sequence[Input]
        if is_form(request):
            async with request.form(**form_limits(gateway.settings.limits)) as form:
                fields, inputs = await form_inputs(form, "text")
            asked = parse_form(AttributesForm, fields)
        else:
            must_be_json(request)
            question = await gateway.in_thread(parse, AttributesRequest, await request.body())
            asked, inputs = question, question.inputs
        modality = _modality(inputs)
        served = await gateway.served(asked.model, _needs(inputs, asked.keys, asked.category))
        extractor = served.model.extractor
        category = None
        if asked.category is not None:
            category = await gateway.in_thread(_category, _heads(served, "category"), asked.category)
        candidates = _candidates(served, asked.keys)
        prompts = _prompts(served, candidates)
        limit = gateway.settings.limits.inputs
        if len(inputs) + len(prompts) > limit:
            raise bad_request(
                "too_many_inputs", f"{len(prompts)} candidate values; too many for {limit} inputs", "keys"
            )
        vectors, _ = await embed(gateway, served, [*inputs, *prompts])
        vector = fuse(vectors[:1], vectors[1:2])[0] if modality == "fused" else vectors[0]
        if asked.keys is None and extractor is not None:
            candidates = dict.fromkeys(extractor.relevant(modality, vector, category))
        data = await gateway.in_thread(_extract, served, modality, vector, category, candidates, vectors[len(inputs) :])
        body = {
            "object": "attributes",
            "model": served.version,
            "modality": modality,
            "category": None if extractor is None else _category_entry(extractor, modality, vector, category),
            "data": data,
        }
        return answer(body, served.version)

    return routes


Candidates = Mapping[str, Sequence[str] | None]
"""Key -> its candidate values; None for all values that its head knows."""


def _needs(inputs: Sequence[Input], keys: Keys | None, category: str | None) -> Needs:
    """Heads unless each key has candidate values, and an encoder for each input."""
    zero_shot = isinstance(keys, dict) and category is None and None not in keys.values()
    needed = {EMBED_TEXT if zero_shot else EXTRACT_ATTRIBUTES}
    needed |= {EMBED_TEXT for item in inputs if isinstance(item, Text)}
    needed |= {EMBED_IMAGE for item in inputs if isinstance(item, Photo)}
    return Needs(tuple(needed))


def _modality(inputs: Sequence[Input]) -> Modality:
    """The modality of the vector. Raises ApiError 400 unless there is one photo or product, one text, or both."""
    texts = sum(isinstance(item, Text) for item in inputs)
    if not inputs:
        raise bad_request("missing_field", "give image, product_id or text", "image")
    if texts > 1 or len(inputs) - texts > 1:
        raise bad_request("invalid_value", "give one product: a text, and either an image or a product_id", "image")
    if texts == len(inputs):
        return "text"
    return "fused" if texts else "image"


def _heads(served: Served, param: str) -> Extractor:
    """The version's attribute heads. Raises ApiError 404 if it has none."""
    if served.model.extractor is None:
        message = (
            f"{served.version} has no attribute heads: train a version on products with attributes, "
            'or give candidate values, as in "keys": {"colour": ["red", "blue"]}, and no category'
        )
        raise not_found("no_attribute_heads", message, param)
    return served.model.extractor


def _category(extractor: Extractor, named: str) -> str:
    """The id of the category. Raises ApiError 404."""
    try:
        return extractor.counts.tree.find(named).id
    except ShoplensError as error:
        raise not_found("category_not_found", str(error)[:300], "category") from None


def _candidates(served: Served, keys: Keys | None) -> Candidates:
    """The candidates of the keys in the request; empty without keys, because the vector then chooses the heads.

    Raises ApiError 404 for a key with neither a head nor candidate values, 400 for a value given twice.
    """
    if keys is None:
        _heads(served, "keys")
    found: Candidates = keys if isinstance(keys, dict) else dict.fromkeys(keys or ())
    for key, values in found.items():
        if values is not None:
            if len(set(values)) < len(values):
                raise bad_request("invalid_value", "a value is given twice", f"keys.{key[:80]}")
        elif not _heads(served, "keys").knows(key):
            advice = did_you_mean(key, _heads(served, "keys").keys) or "; give candidate values for it"
            raise not_found("attribute_not_found", f"{served.version} has no head for {key[:80]!r}{advice}", "keys")
    return found


def _zero_shot(served: Served, key: str, values: Sequence[str] | None) -> bool:
    extractor = served.model.extractor
    return values is not None and (extractor is None or not extractor.knows(key, values))


def _prompts(served: Served, candidates: Candidates) -> list[Text]:
    """Texts of the candidate values of keys whose head does not know them all, key by key."""
    prompt = served.model.attribute_prompt
    return [
        Text(f"keys.{key[:80]}[{place}]", prompt.format(key=key, value=value))
        for key, values in candidates.items()
        if _zero_shot(served, key, values)
        for place, value in enumerate(values or ())
    ]


def _extract(
    served: Served,
    modality: Modality,
    vector: np.ndarray,
    category: str | None,
    candidates: Candidates,
    prompts: np.ndarray,
) -> list[dict[str, Any]]:
    """Entries of `data`. `prompts` float32 [n, d] are the vectors of `_prompts`."""
    data, first = [], 0
    for key, values in candidates.items():
        if _zero_shot(served, key, values):
            assert values is not None
            texts, first = prompts[first : first + len(values)], first + len(values)
            data.append(_entry(_nearest(key, values, texts @ vector * served.model.cosine_scale), "zero_shot"))
        else:
            assert served.model.extractor is not None
            data.append(
                _entry(served.model.extractor.extract(modality, vector, key, category=category, among=values), "head")
            )
    return data


def _nearest(key: str, values: Sequence[str], logits: np.ndarray) -> Extracted:
    best = np.argsort(-logits, kind="stable")
    return Extracted(key, tuple(values[place] for place in best), softmax(logits.astype(np.float64))[best], True)


def _entry(found: Extracted, source: str) -> dict[str, Any]:
    likeliest = [
        {"value": value, "probability": float(probability)}
        for value, probability in zip(found.values, found.probabilities[: ALTERNATIVES + 1], strict=False)
    ]
    return {
        "key": found.key,
        **likeliest[0],
        "answered": found.answered,
        "calibrated": source == "head",
        "source": source,
        "alternatives": likeliest[1:],
    }


def _category_entry(
    extractor: Extractor, modality: Modality, vector: np.ndarray, category: str | None
) -> dict[str, Any] | None:
    guess = extractor.guess_category(modality, vector) if category is None else (category, None)
    if guess is None:
        return None
    return {
        "id": guess[0],
        "path": list(extractor.counts.tree[guess[0]].path),
        "source": "head" if category is None else "request",
        "probability": guess[1],
    }
