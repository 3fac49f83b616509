"""Markdown tables of names, types, defaults and descriptions out of JSON schemas."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import yaml

Schema = Mapping[str, Any]

LIMITS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "pattern `{}`",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; empty without rows."""
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    if not lines:
        return ""
    return "\n".join([f"| {' | '.join(head)} |", "|" + " --- |" * len(head), *lines]) + "\n"


def _cell(text: str) -> str:
    """One line; outside code, a `|` would end the cell."""
    parts = re.split("(`[^`]*`)", " ".join(text.split()))
    return "".join(part if part.startswith("`") else part.replace("|", "&#124;") for part in parts)


def code(value: object) -> str:
    """A value as YAML writes it on one line, in code."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000).removesuffix("...\n")
    return f"`{text.strip()}`"


def type_of(schema: Schema, definitions: Schema, link: Callable[[str], str] = str) -> str:
    """A JSON schema in words: "integer, ≥ 1", "list of string", "`clip` or `soft`"."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        target = definitions.get(name, {})
        return link(name) if target.get("type") == "object" else type_of(target, definitions, link)
    if "const" in schema:
        return code(schema["const"])
    if "enum" in schema:
        return " or ".join(map(code, schema["enum"]))
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(type_of(option, definitions, link) for option in options))
    if "allOf" in schema:
        return type_of(schema["allOf"][0], definitions, link)
    return ", ".join([_base(schema, definitions, link), *_limits(schema)])


def _base(schema: Schema, definitions: Schema, link: Callable[[str], str]) -> str:
    kind = schema.get("type", "any")
    if kind == "array":
        if "prefixItems" in schema:
            return f"[{', '.join(type_of(item, definitions, link) for item in schema['prefixItems'])}]"
        return f"list of {type_of(schema.get('items', {}), definitions, link)}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"mapping to {type_of(schema['additionalProperties'], definitions, link)}"
    return {"object": "mapping"}.get(kind, kind) if isinstance(kind, str) else " or ".join(kind)


def _limits(schema: Schema) -> list[str]:
    if "prefixItems" in schema:
        return []
    return [words.format(schema[key]) for key, words in LIMITS.items() if key in schema]
