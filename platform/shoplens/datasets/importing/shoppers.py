"""Tables of exhibitions and of the shoppers' log, imported together with a source's products."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from shoplens.datasets.importing.literals import literal
from shoplens.datasets.importing.product import said, shown
from shoplens.datasets.importing.rows import Row, read_rows
from shoplens.datasets.importing.source import Reject
from shoplens.datasets.importing.tidy import identifier, no_value, prose, tidy
from shoplens.datasets.importing.times import moment
from shoplens.schema import Interaction, Topic

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class ShopperTables:
    """Tables whose rows are `schema.Topic` (`id` or `topic_id`) and `schema.Interaction`. Other columns are ignored.

    In a CSV cell, several keywords or products are separated by `|`. Ids may be numbers. Times may be ISO 8601,
    timestamps of the table, or seconds or milliseconds since 1970; they are kept in UTC. An optional field that is not
    usable is left empty and noted.
    """

    topics: str | None = None
    interactions: str | None = None

    @property
    def inputs(self) -> list[str]:
        return [path for path in (self.topics, self.interactions) if path is not None]

    def topic_rows(self) -> Iterator[dict[str, Any] | Reject]:
        """Rows of `topics.parquet`, and rejects and notes."""
        seen: set[str] = set()
        for where, row in read_rows(self.topics) if self.topics else ():
            if isinstance(row, Reject):
                yield row
                continue
            notes: list[Reject] = []
            topic = _read(Topic, {**row, "id": row.get("id", row.get("topic_id"))}, where, notes)
            if isinstance(topic, Reject):
                yield topic
            elif topic.id in seen:
                detail = f"an earlier topic has the id {topic.id!r}: give each topic its own id"
                yield Reject("duplicate_topic", detail, where)
            else:
                seen.add(topic.id)
                yield from notes
                columns = topic.model_dump()
                yield {"topic_id": columns.pop("id"), **columns}

    def interaction_rows(self, products: Collection[str]) -> Iterator[dict[str, Any] | Reject]:
        """Rows of `interactions.parquet`, and rejects and notes. Events of a product not in `products` are rejected."""
        for where, row in read_rows(self.interactions) if self.interactions else ():
            if isinstance(row, Reject):
                yield row
                continue
            notes: list[Reject] = []
            event = _read(Interaction, row, where, notes)
            if isinstance(event, Reject):
                yield event
            elif event.product_id not in products:
                detail = "the source has no product with this id: add the product, or remove the event"
                yield Reject("unknown_product", detail, where, event.product_id)
            else:
                yield from notes
                yield event.model_dump()


def _read(model: type[M], row: Row, where: str, notes: list[Reject]) -> M | Reject:
    """The topic or event of a row. What is wrong with fields that it can be without is added to `notes`."""
    fields: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for name in model.model_fields:
        if no_value(row.get(name)):
            continue
        try:
            fields[name] = _READ.get(name, _text)(row[name])
        except (ValueError, OverflowError, RecursionError) as error:
            faults[name] = f"{name}: {error} ({shown(row[name])})"
    while True:
        needed = [faults[name] for name, field in model.model_fields.items() if field.is_required() and name in faults]
        if needed:
            return Reject("invalid_row", "; ".join(needed), where)
        notes += [Reject("field", f"{fault}; the field is left empty", where) for fault in faults.values()]
        try:
            return model.model_validate(fields)
        except ValidationError as error:
            faults = {str(fault["loc"][0]): said(fault) for fault in error.errors(include_url=False)}
        fields = {name: value for name, value in fields.items() if name not in faults}


def _text(value: Any) -> Any:
    return prose(value) if isinstance(value, str) else value


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str):
        parsed = literal(value) if value.lstrip().startswith("[") else value
        value = parsed if isinstance(parsed, list) else value.split("|")
    return [value] if not isinstance(value, list) else [part for part in value if not no_value(part)]


def _keywords(value: Any) -> list[Any]:
    return [tidy(word) if isinstance(word, str) else word for word in _listed(value)]


def _date(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime.date) else tidy(str(value))


def _kind(value: Any) -> str:
    return tidy(str(value)).casefold()


_READ: dict[str, Callable[[Any], Any]] = {
    "id": identifier,
    "topic_id": identifier,
    "product_id": identifier,
    "user_id": identifier,
    "time": moment,
    "date": _date,
    "kind": _kind,
    "kwds": _keywords,
    "product_ids": lambda value: [identifier(part) for part in _listed(value)],
}
