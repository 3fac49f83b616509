"""Rows of JSON lines, CSV or Parquet tables, read one by one and converted to products and photo references."""

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
    """The table as a binary stream, unzipped if it ends in `.gz`. Raises ShoplensError if it cannot be opened."""
    try:
        file = fsspec.open(path, "rb").open()
    except OSError as error:
        raise ShoplensError(f"{path} cannot be read ({error.strerror or error}): check the path") from error
    return cast("IO[bytes]", gzip.GzipFile(fileobj=file) if path.endswith(".gz") else file)


def read_rows(path: str) -> Iterator[tuple[str, Row | Reject]]:
    """Rows of a `.jsonl`, `.csv` (both optionally `.gz`) or `.parquet` file, each with its place: `products.jsonl:12`.

    An unreadable line is yielded as a Reject. Raises ShoplensError if the whole file cannot be read.
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
        raise ShoplensError(f"{path} is cut short or damaged ({error}): create or download it again") from error


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
                yield _malformed(where, f"the line is not JSON ({error}): write one JSON object a line")
                continue
            if isinstance(row, dict):
                yield where, row
            else:
                yield _malformed(where, "the line is JSON but not an object: write one JSON object a line")


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
                yield _malformed(
                    where, f"the line is not CSV ({error}): put quotes around cells with commas, quotes or line breaks"
                )
                continue
            if None in row or None in row.values():
                yield _malformed(
                    where, "the line has more or fewer cells than the header: put quotes around cells with commas"
                )
            else:
                yield where, {column: cell for column, cell in row.items() if cell.strip()}


def _malformed(where: str, detail: str) -> tuple[str, Reject]:
    return where, Reject("malformed_row", detail, where)


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
    """The product of a row, or a Reject that says why the row is not a product.

    Known columns become the product's fields:

    - `name` is the title if there is no `title`;
    - `category_path` or `category` is a list or `"A > B > C"`;
    - a `category_id` without a path is a category of the first level.

    In other columns, text goes to `texts`; numbers, booleans and lists of values go to `attributes`; objects and lists
    of objects go to `texts` as JSON.
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
                return Reject("invalid_row", f'{key} is not an object: write it as {{"key": "value"}}', where, _id(row))
            fields[key].update(mapping)
        elif isinstance(value, bytes):
            return Reject("invalid_row", f"{key} contains bytes: give photos as paths or URLs", where, _id(row))
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
        return Reject(
            "invalid_row", "a text is not valid Unicode (a lone surrogate): write it as UTF-8", where, _id(row)
        )
    return product


def photos_of(row: Mapping[str, Any], root: str, where: str) -> list[PhotoRef | Reject]:
    """The photos in `images` (or `image`): paths, URLs, or objects with `path` or `url`, `role` and `split`.

    In a CSV cell several photos are separated by `|`, or the cell is a JSON list.
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
        return Reject(
            "invalid_photo",
            "a photo is neither a path nor an object: write a path, a URL or an object with `path`",
            where,
            product_id,
            repr(item),
        )
    path, role, split = item.get("path") or item.get("url"), item.get("role") or "photo", item.get("split")
    if not isinstance(path, str) or not isinstance(role, str) or not isinstance(split, str | None):
        detail = "a photo needs `path` or `url`, and its `role` and `split` must be text"
        return Reject("invalid_photo", detail, where, product_id, json.dumps(item, default=str))
    return PhotoRef(root, path.strip(), role, split)


def _category_path(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(">"))
    return value


def _is_nested(value: Any) -> bool:
    return isinstance(value, list | tuple | Mapping)


def _mapping(value: Any) -> dict[Any, Any] | None:
    """A dict from a JSON object, from JSON text in a CSV cell, or from the pairs of a Parquet map; else None."""
    if isinstance(value, str):
        value = _json(value)
    if isinstance(value, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
        value = dict(value)
    return dict(value) if isinstance(value, Mapping) else None


def _json(text: str) -> Any:
    """The JSON value of a CSV cell, or the text itself, which validation then rejects."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _id(row: Mapping[str, Any]) -> str | None:
    return str(row["id"]) if row.get("id") is not None else None


def one_line(error: ValidationError) -> str:
    """`"price: Input should be greater than or equal to 0 (-1); title: Field required"`."""
    mistakes = []
    for mistake in error.errors(include_url=False, include_context=False):
        given = "" if mistake["type"] == "missing" else f" ({mistake['input']!r:.80})"
        mistakes.append(f"{'.'.join(map(str, mistake['loc']))}: {mistake['msg']}{given}")
    return "; ".join(mistakes)
