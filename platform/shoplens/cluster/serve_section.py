"""Checks the `serve:` section of a cluster file: Ray Serve's schema ignores most unknown keys, this check does not."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def serve_faults(section: Mapping[str, Any]) -> Iterator[str]:
    """Yields one line for each mistake: `serve.PLACE: what is wrong`.

    Unknown keys are reported alone, with the nearest known key. Otherwise Ray Serve's schema checks the values.
    """
    from ray.serve.schema import ServeDeploySchema

    unknown = list(_unknown_keys(ServeDeploySchema, section, "serve"))
    yield from unknown
    if unknown or not section:
        return
    try:
        ServeDeploySchema.model_validate({"applications": [], **section})
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            place = ".".join(["serve", *(str(part) for part in fault["loc"])])
            yield f"{place}: {fault['msg'].removeprefix('Value error, ')}"


def _unknown_keys(model: type[BaseModel], section: Mapping[str, Any], place: str) -> Iterator[str]:
    for key, value in section.items():
        if key not in model.model_fields:
            yield f"{place}.{key}: unknown key{_nearest(str(key), model.model_fields)}"
            continue
        if key == "runtime_env" and isinstance(value, Mapping):
            yield from _unknown_runtime_env_keys(value, f"{place}.{key}")
        inner = _model_in(model.model_fields[key].annotation)
        if inner is None:
            continue
        for at, part in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(part, Mapping):
                where = f"{place}.{key}" if at is None else f"{place}.{key}.{part.get('name', at)}"
                yield from _unknown_keys(inner, part, where)


def _unknown_runtime_env_keys(section: Mapping[str, Any], place: str) -> Iterator[str]:
    from ray.runtime_env import RuntimeEnv

    for key in section:
        if key not in RuntimeEnv.known_fields:
            yield f"{place}.{key}: unknown key{_nearest(str(key), RuntimeEnv.known_fields)}"


def _nearest(key: str, known: Any) -> str:
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first pydantic model inside an annotation, such as Model in `Optional[List[Union[Dict, Model]]]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)
