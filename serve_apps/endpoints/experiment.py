"""The running experiment: which arm a user's request is answered by, and `GET /v1/experiment`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import Response

from serve_apps.protocol import SimilarRequest, answer

if TYPE_CHECKING:
    from serve_apps.gateway import Gateway, Served


class ArmRow(BaseModel):
    name: str
    share: float = Field(description="of the users")
    model: str = Field(description="what to name in a request to see this arm", examples=["similar@challenger"])
    version: str | None = Field(description="null: it is not served, and the experiment waits", examples=["similar/4"])


class ExperimentAnswer(BaseModel):
    object: Literal["experiment"] = "experiment"
    name: str | None = Field(description="null: there is none")
    running: bool = Field(description="whether every arm that has a share can answer")
    arms: list[ArmRow]


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter()

    @routes.get("/v1/experiment", response_model=ExperimentAnswer)
    async def experiment() -> Response:
        """The experiment of the cluster file, with what its arms are answered by."""
        settings, found = gateway.settings, gateway.settings.experiment
        if found is None:
            return answer({"object": "experiment", "name": None, "running": False, "arms": []}, None)
        arms = []
        for arm in found.arms:
            served = gateway.ready(settings.canonical(arm.model))
            version = None if served is None else served.version
            arms.append({"name": arm.name, "share": arm.share, "model": arm.model, "version": version})
        running = all(arm["version"] for arm in arms if arm["share"])
        return answer({"object": "experiment", "name": found.name, "running": running, "arms": arms}, None)

    return routes


async def answering(gateway: Gateway, asked: SimilarRequest) -> tuple[Served, dict[str, str] | None]:
    """The release that answers a search, and as which arm of which experiment, if it is part of one.

    While one arm cannot answer such a request (nothing is promoted, or its model reads no texts), none takes part in
    it: were that arm's page views missing alone, what is left of the arms would not be comparable.
    Raises ApiError as `Gateway.served` does.
    """
    experiment = gateway.settings.experiment
    if experiment is not None and asked.user is not None and asked.model is None:
        arms = {arm.name: gateway.ready(gateway.settings.canonical(arm.model)) for arm in experiment.arms if arm.share}
        if all(one is not None and (asked.text is None or one.model.reads_texts) for one in arms.values()):
            arm = experiment.arm(asked.user)
            served = arms[arm]
            assert served is not None
            return served, {"name": experiment.name, "arm": arm}
    return await gateway.served(asked.model, search=True), None
