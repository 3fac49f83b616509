"""`POST /v1/events`: impressions, clicks and purchases, for the event log that experiments are judged by."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from serve_apps.gateway import Gateway
from serve_apps.http.answers import answer
from serve_apps.http.errors import ErrorAnswer, bad_request
from serve_apps.http.inputs import Strict
from serve_apps.http.parsing import Body, must_be_json, parse
from serve_apps.settings import Experiment
from shoplens.experiments.events import MOST_AT_ONCE, Event
from shoplens.schema import Identifier


class Reported(Strict, Event):
    """An event as a client sends it. Without experiment and arm it belongs to the user's arm of the running experiment.

    Give every event an id of your own. An event that is sent again under its id counts once.
    """

    experiment: Identifier = Field("", description="default: the running experiment")
    arm: Identifier = Field("", description="default: the arm of the user")


class EventsRequest(Strict):
    events: list[Reported] = Field(min_length=1, max_length=MOST_AT_ONCE, fail_fast=True)


class EventsAnswer(BaseModel):
    object: Literal["events"] = "events"
    accepted: int


_PAGE = {"user_id": "u-17", "request_id": "view-1", "seed_product_id": "SEED_ID", "surface": "similar"}
BODY = Body(
    EventsRequest,
    {
        "page": {
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
    },
)


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["experiments"])

    @routes.post(
        "/v1/events",
        response_model=EventsAnswer,
        openapi_extra=BODY,
        responses={501: {"model": ErrorAnswer, "description": "No folder is configured for the log."}},
    )
    async def events(request: Request) -> Response:
        """Logs events, all or none. After a 200 they are durable.

        After a 503, or no answer, send them again under the same ids. An event of the running experiment must not
        name another arm than its user's: it would count the user in both arms, and gets a 400.
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
    """The event with its experiment and arm. Raises ApiError 400 if it has no arm, or not the arm of its user."""
    if running is not None and event.experiment in ("", running.name):
        arm = running.arm(event.user_id)
        if event.arm not in ("", arm):
            message = f"events[{place}].arm: in the experiment {running.name!r} this user is in {arm!r}"
            raise bad_request("wrong_arm", message, f"events[{place}].arm")
        return event.model_copy(update={"experiment": running.name, "arm": arm})
    for field in ("experiment", "arm"):
        if not getattr(event, field):
            message = f"events[{place}].{field}: only an event of the running experiment may leave it out"
            raise bad_request("missing_field", message, f"events[{place}].{field}")
    return event
