"""`POST /v1/events`: what shoppers saw, clicked and bought, for the log that experiments are judged by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from serve_apps.endpoints.embeddings import must_be_json
from serve_apps.http.errors import ErrorAnswer, bad_request
from serve_apps.protocol import Strict, answer, parse
from serve_apps.settings import Experiment
from shoplens.experiments.events import MOST_AT_ONCE, Event
from shoplens.schema import Identifier

if TYPE_CHECKING:
    from serve_apps.gateway import Gateway

_PAGE = {"user_id": "u-17", "request_id": "view-1", "seed_product_id": "SEED_ID", "surface": "similar"}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/EventsRequest"},
                "examples": {
                    "page": {
                        "value": {
                            "events": [
                                {
                                    **_PAGE,
                                    "event_id": "view-1/0",
                                    "time": "2026-03-01T09:30:00+09:00",
                                    "kind": "impression",
                                    "product_id": "PRODUCT_ID",
                                    "position": 0,
                                    "snapshot": "similar/4",
                                },
                                {
                                    "event_id": "order-5/1",
                                    "time": "2026-03-01T09:41:00+09:00",
                                    "kind": "purchase",
                                    "user_id": "u-17",
                                    "request_id": "order-5",
                                    "product_id": "PRODUCT_ID",
                                    "amount": 39000,
                                    "currency": "KRW",
                                },
                            ]
                        }
                    }
                },
            }
        },
    }
}


class Reported(Event):
    """An event as a client sends it: where experiment or arm is left out, it is in the user's arm of what runs now.

    Give every event an id of your own: one that is sent again under its id counts once.
    """

    model_config = ConfigDict(strict=True)

    experiment: Identifier = Field("", description="left out: the running one")
    arm: Identifier = Field("", description="left out: the user's")


class EventsRequest(Strict):
    events: list[Reported] = Field(min_length=1, max_length=MOST_AT_ONCE)


class EventsAnswer(BaseModel):
    object: Literal["events"] = "events"
    accepted: int


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter()

    @routes.post(
        "/v1/events",
        response_model=EventsAnswer,
        openapi_extra=BODY,
        responses={501: {"model": ErrorAnswer, "description": "No folder is configured for the log."}},
    )
    async def events(request: Request) -> Response:
        """Logs events, all or none; 200 says that they are durable.

        After a 503, or no answer, send them again under the same ids. Of the running experiment, an event that names
        an arm which is not its user's is refused: it would count the user in both.
        """
        must_be_json(request)
        accepted = await gateway.events.in_thread(_log, gateway, await request.body())
        return answer({"object": "events", "accepted": accepted}, None)

    return routes


def _log(gateway: Gateway, body: bytes) -> int:
    """Raises ApiError 400, 503."""
    running = gateway.settings.experiment
    reported = parse(EventsRequest, body).events
    gateway.events.append([_in_its_arm(event, place, running) for place, event in enumerate(reported)])
    return len(reported)


def _in_its_arm(event: Reported, place: int, running: Experiment | None) -> Event:
    """Raises ApiError 400 if the event belongs to no arm, or to another than its user."""
    if running is not None and event.experiment in ("", running.name):
        arm = running.arm(event.user_id)
        if event.arm not in ("", arm):
            message = f"events[{place}].arm: in the experiment {running.name!r} this user is in {arm!r}"
            raise bad_request("wrong_arm", message, f"events[{place}].arm")
        return event.model_copy(update={"experiment": running.name, "arm": arm})
    for field in ("experiment", "arm"):
        if not getattr(event, field):
            message = f"events[{place}].{field}: only of the experiment that runs here may it be left out"
            raise bad_request("missing_field", message, f"events[{place}].{field}")
    return event
