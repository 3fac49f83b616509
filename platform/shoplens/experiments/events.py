"""What a shopper saw and did in an experiment, as the log keeps it."""

from __future__ import annotations

import datetime
import uuid
from typing import Annotated

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from shoplens.datasets.format import INTERACTIONS
from shoplens.schema import Identifier, Interaction

MOST_AT_ONCE = 10_000
"""Events that one call may bring."""

EVENTS = pa.schema(
    [
        *INTERACTIONS,
        ("event_id", pa.string()),
        ("experiment", pa.string()),
        ("arm", pa.string()),
        ("request_id", pa.string()),
        ("seed_product_id", pa.string()),
        ("snapshot", pa.string()),
        ("amount", pa.float64()),
        ("currency", pa.string()),
    ]
)


Surface = Annotated[str, Field(max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Event(Interaction):
    """An interaction as a row of the log; every text is bounded.

    time             ISO 8601 with its zone; kept in UTC, so that times sort as text
    event_id         made up if left out; a client that may send an event twice gives it one id, and it counts once
    surface          the slot of the page: "similar", "bought_together", ...
    request_id       the view of a page; all of its slots, and what was clicked in them, name the same one
    seed_product_id  the product whose page it was
    snapshot         the version of the index that the list came from
    amount           what was paid for this line, in `currency` (ISO 4217); of purchases, and of nothing else
    """

    user_id: Identifier
    product_id: Identifier
    surface: Surface = ""
    topic_id: Identifier | None = None
    event_id: Identifier = Field(default_factory=lambda: uuid.uuid4().hex)
    experiment: Identifier
    arm: Identifier
    request_id: Identifier
    seed_product_id: Identifier | None = None
    snapshot: Identifier | None = None
    amount: float | None = Field(None, ge=0, le=1e12, allow_inf_nan=False)
    currency: str | None = Field(None, pattern=r"^[A-Z]{3}$")

    @field_validator("time")
    @classmethod
    def _is_in_utc(cls, time: str) -> str:
        example = "write it like 2026-03-01T09:30:00+09:00"
        try:
            if len(time) > 40:
                raise ValueError
            moment = datetime.datetime.fromisoformat(time.removesuffix("Z") + "+00:00" * time.endswith("Z"))
        except ValueError:
            raise ValueError(f"is no time of ISO 8601: {example}") from None
        if moment.tzinfo is None:
            raise ValueError(f"has no time zone: {example}")
        try:
            moment = moment.astimezone(datetime.timezone.utc)
        except OverflowError:
            raise ValueError("lies outside of the calendar in UTC") from None
        return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"

    @model_validator(mode="after")
    def _only_purchases_are_paid(self) -> Event:
        paid = self.amount is not None and self.currency is not None
        if self.kind == "purchase" and not paid:
            raise ValueError("a purchase needs amount and currency")
        if self.kind != "purchase" and (self.amount is not None or self.currency is not None):
            raise ValueError(f"{self.kind}s are not paid: leave out amount and currency")
        return self
