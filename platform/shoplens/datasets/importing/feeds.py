"""What the columns of a table are taken as. The names of its columns show which vocabulary it uses."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from shoplens.datasets.importing.html_text import text_of_html
from shoplens.datasets.importing.literals import literal
from shoplens.datasets.importing.photo_lists import PHOTO_FIELDS, listed
from shoplens.datasets.importing.rows import Row
from shoplens.datasets.importing.tidy import no_value
from shoplens.datasets.importing.vocabularies import FEEDS, PLAIN, WOOCOMMERCE, Vocabulary
from shoplens.schema import Product

OURS = (*Product.model_fields, "name", "category", *PHOTO_FIELDS)
"""Columns that every table may have under their own names."""
_OF_PANDAS = re.compile(r"Unnamed: \d+|__index_level_\d+__|index|level_\d+")
_NUMBERED = re.compile(r"(.*?)_?\d{1,2}")
_METAFIELD = re.compile(r"(.+?) \(product\.metafields\.\S+\)")
_OPTION_NAME = re.compile(r"((?:option|attribute_)\d+)_name")
_GONE = {"out_of_stock", "outofstock", "sold_out", "0", "false", "no", "품절"}
_OTHER_NAMES = {"title": ("name",), "category_path": ("category",)}
"""Names that `read_product` knows too"""
_LONGEST_TOLD = 2000
_NO_OPTION = "Default Title"
"""Shopify's name for the only variant of a product"""


def folded(column: str) -> str:
    """`"g:Image Link"` -> `"image_link"`, `"Body (HTML)"` -> `"body_html"`."""
    name = unicodedata.normalize("NFKC", column).strip().casefold().removeprefix("g:")
    return re.sub(r"[^\w]+", "_", name).strip("_")


@dataclass(frozen=True)
class Columns:
    """The columns of one table.

    names         columns by their `folded` names
    of_field      our field -> its columns. The first one with a value gives the value; photos come from all
    of_attribute  attribute -> its columns, in the same way
    options       pairs of columns, of which one names an attribute and the other gives its value
    kept          columns that become texts and attributes under their own names
    unused        columns that are left out
    """

    vocabulary: Vocabulary
    names: Mapping[str, str]
    of_field: Mapping[str, tuple[str, ...]]
    of_attribute: Mapping[str, tuple[str, ...]]
    options: tuple[tuple[str, str], ...]
    kept: tuple[str, ...]
    unused: tuple[str, ...]

    @classmethod
    def of(cls, columns: Sequence[str]) -> Columns:
        names: dict[str, str] = {}
        for column in columns:
            names.setdefault(folded(column), column)
        vocabulary = next((feed for feed in FEEDS if _speaks(feed, names)), PLAIN)
        fields, attributes = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
        free = dict.fromkeys(columns)

        def take(into: list[str], theirs: Sequence[str], most: int | None = None) -> None:
            found = [names[name] for name in theirs if name in names and names[name] in free][:most]
            into += found
            for column in found:
                del free[column]

        for ours in [*OURS, *(name for name in vocabulary.fields if name not in OURS)]:
            several = vocabulary is not PLAIN or ours in ("title", *PHOTO_FIELDS)
            theirs = vocabulary.fields.get(ours, ())
            take(fields[ours], theirs if ours in theirs else (*theirs, ours), None if several else 1)
        photos = {name for ours in PHOTO_FIELDS for name in vocabulary.fields.get(ours, (ours,))}
        for column in list(free):
            numbered = _NUMBERED.fullmatch(folded(column))
            if numbered and numbered[1] in photos:
                fields["images"].append(column)
                del free[column]
        for key, theirs in vocabulary.attributes.items():
            take(attributes[key], theirs)
        options: list[tuple[str, str]] = []
        for name in list(names) if vocabulary is not PLAIN else ():
            if option := _OPTION_NAME.fullmatch(name):
                pair = [name, *(other for other in names if other.startswith(f"{option[1]}_value"))]
                found: list[str] = []
                take(found, pair, 2)
                options += [(found[0], found[1])] if len(found) == 2 else []
            elif metafield := _METAFIELD.fullmatch(names[name]):
                take(attributes[metafield[1].casefold()], [name])
        unused = [column for column in free if _OF_PANDAS.fullmatch(column) or vocabulary.ignores(folded(column))]
        return cls(
            vocabulary,
            names,
            {ours: tuple(found) for ours, found in fields.items() if found},
            {key: tuple(found) for key, found in attributes.items() if found},
            tuple(options),
            tuple(column for column in free if column not in unused),
            tuple(unused),
        )

    @cached_property
    def _taken(self) -> frozenset[str]:
        """Columns that do not keep their names."""
        of_fields = (column for found in self.of_field.values() for column in found)
        of_attributes = (column for found in self.of_attribute.values() for column in found)
        of_options = (column for pair in self.options for column in pair)
        return frozenset([*of_fields, *of_attributes, *of_options, *self.unused])

    @cached_property
    def _as_named(self) -> bool:
        """Whether rows are ours already."""
        fields = all(set(columns) <= {ours, *_OTHER_NAMES.get(ours, ())} for ours, columns in self.of_field.items())
        return self.vocabulary is PLAIN and fields and not self.of_attribute and not self.unused

    @property
    def missing(self) -> list[str]:
        """What an import needs and no column is taken as."""
        photos = any(name in self.of_field for name in PHOTO_FIELDS)
        return [name for name in ("id", "title") if name not in self.of_field] + ([] if photos else ["images"])

    def told(self) -> str:
        """Which columns were taken as what, and which were not used, in one line."""
        taken = {**self.of_field, **{f"attribute {key}": found for key, found in self.of_attribute.items()}}
        same = [ours for ours, found in taken.items() if found in ((ours,), (ours.removeprefix("attribute "),))]
        parts = [f"{', '.join(same)} as named"] if same else []
        parts += [f"{ours} from {', '.join(found)}" for ours, found in taken.items() if ours not in same]
        parts += [f"attributes from {', '.join(name for name, _ in self.options)}"] if self.options else []
        parts += [f"kept under their names: {', '.join(self.kept)}"] if self.kept else []
        parts += [f"not used: {', '.join(self.unused)}"] if self.unused else []
        table = "" if self.vocabulary is PLAIN else f" of a {self.vocabulary.title} table"
        told = f"columns{table}: {'; '.join(parts)}"
        return told[:_LONGEST_TOLD].encode(errors="replace").decode()

    def row(self, theirs: Row) -> Row:
        """A row under our names."""
        if self._as_named:
            return theirs
        ours: Row = {key: theirs[key] for key in theirs if key not in self._taken}
        for name, columns in self.of_field.items():
            found = [(column, theirs[column]) for column in columns if not no_value(theirs.get(column))]
            if name in PHOTO_FIELDS:
                ours[name] = [photo for _, value in found for photo in listed(value)]
            elif name == "title" and self.vocabulary is PLAIN:
                ours |= dict(zip(("title", "name"), (value for _, value in found), strict=False))
            elif found:
                column, value = found[0]
                repeated = isinstance(value, list) and value and column != name
                ours[name] = value[0] if repeated else value
        if self.vocabulary is not PLAIN:
            self._settle(ours)
        if attributes := self._attributes(theirs):
            given = _pairs(ours.get("attributes"))
            if isinstance(given, Mapping):
                ours["attributes"] = {**attributes, **given}
            else:  # left for the note on a bad field
                ours |= {key: value for key, value in attributes.items() if key not in ours}
        return ours

    def _settle(self, ours: Row) -> None:
        """The ways of feeds: HTML, several categories, availability in words."""
        for name in ("title", "description"):
            if isinstance(ours.get(name), str):
                ours[name] = text_of_html(ours[name])
        path = ours.get("category_path")
        if isinstance(path, str) and self.vocabulary is WOOCOMMERCE:
            paths = [part.replace("\\,", ",") for part in re.split(r"(?<!\\),", path)]
            ours["category_path"] = max(paths, key=lambda part: part.count(">"))
        available = ours.pop("availability", None)
        if isinstance(available, str | int) and folded(str(available)) in _GONE:
            ours.setdefault("stock", 0)

    def _attributes(self, theirs: Row) -> dict[str, Any]:
        attributes: dict[str, Any] = {}
        for key, columns in self.of_attribute.items():
            if values := [theirs[column] for column in columns if not no_value(theirs.get(column))]:
                attributes[key] = _commas(values[0]) if key == "tags" else values[0]
        for name, value in self.options:
            option, given = theirs.get(name), theirs.get(value)
            if isinstance(option, str) and not no_value(option) and not no_value(given) and given != _NO_OPTION:
                several = self.vocabulary is WOOCOMMERCE
                attributes[option.strip().casefold()] = _commas(given) if several else [given]
        return attributes


def _speaks(vocabulary: Vocabulary, names: Mapping[str, str]) -> bool:
    has_all = all(any(name in names for name in group) for group in vocabulary.needs)
    return has_all and any(name in names for name in vocabulary.signs)


def _pairs(given: Any) -> Any:
    """The attributes that a row gives as an object, a literal, the pairs of a Parquet map, or not at all."""
    if no_value(given):
        return {}
    if isinstance(given, str):
        return literal(given)
    pairs = isinstance(given, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in given)
    return dict(given) if pairs else given


def _commas(value: Any) -> Any:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value
