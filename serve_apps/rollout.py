"""The one poller of the registry: follows the alias and moves every replica to a new version together.

`prepare` loads the new version, and the index that belongs to it, beside the old on every replica of
Encoder and Gateway; only when all have it does `activate` swap a pointer. A request is answered by the
version it began with. What fails to prepare is logged, reported and tried again later; the old version
goes on answering.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow import MlflowException
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from serve_apps.release import Missing, Release
from serve_apps.settings import Settings
from shoplens.errors import ShoplensError
from shoplens.registry import versions as packages
from shoplens.registry.runs import client
from shoplens.search import deltas

log = logging.getLogger("ray.serve")

INDEX_TAG = "index"
"""Tag of a model version that says where its index lies."""
TRY_AGAIN_S = 60.0
"""How long a release that could not be prepared is left alone."""
REGISTRY_DEADLINE_S = 30.0
_NAMES_MORE = re.compile("[@/]")


def look_up(reference: str) -> Release | Missing:
    """Asks the registry, blocking."""
    try:
        client()
    except ShoplensError as error:
        return Missing(str(error), outage=True)
    try:
        found = packages.resolve(reference)
    except ShoplensError as error:
        return Missing(str(error))
    except Exception as error:  # MlflowException, and whatever the transport below it raises
        log.warning("the registry did not answer for %s: %s", reference, error)
        return Missing("the model registry does not answer", outage=True)
    index = found.tags.get(INDEX_TAG)
    stamp = _stamp(index) if index else None
    return Release(found.name, str(found), index if stamp else None, stamp)


def _stamp(index: str) -> str | None:
    try:
        return deltas.stamp(index)
    except OSError as error:
        log.warning("the index %s cannot be read: %s", index, error)
        return None


@dataclass
class Convergence:
    """The rollout's logic, apart from Ray: brings every replica to what the registry says of each reference.

    A reference is a name, which stands for its `alias`, `name@alias` or `name/version`. `gateways` asks each replica
    for what it serves (reference -> Release); `prepare` and `activate` reach every one.
    """

    alias: str
    needs_index: bool
    look_up: Callable[[str], Awaitable[Release | Missing]]
    gateways: Callable[[], Awaitable[list[dict[str, Release]]]]
    prepare: Callable[[Release], Awaitable[None]]
    activate: Callable[[str, Release], Awaitable[None]]
    serving: dict[str, Release] = field(default_factory=dict)
    trouble: dict[str, str] = field(default_factory=dict)
    _failed: dict[Release, float] = field(default_factory=dict)

    async def step(self, reference: str) -> None:
        """One look at the registry. Never raises for what is wrong with one release."""
        states = await self.gateways()
        for state in states:
            if reference in state:
                self.serving.setdefault(reference, state[reference])
        wanted = await self.look_up(reference if _NAMES_MORE.search(reference) else f"{reference}@{self.alias}")
        if isinstance(wanted, Missing):
            self._wait(reference, wanted.reason)
            return
        if self.needs_index and wanted.index is None:
            self._wait(
                reference,
                f"{wanted.version} has no index that can be read: build it with "
                f"`python -m workloads.build_index --model models:/{wanted.version}`",
            )
            return
        if self.serving.get(reference) == wanted and all(state.get(reference) == wanted for state in states):
            self.trouble.pop(reference, None)
            return
        if time.monotonic() - self._failed.get(wanted, -TRY_AGAIN_S) < TRY_AGAIN_S:
            return
        try:
            await self.prepare(wanted)
            await self.activate(reference, wanted)
        except (RayActorError, RayServeException):  # replicas that start or restart: the next look finds them
            raise
        except Exception as error:
            self._failed[wanted] = time.monotonic()
            self.trouble[reference] = f"{wanted.version} could not be loaded: {getattr(error, 'cause', error)}"
            log.exception("%s could not be rolled out; %s goes on", wanted.version, self.serving.get(reference))
            return
        self.serving[reference] = wanted
        self.trouble.pop(reference, None)
        log.info("serving %s", wanted)

    def _wait(self, reference: str, reason: str) -> None:
        if self.trouble.get(reference) != reason:
            log.warning("%s is not served as the registry says: %s", reference, reason)
        self.trouble[reference] = reason


class Rollout:
    """A single replica; requests for the active version do not depend on it."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Serve awaits it
        self._settings = settings
        settings.choose_registry()
        self._app = serve.get_replica_context().app_name
        self._convergence = Convergence(
            settings.alias, settings.search, self.resolve, self._gateways, self._prepare, self._activate
        )
        self._following = asyncio.get_running_loop().create_task(self._follow())

    def _handle(self, deployment: str) -> DeploymentHandle:
        return serve.get_deployment_handle(deployment, self._app)

    async def _follow(self) -> None:
        while True:
            for reference in self._settings.followed:
                try:
                    await self._convergence.step(reference)
                except Exception as error:
                    log.info("rollout of %s waits: %s", reference, error)
            await asyncio.sleep(self._settings.poll_s if self._convergence.serving else min(1.0, self._settings.poll_s))

    async def _gateways(self) -> list[dict[str, Release]]:
        return await self._handle("Gateway").broadcast("serving").results_async()

    async def _prepare(self, release: Release) -> None:
        await self._handle("Encoder").broadcast("prepare", release.version).results_async()
        await self._handle("Gateway").broadcast("prepare", release).results_async()

    async def _activate(self, reference: str, release: Release) -> None:
        await self._handle("Encoder").broadcast("activate", reference, release.version).results_async()
        await self._handle("Gateway").broadcast("activate", release, reference).results_async()

    async def resolve(self, reference: str) -> Release | Missing:
        try:
            return await asyncio.wait_for(asyncio.to_thread(look_up, reference), REGISTRY_DEADLINE_S)
        except asyncio.TimeoutError:
            return Missing("the model registry does not answer", outage=True)

    async def serving(self) -> dict[str, Release]:
        """What every replica should answer with."""
        return dict(self._convergence.serving)

    async def trouble(self) -> dict[str, str]:
        """Why what is served is not what the registry says, by reference."""
        return dict(self._convergence.trouble)

    async def models(self) -> list[dict[str, Any]] | Missing:
        """Rows of `GET /v1/models`, newest first."""
        try:
            return await asyncio.wait_for(asyncio.to_thread(self._models), REGISTRY_DEADLINE_S)
        except (ShoplensError, MlflowException, asyncio.TimeoutError) as error:
            return Missing(str(error), outage=True)

    def _models(self) -> list[dict[str, Any]]:
        registry = client()
        active = {release.version for release in self._convergence.serving.values()}
        rows = []
        for name in self._settings.models:
            try:
                aliases: Mapping[str, str] = registry.get_registered_model(name).aliases
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                continue
            for found in sorted(registry.search_model_versions(f"name='{name}'"), key=lambda v: -int(v.version)):
                version = f"{name}/{found.version}"
                rows.append(
                    {
                        "id": version,
                        "object": "model",
                        "created": int(found.creation_timestamp) // 1000,
                        "owned_by": "shoplens",
                        "aliases": sorted(alias for alias, at in aliases.items() if at == found.version),
                        "active": version in active,
                    }
                )
        return rows

    def check_health(self) -> None:
        if self._following.done():
            raise RuntimeError("the poller has stopped")
