"""Tables of exhibitions and of the shoppers' log, imported together with a source's products."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from shoplens.datasets.importing.rows import Row, one_line, read_rows
from shoplens.datasets.importing.source import Reject
from shoplens.schema import Interaction, Topic

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class ShopperTables:
    """Tables whose rows are `schema.Topic` (`id` or `topic_id`) and `schema.Interaction`. Other columns are ignored.

    In a CSV cell, several keywords or products are separated by `|`. Ids may be integers, and times may be dates or
    timestamps of the table.
    """

    topics: str | None = None
    interactions: str | None = None

    @property
    def inputs(self) -> list[str]:
        return [path for path in (self.topics, self.interactions) if path is not None]

    def topic_rows(self) -> Iterator[dict[str, Any] | Reject]:
        """Rows of `topics.parquet`."""
        seen: set[str] = set()
        for where, row in read_rows(self.topics) if self.topics else ():
            if not isinstance(row, Reject):
                row = {**row, "id": row.get("id", row.get("topic_id"))}
                for field in ("kwds", "product_ids"):
                    if isinstance(row.get(field), str):
                        row[field] = [part.strip() for part in row[field].split("|") if part.strip()]
                    elif isinstance(row.get(field), list):
                        row[field] = [_text(part) for part in row[field]]
            topic = _read(Topic, row, where)
            if isinstance(topic, Topic):
                if topic.id in seen:
                    yield Reject(
                        "duplicate_topic",
                        f"an earlier topic has the id {topic.id!r}: give each topic its own id",
                        where,
                    )
                    continue
                seen.add(topic.id)
                columns = topic.model_dump()
                yield {"topic_id": columns.pop("id"), **columns}
            else:
                yield topic

    def interaction_rows(self, products: Collection[str]) -> Iterator[dict[str, Any] | Reject]:
        """Rows of `interactions.parquet`. Events of a product that is not in `products` are rejected."""
        for where, row in read_rows(self.interactions) if self.interactions else ():
            event = _read(Interaction, row, where)
            if isinstance(event, Interaction) and event.product_id not in products:
                yield Reject(
                    "unknown_product",
                    "the source has no product with this id: add the product, or remove the event",
                    where,
                    event.product_id,
                )
            else:
                yield event.model_dump() if isinstance(event, Interaction) else event


def _read(model: type[M], row: Row | Reject, where: str) -> M | Reject:
    if isinstance(row, Reject):
        return row
    fields = {name: row[name] for name in model.model_fields if row.get(name) is not None}
    fields |= {name: _text(fields[name]) for name in _TEXTS & fields.keys()}
    try:
        found = model.model_validate(fields)
        found.model_dump_json().encode()
    except ValidationError as error:
        return Reject("invalid_row", one_line(error), where)
    except (UnicodeEncodeError, PydanticSerializationError):
        return Reject("invalid_row", "a text is not valid Unicode (a lone surrogate): write it as UTF-8", where)
    return found


_TEXTS = {"id", "topic_id", "product_id", "user_id", "time", "date"}


def _text(value: Any) -> Any:
    if isinstance(value, datetime.date):  # a datetime is a date too
        return value.isoformat()
    return str(value) if type(value) is int else value
