"""Rows to products. A field that is not usable is left empty and noted; only an id and a title are indispensable."""

from __future__ import annotations

import html
import json
import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from shoplens.datasets.importing.literals import literal
from shoplens.datasets.importing.photo_lists import PHOTO_FIELDS
from shoplens.datasets.importing.prices import Separator, currency_of, price_of
from shoplens.datasets.importing.source import Reject, SourceProduct
from shoplens.datasets.importing.splits import split_name
from shoplens.datasets.importing.tidy import identifier, no_value, plain, prose, tidy, valid
from shoplens.schema import Product

NEEDED = ("id", "title")
LEVELS = 8
_NO_ID = {"none", "na", "-"}
"""More texts that mean "no value" where a name for a catalog or a category is expected."""
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+")
_SIGN_OF_MANY = re.compile(r"^\s*[+-]?\s*[$¥]|\d\s*[$¥]")
_LIST = re.compile(r"\s*(?:\[.*\]|\{.*\})\s*", re.DOTALL)
_EMPTY = "the field is left empty"


def read_product(
    row: Mapping[str, Any], where: str, *, decimal: Separator | None = None, currency: str | None = None
) -> SourceProduct | Reject:
    """The product of a row without its photos, or a Reject that says why the row is not a product.

    Known columns become the product's fields:

    - `name` is the title if there is no `title`;
    - `price` is a number or a text such as `1,299.00 USD`, which may set the currency; see `price_of`;
    - `category_path` or `category` is a list or `"A > B > C"`, of which eight levels are kept;
    - a `category_id` without a path is a category of the first level;
    - `split` may have the names of other tools, such as `validation`.

    In other columns, text goes to `texts`; numbers, booleans and lists of values go to `attributes`; objects and lists
    of objects go to `texts` as JSON. Null, NaN and blank text are no value. Names and ids are made `tidy`.

    decimal    the separator of decimals in the table's prices, if it is known
    currency   the currency of prices that name none, and that have no column `currency` beside them
    """
    return _Reading(row, where, decimal, currency).product()


class _Reading:
    """The fields of one product, read one by one, and notes about those that were left out."""

    def __init__(self, row: Mapping[str, Any], where: str, decimal: Separator | None, currency: str | None) -> None:
        self._row, self._where, self._decimal, self._usual_currency = row, where, decimal, currency
        self._currency_of_price: str | None = None
        self._levels_cut = False
        self._id = str(row["id"])[:256] if isinstance(row.get("id"), str | int | float) else None
        self._notes: list[Reject] = []
        self._fields: dict[str, Any] = {"texts": {}, "attributes": {}}

    def product(self) -> SourceProduct | Reject:
        try:
            self._title()
            for key, value in self._row.items():
                if key in ("title", "name", *PHOTO_FIELDS) or no_value(value):
                    continue
                self._take(str(key), value)
        except _Unusable as fault:
            return Reject("invalid_row", str(fault), self._where, self._id)
        self._settle_currency()
        if self._levels_cut:
            self._fields.pop("category_id", None)
        if self._fields.get("category_id") and not self._fields.get("category_path"):
            self._fields["category_path"] = (self._fields["category_id"],)
        while True:
            try:
                product = Product.model_validate(self._fields)
                return SourceProduct(product, (), self._where, tuple(self._notes))
            except ValidationError as error:
                faults = {str(fault["loc"][0]): said(fault) for fault in reversed(error.errors(include_url=False))}
            if needed := [faults[name] for name in NEEDED if name in faults]:
                has = f"; the row has {', '.join(map(str, list(self._row)[:20]))}" if len(self._row) else ""
                return Reject("invalid_row", "; ".join(needed) + has, self._where, self._id)
            for name, said_of in faults.items():
                self._fields.pop(name, None)
                self._note(f"{said_of}; {_EMPTY}")

    def _title(self) -> None:
        title, name = (None if no_value(self._row.get(key)) else self._row[key] for key in ("title", "name"))
        for text in filter(None, (title, name)):
            if not isinstance(text, str | int | float):
                raise _Unusable(f"title: it is not a text ({reprlib.repr(text)})")
        try:
            if title is None:
                title, name = name, None
            if title is not None:
                self._fields["title"] = prose(plain(title) if not isinstance(title, str) else title)
        except ValueError as error:
            raise _Unusable(f"title: {error}") from None
        if len(self._fields.get("title", "")) > 2000:
            self._fields["title"] = self._fields["title"][:2000]
            self._note("title: it has more than 2000 characters; the rest is left out")
        if name is not None and name != title:
            self._take("name", name)

    def _take(self, key: str, value: Any) -> None:
        """Reads one column. Raises _Unusable if it is the id and cannot be read."""
        try:
            if key in _READ:
                read = _READ[key](self, value)
                if read is not None:
                    self._fields["category_path" if key == "category" else key] = read
            else:
                self._other(tidy(key), value)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            fault = f"{key[:80]}: {error} ({shown(value)})"
            if key in NEEDED:
                raise _Unusable(fault) from None
            self._note(f"{fault}; {_EMPTY}")

    def _note(self, detail: str) -> None:
        self._notes.append(Reject("field", detail, self._where, self._id))

    def _price(self, value: Any) -> float | None:
        amount, currency = price_of(value, self._decimal)
        if amount < 0:
            raise ValueError("a price is not below 0")
        self._currency_of_price = currency
        return amount

    def _settle_currency(self) -> None:
        """The currency that the price names, else the column's, else the usual one. `$` and `¥` alone name several."""
        named, stated = self._currency_of_price, self._fields.get("currency")
        if named is not None and not (
            _SIGN_OF_MANY.search(str(self._row["price"])) and (stated or self._usual_currency)
        ):
            if stated is not None and stated != named:
                self._note(f"currency: it is {stated}, and the price is in {named}; {named} is kept")
            self._fields["currency"] = named
        elif stated is None and self._usual_currency and self._fields.get("price") is not None:
            self._fields["currency"] = self._usual_currency

    def _category(self, value: Any) -> tuple[str, ...] | None:
        if isinstance(value, str):
            text = html.unescape(value) if "&gt;" in value else value
            parsed = literal(text) if text.lstrip().startswith("[") else text
            value = parsed.split(">") if isinstance(parsed, str) else parsed
        if not isinstance(value, list | tuple):
            raise ValueError('it is not a path: write "A > B > C" or a list of names')
        if any(_is_nested(name) for name in value):
            raise ValueError("a name of the path is a list or an object")
        path = tuple(name for part in value if not no_value(part) and (name := plain(part)))
        if len(path) > LEVELS:
            self._note(f"category_path: it has {len(path)} levels; the first {LEVELS} are kept")
            self._levels_cut, path = True, path[:LEVELS]
        return path

    def _texts(self, value: Any) -> dict[str, str]:
        found = self._mapping("texts", value)
        return {**self._fields["texts"], **{key: _text(text) for key, text in found.items() if not no_value(text)}}

    def _attributes(self, value: Any) -> dict[str, Any]:
        given = dict(self._fields["attributes"])
        for key, values in self._mapping("attributes", value).items():
            try:
                if read := _values(values):
                    given[tidy(key)] = read
            except ValueError as error:
                self._note(f"attributes.{key[:80]}: {error} ({shown(values)}); {_EMPTY}")
        return given

    def _mapping(self, field: str, value: Any) -> dict[str, Any]:
        """A dict from a JSON object, from a literal in a cell, or from the pairs of a Parquet map."""
        if isinstance(value, str):
            value = literal(value)
        if isinstance(value, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
            value = dict(value)
        if not isinstance(value, Mapping):
            raise ValueError('it is not an object: write it as {"key": "value"}')
        return {valid(str(key)): item for key, item in value.items()}

    def _other(self, key: str, value: Any) -> None:
        if isinstance(value, bytes):
            raise ValueError("it contains bytes: give photos in the column image or images")
        if isinstance(value, str):
            value = _read_cell(value)
        if isinstance(value, str):
            self._fields["texts"][key] = prose(value)
        elif isinstance(value, Mapping) or (isinstance(value, list) and any(map(_is_nested, value))):
            text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
            self._fields["texts"][key] = valid(text)
        elif read := _values(value):
            self._fields["attributes"].setdefault(key, read)


_READ: dict[str, Callable[[_Reading, Any], Any]] = {
    "id": lambda reading, value: identifier(value),
    "catalog_id": lambda reading, value: _group(value),
    "category_id": lambda reading, value: _group(value),
    "description": lambda reading, value: _text(value),
    "seller": lambda reading, value: _text(value),
    "currency": lambda reading, value: _currency(value),
    "review_count": lambda reading, value: _count(value),
    "stock": lambda reading, value: _count(value),
    "split": lambda reading, value: _split(value),
    "price": _Reading._price,
    "category_path": _Reading._category,
    "category": _Reading._category,
    "texts": _Reading._texts,
    "attributes": _Reading._attributes,
}


class _Unusable(Exception):
    """The row is not a product."""


def _read_cell(text: str) -> Any:
    """The value that JSON or Parquet would have: lists, objects, booleans and numbers are no texts in a CSV cell either."""
    if _NUMBER.fullmatch(text.strip()):
        return [identifier(text)]
    if text in ("True", "False"):
        return [text]
    return literal(text) if _LIST.fullmatch(text) else text


def _group(value: Any) -> str | None:
    """The id of a catalog or category; None for a word that means "none", which would join strangers."""
    name = identifier(value)
    return None if name.casefold() in _NO_ID else name


def _text(value: Any) -> str:
    if _is_nested(value) or isinstance(value, bytes):
        raise ValueError("it is not a text")
    return prose(value if isinstance(value, str) else plain(value))


def _values(value: Any) -> tuple[str, ...]:
    """Values of an attribute, each once."""
    values = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(one, Mapping | bytes) or _is_nested(one) for one in values):
        raise ValueError("it is an object; give a value or a list of values")
    return tuple(dict.fromkeys(text for one in values if not no_value(one) and (text := plain(one))))


def _currency(value: Any) -> str | None:
    code = currency_of(value) if isinstance(value, str) else None
    if code is None:
        raise ValueError("it is not a currency: write a code of ISO 4217, such as USD")
    return code


def _count(value: Any) -> Any:
    if isinstance(value, str):
        value = value.strip()
        return value.replace(",", "") if _THOUSANDS.fullmatch(value) else value
    if isinstance(value, bool):
        raise ValueError("it is not a number")
    return value


def _split(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("it is not the name of a split, such as train, val or test")
    return split_name(value)


def _is_nested(value: Any) -> bool:
    return isinstance(value, list | tuple | Mapping)


def shown(value: Any) -> str:
    """A value in a sentence; long and deep ones are cut."""
    return reprlib.repr(value) if not isinstance(value, str) else repr(value[:80])


def said(fault: Any) -> str:
    """A fault that pydantic found: `"price: Input should be greater than or equal to 0 (-1)"`."""
    given = "" if fault["type"] == "missing" else f" ({shown(fault['input'])})"
    return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}{given}"
