"""The data model of a shop: products, categories, topics and interactions."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from shoplens.errors import ShoplensError, did_you_mean

Identifier = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
Split = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$")]


class Product(BaseModel):
    """One listing of a shop. Listings of the same product share a `catalog_id`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Identifier = Field(description="unique among the products of the dataset")
    catalog_id: Identifier | None = Field(
        None, description="shared by listings of the same product; null: the listing is a catalog of its own"
    )
    title: str = Field(min_length=1, max_length=2000)
    description: str = ""
    texts: dict[str, str] = Field({}, description="more text fields by name, such as the title in a second language")
    category_path: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(
        (), max_length=8, description='category names from root to leaf: ["Men", "T-Shirts"]'
    )
    category_id: Identifier | None = Field(None, description="id of the leaf category; made from the path if null")
    attributes: dict[str, tuple[str, ...]] = Field({}, description='one or more values a key: {"color": ["Red"]}')
    price: float | None = Field(None, ge=0, allow_inf_nan=False, description="price in `currency`")
    currency: str | None = Field(None, description='ISO 4217 code, such as "USD"')
    seller: str | None = None
    review_count: int | None = Field(None, ge=0, lt=2**63)
    stock: int | None = Field(None, ge=0, lt=2**63, description="pieces in stock; null: unknown")
    split: Split = Field("train", description="split of the photos that name none of their own")

    @field_validator("attributes", mode="before")
    @classmethod
    def _values_are_lists(cls, attributes: Any) -> Any:
        """`{"color": "Red", "year": 2010, "note": ""}` -> `{"color": ("Red",), "year": ("2010",)}`."""
        if not isinstance(attributes, Mapping):
            return attributes
        normal: dict[str, tuple[str, ...]] = {}
        for key, value in attributes.items():
            if isinstance(value, Mapping):
                raise ValueError(f"attribute {key!r} is an object; give a value or a list of values")
            values = value if isinstance(value, list | tuple) else [value]
            kept = tuple(str(v) for v in values if v is not None and str(v).strip())
            if kept:
                normal[str(key)] = kept
        return normal

    def text(self, fields: Sequence[str], separator: str = " ") -> str:
        """The non-empty fields among `fields`, joined. A field is named as in `field`."""
        return separator.join(filter(None, (self.field(name) for name in fields)))

    def field(self, name: str) -> str:
        """The text of `title`, `description`, `category` (the names of the path) or a key of `texts`; "" if absent."""
        match name:
            case "title":
                return self.title
            case "description":
                return self.description
            case "category":
                return " ".join(self.category_path)
            case _:
                return self.texts.get(name, "")

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False, sort_keys=True)


class TopicText(BaseModel):
    """The text of a shopping exhibition. Every field is optional."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("", description='for example "Winter coats under 100,000 won"')
    desc: str = Field("", description="description")
    date: str | None = Field(None, description="ISO date on which the exhibition opens")
    cat1: str = Field("", description="name of the category, first level")
    cat2: str = Field("", description="name of the category, second level")
    cat3: str = Field("", description="name of the category, third level")
    cat4: str = Field("", description="name of the category, fourth level")
    kwds: tuple[str, ...] = Field((), description="keywords")

    @field_validator("date")
    @classmethod
    def _is_a_date(cls, date: str | None) -> str | None:
        if date:
            datetime.date.fromisoformat(date[:10])
        return date


class Topic(TopicText):
    """A shopping exhibition. Its products are ranked by how well they fit it and how much shoppers like them."""

    id: Identifier
    name: str = Field(description="title of the exhibition")
    product_ids: tuple[str, ...] = Field((), description="products that the shop chose for the exhibition")


class Interaction(BaseModel):
    """One logged event of a shopper."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    time: str = Field(description="ISO 8601, such as 2025-04-01T10:00:00")
    user_id: str
    product_id: str
    kind: Literal["impression", "click", "purchase"]
    surface: str = Field("", description='slot of the page, such as "similar"')
    topic_id: str | None = Field(None, description="exhibition on whose page the product was shown")
    position: int | None = Field(None, ge=0, le=100_000, description="place in the list, from 0")
    propensity: float | None = Field(
        None, gt=0, le=1, description="probability that the logging policy showed the product at this position"
    )


def slug(name: str) -> str:
    """`"Hoodies & Sweatshirts"` -> `"hoodies-sweatshirts"`. Letters of every script are kept."""
    return re.sub(r"[^\w]+", "-", name.casefold(), flags=re.UNICODE).strip("-_") or "x"


def _folded(named: str) -> str:
    """One form for all writings of an id, name or path: `" men >T-Shirts"` -> `"men > t-shirts"`."""
    return " ".join(unicodedata.normalize("NFKC", named).casefold().replace(">", " > ").split())


def category_id_of(path: Sequence[str], taken: Collection[str] = ()) -> str:
    """`("Men", "T-Shirts")` -> `"men/t-shirts"`. A hash of the path is appended if that id is `taken`."""
    plain = "/".join(slug(name) for name in path)
    if plain not in taken:
        return plain
    return f"{plain}-{hashlib.sha256(repr(tuple(path)).encode()).hexdigest()[:8]}"


@dataclass
class Category:
    """A node of the tree. Its subtree covers the places `order` to `last` of the depth-first order."""

    id: str
    parent_id: str | None
    level: int
    name: str
    path: tuple[str, ...]
    children: list[str] = field(default_factory=list)
    order: int = -1
    last: int = -1


class CategoryTree:
    """The categories of a shop: a forest of paths in which every id names one path.

    In depth-first order every subtree is a contiguous range, so a search slices it.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, Category] = {}
        self._by_path: dict[tuple[str, ...], str] = {}
        self._reserved: set[str] = set()
        self._ordered = False
        self._written: dict[str, list[Category]] | None = None
        """Categories by id, path and name in one form, made by the first `find` that needs it."""

    def add(self, path: Sequence[str], category_id: str | None = None) -> str:
        """Adds a path (root to leaf) and returns the id of its leaf. A missing id is made from the path.

        Raises ShoplensError if the path is empty, if the id names another path, or if the path has another id.
        """
        path = tuple(path)
        if not path:
            raise ShoplensError("the category path is empty: give at least one name")
        parent_id = self.add(path[:-1]) if len(path) > 1 else None
        known = self._by_path.get(path)
        if known is not None:
            if category_id is not None and category_id != known:
                raise ShoplensError(f"category {' > '.join(path)} has two ids, {known!r} and {category_id!r}: keep one")
            return known
        category_id = category_id or category_id_of(path, self._nodes.keys() | self._reserved)
        if category_id in self._nodes:
            other = " > ".join(self._nodes[category_id].path)
            raise ShoplensError(
                f"category id {category_id!r} names two places, {other} and {' > '.join(path)}: give each its own id"
            )
        self._nodes[category_id] = Category(category_id, parent_id, len(path), path[-1], path)
        self._by_path[path] = category_id
        if parent_id is not None:
            self._nodes[parent_id].children.append(category_id)
        self._ordered = False
        return category_id

    def __contains__(self, category_id: object) -> bool:
        return category_id in self._nodes

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, category_id: str) -> Category:
        self._order()
        return self._nodes[category_id]

    def __iter__(self) -> Iterator[Category]:
        """All categories in depth-first order."""
        self._order()
        return iter(sorted(self._nodes.values(), key=lambda node: node.order))

    def find(self, named: str) -> Category:
        """The category with this id, `A > B` path or name.

        Case, blanks and the form of Unicode count only where they decide between categories. Raises ShoplensError if no
        category matches (the message suggests near ones), or if several share the name.
        """
        self._order()
        if named in self._nodes:
            return self._nodes[named]
        if self._written is None:
            self._written = self._by_writing()
        folded = _folded(named)

        def rank(node: Category) -> int:
            if named == " > ".join(node.path):
                return 0
            if named == node.name:
                return 1
            return 2 if folded in (_folded(node.id), _folded(" > ".join(node.path))) else 3

        candidates = self._written.get(folded, [])
        best = min(map(rank, candidates), default=0)
        found = [node for node in candidates if rank(node) == best]
        if len(found) == 1:
            return found[0]
        if found:
            which = "; ".join(" > ".join(node.path) for node in found[:5])
            raise ShoplensError(f"several categories are called {named!r}, give the path of one of them: {which}")
        near = did_you_mean(named, {name for node in self for name in (node.id, node.name)})
        raise ShoplensError(f"there is no category {named[:100]!r}{near}")

    def _by_writing(self) -> dict[str, list[Category]]:
        found: dict[str, list[Category]] = {}
        for node in self:
            for text in {_folded(node.id), _folded(" > ".join(node.path)), _folded(node.name)}:
                found.setdefault(text, []).append(node)
        return found

    def _order(self) -> None:
        if self._ordered:
            return
        self._written = None
        place = 0

        def visit(node: Category) -> None:
            nonlocal place
            node.order = place
            place += 1
            for child in sorted(node.children):
                visit(self._nodes[child])
            node.last = place - 1

        for root in sorted(node.id for node in self._nodes.values() if node.parent_id is None):
            visit(self._nodes[root])
        self._ordered = True

    @classmethod
    def of(cls, paths: Iterable[tuple[Sequence[str], str | None]]) -> CategoryTree:
        """The tree of (path, id) pairs, whatever their order. Raises ShoplensError as `add` does."""
        places = [(tuple(path), category_id) for path, category_id in paths]
        tree = cls()
        tree._reserved = {category_id for _, category_id in places if category_id is not None}
        places.sort(key=lambda place: (len(place[0]), place[1] is None, place[0]))
        for path, category_id in places:
            tree.add(path, category_id)
        return tree
