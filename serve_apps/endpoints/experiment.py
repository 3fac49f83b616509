"""`GET /v1/experiment`, and the arm that answers a user's search while an experiment runs."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import Response

from serve_apps.gateway import Gateway, Needs, Served
from serve_apps.http.answers import answer


class ArmRow(BaseModel):
    name: str
    share: float = Field(description="of the users")
    model: str = Field(description="the `model` of a request that asks for this arm", examples=["similar@challenger"])
    version: str | None = Field(
        description="null: it is not served yet, and the experiment waits", examples=["similar/4"]
    )


class ExperimentAnswer(BaseModel):
    object: Literal["experiment"] = "experiment"
    name: str | None = Field(description="null: there is none")
    running: bool = Field(description="whether every arm that has a share can answer")
    arms: list[ArmRow]


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["experiments"])

    @routes.get("/v1/experiment", response_model=ExperimentAnswer)
    async def experiment() -> Response:
        """The experiment of the cluster file, and the versions that answer its arms."""
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


async def answering(
    gateway: Gateway, user: str | None, model: str | None, needs: Needs
) -> tuple[Served, dict[str, str] | None]:
    """The release that answers a search, and the experiment and arm that the search counts for, if any.

    While one arm cannot answer such a request, no request of this kind takes part: nothing may be promoted, or the
    arm's model may lack a capability. If only that arm missed these page views, the arms could not be compared.
    Raises ApiError as `Gateway.served` does.
    """
    experiment = gateway.settings.experiment
    if experiment is not None and user is not None and model is None:
        arms = {arm.name: gateway.ready(gateway.settings.canonical(arm.model)) for arm in experiment.arms if arm.share}
        if all(served is not None and served.can(*needs.capabilities) for served in arms.values()):
            arm = experiment.arm(user)
            served = arms[arm]
            assert served is not None
            return served, {"name": experiment.name, "arm": arm}
    return await gateway.served(model, needs), None
