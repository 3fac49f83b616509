"""The HTTP API from the OpenAPI schema of the application: one page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

from generate.tables import Schema, code, table, type_of
from serve_apps.api import build
from serve_apps.gateway import Gateway
from serve_apps.settings import Settings


def pages() -> list[tuple[str, str, str]]:
    return [("HTTP API", "http", "\n".join(_page(openapi())))]


def openapi() -> dict[str, Any]:
    """The schema of the application as `/openapi.json` answers it; routes read only the settings of the Gateway."""
    return build(cast(Gateway, SimpleNamespace(settings=Settings()))).openapi()


def _page(schema: dict[str, Any]) -> Iterator[str]:
    yield f"# HTTP API\n\n{schema['info']['description']}\n"
    yield "A running service has the same pages, to try calls on, at `/docs`, and the schema at `/openapi.json`.\n"
    models = schema["components"]["schemas"]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            yield from _operation(f"{method.upper()} {path}", operation, models)
    yield "## Requests and answers {: #schemas }\n"
    for name, model in models.items():
        yield from _model(name, model, models)


def _operation(title: str, operation: Schema, models: Schema) -> Iterator[str]:
    yield f"## `{title}`\n\n{operation.get('description', operation['summary'])}\n"
    yield table(
        ("parameter", "in", "type", "default", "description"),
        [
            (
                f"`{parameter['name']}`",
                parameter["in"],
                type_of(parameter["schema"], models, _link),
                _default(parameter["schema"], parameter.get("required", False)),
                parameter.get("description", ""),
            )
            for parameter in operation.get("parameters", ())
        ],
    )
    for media, body in operation.get("requestBody", {}).get("content", {}).items():
        yield f"Body `{media}`: {type_of(body.get('schema', {}), models, _link)}\n"
        for example in _examples(body):
            yield f"```json\n{json.dumps(example, ensure_ascii=False, indent=2)}\n```\n"
        if "$ref" not in body.get("schema", {}):
            yield _fields(body.get("schema", {}), models)
    yield table(
        ("status", "body", "meaning"),
        [
            (
                status,
                " or ".join(
                    f"`{media}` {type_of(body.get('schema', {}), models, _link)}"
                    for media, body in answer.get("content", {}).items()
                ),
                answer.get("description", ""),
            )
            for status, answer in operation["responses"].items()
        ],
    )


def _model(name: str, model: Schema, models: Schema) -> Iterator[str]:
    yield f"### {name} {{: #{name.lower()} }}\n"
    if "description" in model:
        yield f"{model['description']}\n"
    yield _fields(model, models) or f"{type_of(model, models, _link)}\n"


def _fields(schema: Schema, models: Schema) -> str:
    required = schema.get("required", ())
    return table(
        ("name", "type", "default", "description"),
        [
            (
                f"`{name}`",
                type_of(field, models, _link),
                _default(field, name in required),
                field.get("description", ""),
            )
            for name, field in schema.get("properties", {}).items()
        ],
    )


def _examples(body: Schema) -> list[Any]:
    if "examples" in body:
        return [example["value"] for example in body["examples"].values()]
    return [body["example"]] if "example" in body else []


def _default(schema: Schema, required: bool) -> str:
    if required:
        return "required"
    return code(schema["default"]) if "default" in schema else ""


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"
