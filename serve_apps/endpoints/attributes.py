"""`POST /v1/attributes`: what a photo and a title say of a product: colour, material, neckline, ..."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import APIRouter, Request
from scipy.special import softmax
from starlette.responses import Response

from serve_apps.endpoints.embeddings import form_limits, media_type, must_be_json
from serve_apps.http.errors import bad_request, not_found
from serve_apps.protocol import (
    AttributesAnswer,
    AttributesForm,
    AttributesRequest,
    Input,
    Keys,
    Text,
    answer,
    form_inputs,
    parse,
    parse_form,
)
from shoplens.errors import ShoplensError
from shoplens.evaluation.embedded import Modality, fuse
from shoplens.evaluation.heads.extractor import Extracted, Extractor

if TYPE_CHECKING:
    from serve_apps.gateway import Gateway, Served

ALTERNATIVES = 3
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/AttributesRequest"},
                "examples": {
                    "title": {"value": {"text": "red striped cotton dress"}},
                    "photo": {
                        "value": {
                            "model": "eclip",
                            "image": "data:image/jpeg;base64,...",
                            "text": "red striped cotton dress",
                            "category": "Clothing > Dresses",
                            "keys": {"colour": None, "mood": ["festive", "plain", "sporty"]},
                        }
                    },
                },
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "model": {"type": "string"},
                        "image": {"type": "string", "format": "binary"},
                        "text": {"type": "string"},
                        "category": {"type": "string"},
                        "keys": {"type": "string", "description": "JSON, as in the other kind of request"},
                    },
                }
            },
        },
    }
}


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/attributes", response_model=AttributesAnswer, openapi_extra=BODY)
    async def attributes(request: Request) -> Response:
        """The attributes of one product by photo, title or both, each with a probability.

        Heads trained with the model answer the keys of its shop. Their probabilities are calibrated; a value that
        is not sure enough comes with `answered: false`. With a category the probabilities are those of its
        products, and keys that none of them has are left out unless they are asked for by name; without one the
        category is guessed to choose the keys, and nothing else. A key of your own needs candidate values, which
        are compared as texts: `source: zero_shot`, always answered, not calibrated.
        """
        asked: AttributesRequest | AttributesForm
        if media_type(request) == "multipart/form-data":
            async with request.form(**form_limits(gateway.settings.limits)) as form:
                fields, inputs = await form_inputs(form, "text")
            asked = parse_form(AttributesForm, fields)
        else:
            must_be_json(request)
            question = await gateway.in_thread(parse, AttributesRequest, await request.body())
            asked, inputs = question, question.inputs
        modality = _modality(inputs)
        served = await gateway.served(asked.model)
        extractor = served.model.extractor
        category = None if asked.category is None else _category(_heads(served, "category"), asked.category)
        candidates = _candidates(served, asked.keys)
        prompts = _prompts(served, candidates)
        limit = gateway.settings.limits.inputs
        if len(inputs) + len(prompts) > limit:
            raise bad_request(
                "too_many_inputs", f"{len(prompts)} candidate values; too many for {limit} inputs", "keys"
            )
        vectors, _ = await gateway.embed(served, [*inputs, *prompts])
        vector = fuse(vectors[:1], vectors[1:2])[0] if modality == "fused" else vectors[0]
        if asked.keys is None and extractor is not None:
            candidates = dict.fromkeys(extractor.relevant(modality, vector, category))
        data = await gateway.in_thread(_extract, served, modality, vector, category, candidates, vectors[len(inputs) :])
        body = {
            "object": "attributes",
            "model": served.version,
            "modality": modality,
            "category": None if extractor is None else _told_category(extractor, modality, vector, category),
            "data": data,
        }
        return answer(body, served.version)

    return routes


Candidates = Mapping[str, Sequence[str] | None]
"""Key -> the values that come into question; None for all that its head knows."""


def _modality(inputs: Sequence[Input]) -> Modality:
    """Raises ApiError 400 unless there is one photo or product, one text, or one of each."""
    texts = sum(isinstance(item, Text) for item in inputs)
    if not inputs:
        raise bad_request("missing_field", "give image, product_id or text", "image")
    if texts > 1 or len(inputs) - texts > 1:
        raise bad_request("invalid_value", "give one product: a text, and either an image or a product_id", "image")
    if texts == len(inputs):
        return "text"
    return "fused" if texts else "image"


def _heads(served: Served, param: str) -> Extractor:
    """Raises ApiError 404 if the version has none."""
    if served.model.extractor is None:
        message = (
            f"{served.version} has no attribute heads: train a version on products with attributes, "
            'or give candidate values, as in "keys": {"colour": ["red", "blue"]}, and no category'
        )
        raise not_found("no_attribute_heads", message, param)
    return served.model.extractor


def _category(extractor: Extractor, named: str) -> str:
    """Its id. Raises ApiError 404."""
    try:
        return extractor.counts.tree.find(named).id
    except ShoplensError as error:
        raise not_found("category_not_found", str(error)[:300], "category") from None


def _candidates(served: Served, keys: Keys | None) -> Candidates:
    """Raises ApiError 404 for a key that has neither a head nor candidate values, 400 for one value given twice.

    Without `keys` it is empty: which heads to ask is seen from the vector.
    """
    if keys is None:
        _heads(served, "keys")
    found: Candidates = keys if isinstance(keys, dict) else dict.fromkeys(keys or ())
    for key, values in found.items():
        if values is not None:
            if len(set(values)) < len(values):
                raise bad_request("invalid_value", "a value is given twice", f"keys.{key[:80]}")
        elif not _heads(served, "keys").knows(key):
            near = difflib.get_close_matches(key, _heads(served, "keys").keys, n=3, cutoff=0.5)
            advice = f"; did you mean {' or '.join(near)}?" if near else "; give candidate values for it"
            raise not_found("attribute_not_found", f"{served.version} has no head for {key[:80]!r}{advice}", "keys")
    return found


def _zero_shot(served: Served, key: str, values: Sequence[str] | None) -> bool:
    extractor = served.model.extractor
    return values is not None and (extractor is None or not extractor.knows(key, values))


def _prompts(served: Served, candidates: Candidates) -> list[Text]:
    """Texts of the candidate values that no head knows, key by key."""
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
    """Entries of `data`. `prompts` are the vectors of `_prompts` [n, d]."""
    data, first = [], 0
    for key, values in candidates.items():
        if _zero_shot(served, key, values):
            assert values is not None
            texts, first = prompts[first : first + len(values)], first + len(values)
            data.append(_told(_nearest(key, values, texts @ vector * served.model.logit_scale), "zero_shot"))
        else:
            assert served.model.extractor is not None
            data.append(
                _told(served.model.extractor.extract(modality, vector, key, category=category, among=values), "head")
            )
    return data


def _nearest(key: str, values: Sequence[str], logits: np.ndarray) -> Extracted:
    best = np.argsort(-logits, kind="stable")
    return Extracted(key, tuple(values[place] for place in best), softmax(logits.astype(np.float64))[best], True)


def _told(found: Extracted, source: str) -> dict[str, Any]:
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


def _told_category(
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
