"""Fixtures that make single events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shoplens.experiments.events import Event

MakeEvent = Callable[..., Event]


@pytest.fixture
def make() -> MakeEvent:
    """Makes an impression of product "p" to user "u"; keyword arguments replace its fields."""

    def event(**given: Any) -> Event:
        plain = {
            "time": "2026-03-01T00:00:00Z",
            "user_id": "u",
            "product_id": "p",
            "kind": "impression",
            "surface": "similar",
            "experiment": "e",
            "arm": "champion",
            "request_id": "r",
        }
        if given.get("kind") == "purchase":
            plain |= {"amount": 10.0, "currency": "KRW"}
        return Event.model_validate({**plain, **given})

    return event
