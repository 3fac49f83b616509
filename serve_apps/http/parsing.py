"""Strict parsing of request bodies, JSON and multipart.

FastAPI's own request models would parse in the event loop, and their errors repeat the input. These functions run in a
thread, stop at the first fault, and name its place only.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import FormData, UploadFile

from serve_apps.http.errors import ApiError, bad_request, invalid
from serve_apps.http.inputs import Photo, Strict, Text
from serve_apps.settings import Limits

R = TypeVar("R", bound=Strict)

MAX_VALUES = 2**21
"""Most values in a JSON body. Three bytes such as `[],` become 64 in memory."""


class Body(dict[str, Any]):
    """OpenAPI description of a request body that a route parses itself: the `openapi_extra` of the route.

    `model` is the JSON request; `api.build` adds its schema to the components.
    """

    def __init__(
        self, model: type[BaseModel], examples: Mapping[str, Any], form: Mapping[str, Any] | None = None
    ) -> None:
        """`examples` are JSON requests by name, `form` the schema of the multipart request, if the route takes one."""
        content: dict[str, Any] = {
            "application/json": {
                "schema": {"$ref": f"#/components/schemas/{model.__name__}"},
                "examples": {name: {"value": value} for name, value in examples.items()},
            }
        }
        if form is not None:
            content["multipart/form-data"] = {"schema": {"type": "object", **form}}
        super().__init__(requestBody={"required": True, "content": content})
        self.model = model


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def is_form(request: Request) -> bool:
    return media_type(request) == "multipart/form-data"


def must_be_json(request: Request) -> None:
    """Raises ApiError 415."""
    if media_type(request) != "application/json":
        raise ApiError(415, "unsupported_media_type", "send JSON with the header Content-Type: application/json")


def parse(model: type[R], body: bytes) -> R:
    """JSON text -> request. Raises ApiError 400: not UTF-8, not JSON, too many values, nested too deeply, wrong fields."""
    encoding = json.detect_encoding(body)
    if not encoding.startswith("utf-8"):
        raise bad_request("invalid_json", f"the body is {encoding[:6].upper()}: send JSON as UTF-8")
    if _most_values(body) > MAX_VALUES:
        raise bad_request("too_many_values", f"the body has more than {MAX_VALUES} values; send less at a time")
    try:
        tree = from_json(body.removeprefix(codecs.BOM_UTF8))
    except ValueError as error:
        what = "JSON" if _is_utf8(body) else "UTF-8"
        raise bad_request("invalid_json", f"the body is not {what}: {error}"[:300]) from None
    try:
        return model.model_validate(tree, strict=True)
    except ValidationError as error:
        raise invalid(error, model.place) from None


def _most_values(body: bytes) -> int:
    """A bound of the number of values in a JSON text, at the speed of memory: a value follows one of these characters."""
    if len(body) <= MAX_VALUES:
        return 0
    characters = np.frombuffer(body, np.uint8)
    return 1 + sum(int(np.count_nonzero(characters == ord(begin))) for begin in ",[{")


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def parse_form(model: type[R], fields: Mapping[str, str]) -> R:
    """Plain fields of a multipart request -> their model. Raises ApiError 400."""
    try:
        return model.model_validate(dict(fields))
    except ValidationError as error:
        raise invalid(error, model.place) from None


def form_limits(limits: Limits) -> dict[str, int]:
    """Arguments of `Request.form`."""
    parts = limits.inputs + 10
    return {"max_files": parts, "max_fields": parts, "max_part_size": limits.body_bytes}


async def form_inputs(form: FormData, text: str | None = "input") -> tuple[Mapping[str, str], Sequence[Text | Photo]]:
    """Plain fields and inputs of a multipart request, in the order sent. Raises ApiError 400.

    `text` names the field that holds texts, if there is one. It and `image` (a file, or text as in JSON) may be repeated.
    """
    fields: dict[str, str] = {}
    inputs: list[Text | Photo] = []
    for name, value in form.multi_items():
        place = f"{name}[{len(inputs)}]"
        if name == "image":
            inputs.append(Photo(place, await _photo(value, place)))
        elif not isinstance(value, str):
            raise bad_request("invalid_value", f"{name[:40]} is text, not a file; files go into `image`", place)
        elif name == text:
            inputs.append(Text(place, value))
        elif name in fields:
            raise bad_request("invalid_value", f"{name[:40]} is given twice", name[:40])
        else:
            fields[name] = value
    if not inputs:
        if text is None:
            raise bad_request("missing_field", "give an `image` (file)", "image")
        raise bad_request("missing_field", f"give at least one `{text}` (text) or `image` (file)", text)
    return fields, inputs


async def _photo(value: UploadFile | str, place: str) -> bytes | str:
    """The source of a photo. Raises ApiError 400."""
    if isinstance(value, UploadFile):
        data = await value.read()
        return (
            data.decode("latin-1") if value.headers.get("content-transfer-encoding", "").lower() == "base64" else data
        )
    if not value.isascii():
        raise bad_request("invalid_value", "send the image as a file (with a filename), or as text in base64", place)
    return value
