"""OpenAPI's words on what all endpoints have in common: forms of a request, and limits with the values of the settings."""

from __future__ import annotations

from typing import Any

from serve_apps.http.parsing import MAX_VALUES
from serve_apps.settings import Limits

_ABOUT = f"""\
Embeddings and attributes of products by photo and text, and the products most similar to one.

**Requests.** JSON is UTF-8; a byte order mark is skipped. Bodies may be compressed (`Content-Encoding: gzip` or `deflate`);
another coding gets 415. An optional field that is `null` counts as left out; an unknown field gets 400. A body has at most
{MAX_VALUES:,} values.

**Photos.** A data URI, base64 alone, or a URL of an allowed host, and in forms a file too. Base64 may have line breaks, the
URL-safe alphabet, and no padding.

**Categories** are named by id, by path (`Clothing > Dresses`), or by a name that no other category has. Upper and lower case,
blanks and forms of Unicode are the same.

**Errors** have the shape of OpenAI: `message` for people, `code` for programs, and `param`, the place in the request.

**GET** paths answer HEAD too. Photos and page files have an ETag; `If-None-Match` takes weak ones, lists and `*`.
"""


def about(limits: Limits) -> str:
    """Description of the whole API, in Markdown."""
    rows = "\n".join(
        f"| `{name}` | {getattr(limits, name):,} | {field.description} |" for name, field in Limits.model_fields.items()
    )
    return f"{_ABOUT}\n**Limits**, as `limits:` of the cluster file sets them:\n\n| limit | value | meaning |\n| --- | --- | --- |\n{rows}\n"


def with_limits(schema: Any, limits: Limits) -> Any:
    """The schema with numbers in place of names: `"maxItems": "limits.inputs"` -> `"maxItems": 2048`."""
    if isinstance(schema, dict):
        return {key: with_limits(value, limits) for key, value in schema.items()}
    if isinstance(schema, list):
        return [with_limits(value, limits) for value in schema]
    if isinstance(schema, str) and schema.startswith("limits."):
        return getattr(limits, schema.removeprefix("limits."))
    return schema
