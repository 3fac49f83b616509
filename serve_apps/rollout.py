"""Rollout: the one deployment that polls the registry, and moves every replica to a new version together.

`prepare` loads the new version and its index beside the old ones, on every replica of Encoder and Gateway. Once all
replicas have it, `activate` swaps a pointer. A request is answered by the version it began with. A release that cannot
be prepared is logged, reported and tried again later; the old version continues to answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from mlflow import MlflowException
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from serve_apps.references import name_of
from serve_apps.release import Missing, Release
from serve_apps.settings import Settings
from shoplens.errors import ShoplensError
from shoplens.registry import versions as packages
from shoplens.registry.runs import client
from shoplens.search import deltas

log = logging.getLogger("ray.serve")

T = TypeVar("T")

INDEX_TAG = "index"
"""Tag of a model version with the address of its index."""
CAPABILITIES_TAG = "capabilities"
"""Tag of a model version with the names of its capabilities, a JSON list."""
TRY_AGAIN_S = 60.0
"""Time before a release that could not be prepared is tried again."""
REGISTRY_DEADLINE_S = 30.0


class RegisteredName(NamedTuple):
    """A registered model, and its version at each alias."""

    name: str
    aliases: Mapping[str, str]


def registered_names() -> list[RegisteredName]:
    """All registered models, the first registered first; blocking."""
    registry, found, token = client(), [], None
    while True:
        page = registry.search_registered_models(page_token=token)
        found += page
        token = page.token
        if not token:
            break
    found.sort(key=lambda model: (int(model.creation_timestamp), model.name))
    return [RegisteredName(model.name, model.aliases) for model in found]


def look_up(reference: str) -> Release | Missing:
    """Asks the registry; blocking."""
    try:
        client()
    except ShoplensError as error:
        return Missing(str(error), outage=True)
    try:
        found = packages.resolve(reference)
    except ShoplensError as error:
        return Missing(str(error))
    except Exception as error:  # MlflowException, and errors of the transport below it
        log.warning("the registry did not answer for %s: %s", reference, error)
        return Missing("the model registry does not answer", outage=True)
    index = found.tags.get(INDEX_TAG)
    stamp = _stamp(index) if index else None
    return Release(found.name, str(found), index if stamp else None, stamp, capabilities_of(found.tags))


def capabilities_of(tags: Mapping[str, str]) -> tuple[str, ...]:
    """Capability names by the tag of a version; `Release`'s default if it has none."""
    try:
        listed = json.loads(tags[CAPABILITIES_TAG])
    except (KeyError, ValueError):
        return Release.capabilities
    return tuple(map(str, listed)) if isinstance(listed, list) else Release.capabilities


def _stamp(index: str) -> str | None:
    try:
        return deltas.stamp(index)
    except OSError as error:
        log.warning("the index %s cannot be read: %s", index, error)
        return None


@dataclass
class Convergence:
    """The logic of the rollout, without Ray: brings every replica to the version in the registry, by reference.

    A reference is a name (its `alias`), `name@alias` or `name/version`. `gateways` gives what each replica serves
    (reference -> Release); `prepare` and `activate` reach every replica. `searches` says whether models with vectors
    need an index.
    """

    alias: str
    searches: bool
    look_up: Callable[[str], Awaitable[Release | Missing]]
    gateways: Callable[[], Awaitable[list[dict[str, Release]]]]
    prepare: Callable[[Release], Awaitable[None]]
    activate: Callable[[str, Release], Awaitable[None]]
    serving: dict[str, Release] = field(default_factory=dict)
    trouble: dict[str, str] = field(default_factory=dict)
    _failed: dict[Release, float] = field(default_factory=dict)

    async def names(self, registered: Sequence[RegisteredName]) -> tuple[str, ...]:
        """The names to follow: those with the alias in the order of `registered`, and those that are served already."""
        served = [
            reference for state in await self.gateways() for reference in state if name_of(reference) == reference
        ]
        kept = {*self.serving, *served}
        known = [model.name for model in registered if self.alias in model.aliases or model.name in kept]
        return tuple(dict.fromkeys((*known, *served)))

    async def step(self, reference: str) -> None:
        """One look at the registry. Never raises because of one release."""
        states = await self.gateways()
        for state in states:
            if reference in state:
                self.serving.setdefault(reference, state[reference])
        wanted = await self.look_up(f"{reference}@{self.alias}" if name_of(reference) == reference else reference)
        if isinstance(wanted, Missing):
            self._wait(reference, wanted.reason)
            return
        if self.searches and wanted.gives_vectors and wanted.index is None:
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
    """A single replica. Requests for the active versions do not depend on it."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Serve awaits it
        self._settings = settings
        settings.choose_registry()
        self._app = serve.get_replica_context().app_name
        self._convergence = Convergence(
            settings.alias, settings.search, self.resolve, self._gateways, self._prepare, self._activate
        )
        self._registered: Sequence[RegisteredName] = ()
        self._names: tuple[str, ...] = settings.models or ()
        self._following = asyncio.get_running_loop().create_task(self._follow())

    def _handle(self, deployment: str) -> DeploymentHandle:
        return serve.get_deployment_handle(deployment, self._app)

    async def _follow(self) -> None:
        while True:
            if self._settings.models is None:
                try:
                    await self._list()
                except Exception as error:
                    log.info("registered models cannot be listed yet: %s", error)
            for reference in dict.fromkeys((*self._names, *self._settings.followed)):
                try:
                    await self._convergence.step(reference)
                except Exception as error:
                    log.info("rollout of %s waits: %s", reference, error)
            await asyncio.sleep(self._settings.poll_s if self._convergence.serving else min(1.0, self._settings.poll_s))

    async def _list(self) -> None:
        """Takes up names that were registered or got the alias, and tells every Gateway."""
        self._registered = await _in_time(registered_names)
        self._names = await self._convergence.names(self._registered)
        await self._handle("Gateway").broadcast("follow", self._names).results_async()

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
            return await _in_time(look_up, reference)
        except asyncio.TimeoutError:
            return Missing("the model registry does not answer", outage=True)

    async def registered(self) -> list[str]:
        """Every registered name, as of the last look."""
        return [model.name for model in self._registered]

    async def serving(self) -> dict[str, Release]:
        """The releases that every replica should answer with, by reference; names in order of preference first."""
        serving = self._convergence.serving
        return {reference: serving[reference] for reference in (*self._names, *serving) if reference in serving}

    async def trouble(self) -> dict[str, str]:
        """Why the registry's version of a reference is not served, by reference."""
        return dict(self._convergence.trouble)

    async def models(self) -> list[dict[str, Any]] | Missing:
        """Rows of `GET /v1/models`, newest first."""
        try:
            return await _in_time(self._models)
        except (ShoplensError, MlflowException, asyncio.TimeoutError) as error:
            return Missing(str(error), outage=True)

    def _models(self) -> list[dict[str, Any]]:
        active = {release.version for release in self._convergence.serving.values()}
        names = self._settings.models
        found = {model.name: model for model in registered_names()}
        return [
            row for name in (found if names is None else names) if name in found for row in _rows(found[name], active)
        ]

    def check_health(self) -> None:
        if self._following.done():
            raise RuntimeError("the poller has stopped")


def _rows(model: RegisteredName, active: set[str]) -> list[dict[str, Any]]:
    """Rows of `GET /v1/models` for one name, newest first; blocking."""
    versions = client().search_model_versions(f"name='{model.name}'")
    return [
        {
            "id": f"{model.name}/{found.version}",
            "object": "model",
            "created": int(found.creation_timestamp) // 1000,
            "owned_by": "shoplens",
            "aliases": sorted(alias for alias, at in model.aliases.items() if str(at) == str(found.version)),
            "active": f"{model.name}/{found.version}" in active,
            "capabilities": list(capabilities_of(found.tags)),
        }
        for found in sorted(versions, key=lambda version: -int(version.version))
    ]


async def _in_time(function: Callable[..., T], *arguments: Any) -> T:
    """Runs a blocking call of the registry. Raises asyncio.TimeoutError."""
    return await asyncio.wait_for(asyncio.to_thread(function, *arguments), REGISTRY_DEADLINE_S)
