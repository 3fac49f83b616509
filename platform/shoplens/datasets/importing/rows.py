"""Rows of a table of products, read one by one from JSON lines, CSV or Parquet, and turned into products."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, cast

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from shoplens.datasets.importing.source import PhotoRef, Reject
from shoplens.errors import ShoplensError
from shoplens.schema import Product

Row = dict[str, Any]


def open_table(path: str) -> IO[bytes]:
    """The table's bytes, unpacked if it is a `.gz`. Raises ShoplensError if there is no such file."""
    try:
        file = fsspec.open(path, "rb").open()
    except OSError as error:
        raise ShoplensError(f"{path} cannot be read: {error.strerror or error}") from error
    return cast("IO[bytes]", gzip.GzipFile(fileobj=file) if path.endswith(".gz") else file)


def read_rows(path: str) -> Iterator[tuple[str, Row | Reject]]:
    """Rows of `.jsonl`, `.csv` (either may be `.gz`) or `.parquet`, each with its place, `products.jsonl:12`.

    A line that is no row comes as a Reject. Raises ShoplensError if the file as a whole cannot be read.
    """
    name = path.rstrip("/").rpartition("/")[2]
    plain = name.removesuffix(".gz")
    try:
        if plain.endswith(".parquet"):
            yield from _parquet(path, name)
        elif plain.endswith(".csv"):
            yield from _csv(path, name)
        else:
            yield from _json_lines(path, name)
    except (EOFError, gzip.BadGzipFile, zlib.error, pa.ArrowException) as error:
        raise ShoplensError(f"{path} is cut short or damaged ({error}): make or fetch it again") from error


def _json_lines(path: str, name: str) -> Iterator[tuple[str, Row | Reject]]:
    with open_table(path) as file:
        for number, line in enumerate(file, 1):
            where = f"{name}:{number}"
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield where, Reject("malformed_row", f"the line is not JSON: {error}", where)
                continue
            if isinstance(row, dict):
                yield where, row
            else:
                yield where, Reject("malformed_row", "the line is JSON but not an object", where)


def _csv(path: str, name: str) -> Iterator[tuple[str, Row | Reject]]:
    with open_table(path) as file:
        reader = csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", errors="strict", newline=""))
        while True:
            where = f"{name}:{reader.line_num + 1}"
            try:
                row = next(reader)
            except StopIteration:
                return
            except UnicodeDecodeError as error:
                raise ShoplensError(f"{path} is not UTF-8 ({error}): save it as UTF-8") from error
            except csv.Error as error:
                yield where, Reject("malformed_row", f"the line is not CSV: {error}", where)
                continue
            if None in row or None in row.values():
                yield where, Reject("malformed_row", "the line has not as many cells as the header", where)
            else:
                yield where, {column: cell for column, cell in row.items() if cell.strip()}


def _parquet(path: str, name: str) -> Iterator[tuple[str, Row | Reject]]:
    with open_table(path) as file, pq.ParquetFile(file) as table:
        number = 0
        for batch in table.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield f"{name}:{number}", row


_PLAIN = {
    "id",
    "catalog_id",
    "description",
    "category_id",
    "price",
    "currency",
    "seller",
    "review_count",
    "stock",
    "split",
}
_IDENTIFIERS = {"id", "catalog_id", "category_id"}
_PHOTO_FIELDS = {"images", "image"}


def product_of(row: Mapping[str, Any], where: str) -> Product | Reject:
    """The row's product, or why it is none.

    Known fields go to the product's fields (`name` is the title where there is no `title`; `category_path`
    or `category` is a list or `"A > B > C"`; a `category_id` alone is a category of the first level).
    Of any other field, text goes to `texts`, a number, truth value or list of such to `attributes`, and
    an object or a list of objects, as JSON, to `texts`.
    """
    fields: dict[str, Any] = {"texts": {}, "attributes": {}}
    title, name = row.get("title"), row.get("name")
    if title is None:
        title, name = name, None
    if title is not None:
        fields["title"] = title.strip() if isinstance(title, str) else title
    for key, value in {**row, "title": None, "name": name if name != title else None}.items():
        if value is None or key in _PHOTO_FIELDS:
            continue
        if key in _PLAIN:
            fields[key] = str(value) if key in _IDENTIFIERS and type(value) is int else value
        elif key in ("category_path", "category"):
            fields["category_path"] = _category_path(value)
        elif key in ("attributes", "texts"):
            mapping = _mapping(value)
            if mapping is None:
                return Reject("invalid_row", f"{key} is not an object", where, _id(row))
            fields[key].update(mapping)
        elif isinstance(value, bytes):
            return Reject("invalid_row", f"{key} holds bytes; give photos as paths or URLs", where, _id(row))
        elif isinstance(value, str):
            if value.strip():
                fields["texts"][key] = value
        elif isinstance(value, Mapping) or (isinstance(value, list) and any(map(_is_nested, value))):
            fields["texts"][key] = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
        else:
            fields["attributes"].setdefault(key, value)
    if fields.get("category_id") and not fields.get("category_path"):
        fields["category_path"] = (fields["category_id"],)
    try:
        product = Product.model_validate(fields)
        product.to_json().encode()
    except ValidationError as error:
        return Reject("invalid_row", one_line(error), where, _id(row))
    except UnicodeEncodeError:
        return Reject("invalid_row", "a text holds half a character (a lone surrogate)", where, _id(row))
    return product


def photos_of(row: Mapping[str, Any], root: str, where: str) -> list[PhotoRef | Reject]:
    """The photos in `images` (or `image`): paths or URLs, or objects `{"path" or "url", "role", "split"}`.

    In a CSV cell, several are separated by `|`, or the cell is a JSON list.
    """
    listed = row.get("images", row.get("image"))
    if listed is None:
        return []
    if isinstance(listed, str):
        listed = _json(listed) if listed.lstrip().startswith("[") else [p for p in listed.split("|") if p.strip()]
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        listed = [listed]
    return [_photo(item, root, where, _id(row)) for item in listed]


def _photo(item: Any, root: str, where: str, product_id: str | None) -> PhotoRef | Reject:
    if isinstance(item, str):
        item = {"path": item}
    if not isinstance(item, Mapping):
        return Reject("invalid_photo", "a photo is neither a path nor an object", where, product_id, repr(item))
    path, role, split = item.get("path") or item.get("url"), item.get("role") or "photo", item.get("split")
    if not isinstance(path, str) or not isinstance(role, str) or not isinstance(split, str | None):
        detail = "a photo needs `path` or `url`, and `role` and `split`, if given, are text"
        return Reject("invalid_photo", detail, where, product_id, json.dumps(item, default=str))
    return PhotoRef(root, path.strip(), role, split)


def _category_path(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(">"))
    return value


def _is_nested(value: Any) -> bool:
    return isinstance(value, list | tuple | Mapping)


def _mapping(value: Any) -> dict[Any, Any] | None:
    """An object, as JSON has it, a CSV cell holds it as text, or Parquet gives a map: as pairs."""
    if isinstance(value, str):
        value = _json(value)
    if isinstance(value, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
        value = dict(value)
    return dict(value) if isinstance(value, Mapping) else None


def _json(text: str) -> Any:
    """The JSON value of a CSV cell, or the text itself, which validation then refuses."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _id(row: Mapping[str, Any]) -> str | None:
    return str(row["id"]) if row.get("id") is not None else None


def one_line(error: ValidationError) -> str:
    """`"price: Input should be greater than or equal to 0 (-1); title: Field required"`."""
    told = []
    for mistake in error.errors(include_url=False, include_context=False):
        given = "" if mistake["type"] == "missing" else f" ({mistake['input']!r:.80})"
        told.append(f"{'.'.join(map(str, mistake['loc']))}: {mistake['msg']}{given}")
    return "; ".join(told)
