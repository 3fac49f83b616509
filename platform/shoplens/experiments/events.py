"""Events of an experiment as rows of the log: impressions, clicks and purchases."""

from __future__ import annotations

import datetime
import uuid
from typing import Annotated

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from shoplens.datasets.format import INTERACTIONS
from shoplens.schema import Identifier, Interaction

MOST_AT_ONCE = 10_000
"""Largest number of events in one call."""

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
    """An interaction as a row of the log. The length of every text is limited."""

    time: str = Field(
        description="Time in ISO 8601 with a time zone, such as `2026-03-01T09:30:00+09:00`. It is stored in UTC, so "
        "times sort as text."
    )
    user_id: Identifier = Field(description="The user, or the session of a user who is not logged in.")
    product_id: Identifier = Field(description="The product that was shown, clicked or bought.")
    surface: Surface = Field("", description="Slot of the page, such as `similar` or `bought_together`.")
    topic_id: Identifier | None = Field(None, description="The topic of the page, if any.")
    event_id: Identifier = Field(
        default_factory=lambda: uuid.uuid4().hex,
        description="Id of the event; generated if left out. An event sent twice under one id counts once.",
    )
    experiment: Identifier = Field(description="The experiment that the event belongs to.")
    arm: Identifier = Field(description="The arm that the user saw.")
    request_id: Identifier = Field(
        description="Id of the page view. All impressions in its slots, and the clicks on them, carry the same id. "
        "A purchase may carry the id of its order."
    )
    seed_product_id: Identifier | None = Field(None, description="The product whose page was viewed.")
    snapshot: Identifier | None = Field(
        None, description="Version of the index that produced the list, such as `similar/4`."
    )
    amount: float | None = Field(
        None, ge=0, le=1e12, allow_inf_nan=False, description="Price paid for this line. For purchases only."
    )
    currency: str | None = Field(
        None,
        pattern=r"^[A-Z]{3}$",
        description="Currency of the amount in ISO 4217, such as `KRW`. For purchases only.",
    )

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
