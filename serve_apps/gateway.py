"""The Gateway: the deployment behind HTTP. It chooses the release that answers and calls the model."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle

from serve_apps import references
from serve_apps.catalogue import Catalogue
from serve_apps.encoded import Fault, Prepared, lacks
from serve_apps.event_writer import EventWriter
from serve_apps.gathering import Gatherer
from serve_apps.http.errors import ApiError, not_found, unavailable
from serve_apps.photos import Photos
from serve_apps.references import Reference
from serve_apps.release import Missing, Release
from serve_apps.settings import Settings
from serve_apps.versions import Versions
from shoplens.errors import ShoplensError
from shoplens.packages.capabilities import Capability

log = logging.getLogger("ray.serve")

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")

HEALTH_DEADLINE_S = 30.0
AT_ONCE = 256
"""Most items in one call of the Encoder."""
NOTHING_YET_RETRY_S = 10


@dataclass(frozen=True)
class Served:
    """All parts of one release that a request needs; model, attribute heads and index belong together."""

    release: Release
    model: Prepared
    catalogue: Catalogue | None
    calls: dict[str, Gatherer[Any, Any]] = field(default_factory=dict, compare=False, repr=False)
    """What gathers the calls of the model, by capability."""

    @property
    def version(self) -> str:
        return self.release.version

    def can(self, *capabilities: Capability[Any, Any]) -> bool:
        return all(map(self.model.can, capabilities))

    def lacks(self, capability: Capability[Any, Any]) -> str:
        """The sentence for a request that needs a capability which this model does not have."""
        return lacks(self.version, self.model.capabilities, capability)


@dataclass(frozen=True)
class Needs:
    """Requirements of a request on the release that answers it, and the error codes if there is no such release.

    capabilities   all that the model must have
    index          whether a shop must be searched or shown
    named          404 code if the model named in the request lacks a capability; None: the endpoint reports it itself
    unnamed        503 code if no model in use has them; None: the first model in use answers
    """

    capabilities: tuple[Capability[Any, Any], ...] = ()
    index: bool = False
    named: str | None = None
    unnamed: str | None = None

    def met_by(self, served: Served) -> bool:
        return served.can(*self.capabilities) and not (self.index and served.catalogue is None)


class Gateway:
    """One object for each replica, shared by all its requests. It runs in the replica's event loop and in threads."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, settings: Settings, encoder: DeploymentHandle, rollout: DeploymentHandle
    ) -> None:
        self.settings = settings
        self.photos = Photos(settings)
        self.events = EventWriter(settings)
        self._encoder, self._rollout = encoder, rollout
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="search")
        self._versions: Versions[Release, Served] = Versions(self._load, settings.versions_kept)
        self._active: dict[str, Release] = {}
        self._names: tuple[str, ...] = settings.models or ()
        self._resolved: dict[str, tuple[float, Release | Missing]] = {}
        await self._catch_up()

    async def _catch_up(self) -> None:
        """A replica that joins a running service loads the served releases before it takes requests."""
        try:
            for reference, release in (await asyncio.wait_for(self._rollout.serving.remote(), 30)).items():
                await self.prepare(release)
                self.activate(release, reference)
        except Exception:
            log.exception("the Gateway starts without a model; the rollout will load it")

    async def prepare(self, release: Release) -> None:
        """Loads the release beside the others. Raises ShoplensError if model and index do not fit."""
        await self._versions.get(release)

    def activate(self, release: Release, reference: str | None = None) -> None:
        """Swaps the pointer: requests for `reference` (None: its name) that begin from here on get `release`."""
        self._active[reference or release.name] = release
        self._versions.pinned = frozenset(self._active.values())

    def follow(self, names: tuple[str, ...]) -> None:
        """Takes over the names to serve, in order of preference, if the settings leave them open."""
        self._names = self.settings.models or names

    def serving(self) -> dict[str, Release]:
        return dict(self._active)

    @property
    def names(self) -> tuple[str, ...]:
        """Names that are served or will be, in order of preference."""
        active = () if self.settings.models else (name for name in self._active if references.name_of(name) == name)
        return tuple(dict.fromkeys((*self._names, *active)))

    async def _load(self, release: Release) -> Served:
        model: Prepared = await self._encoder.prepare.remote(release.version)
        if release.index is None or model.dim is None or not self.settings.search:
            return Served(release, model, None)
        return Served(
            release, model, await asyncio.to_thread(Catalogue, release, model.dim, self.settings.same_product)
        )

    async def served(self, reference: str | None = None, needs: Needs = Needs()) -> Served:
        """The release that answers a request for `reference`; None: the first in use that meets the needs.

        Raises ApiError 404 if there is no such model or it does not meet the needs, 503 if none is in use yet.
        """
        if reference is None:
            return await self._first(needs)
        parts = await self._known(reference)
        served = await self._loaded(self._current(parts) or await self._resolve(parts))
        for capability in needs.capabilities if needs.named else ():
            if not served.can(capability):
                assert needs.named is not None
                raise not_found(needs.named, served.lacks(capability), "model")
        if needs.index and served.catalogue is None:
            raise _no_index(served)
        return served

    async def _first(self, needs: Needs) -> Served:
        found = [served async for served in self._in_use()]
        for served in found:
            if needs.met_by(served):
                return served
        if needs.unnamed is not None:
            titles = " and ".join(capability.title for capability in needs.capabilities)
            raise unavailable(needs.unnamed, f"no model in use does {titles}: promote a model that does")
        if not found:
            name = next(iter(self.names), "NAME")
            trouble = (await self._rollout.trouble.remote()).get(name)
            raise self._nothing_yet(name, trouble)
        if not needs.index:
            return found[0]
        for served in found:
            if served.catalogue is not None:
                return served
        raise _no_index(found[0])

    async def first(self, *capabilities: Capability[Any, Any]) -> Served | None:
        """The first release in use that has the capabilities."""
        needs = Needs(capabilities)
        async for served in self._in_use():
            if needs.met_by(served):
                return served
        return None

    async def _in_use(self) -> AsyncIterator[Served]:
        """The releases that names stand for, in order of preference."""
        for name in self.names:
            release = self._active.get(name)
            if release is not None:
                yield await self._loaded(release)

    async def _loaded(self, release: Release) -> Served:
        """Raises ApiError 503."""
        try:
            return await self._versions.get(release)
        except ShoplensError as error:
            reason = str(getattr(error, "cause", error))
            raise unavailable("model_not_loadable", f"{release.version} cannot be loaded: {reason}") from error

    def ready(self, reference: str) -> Served | None:
        """The release that is in use for one of the followed references; None if there is none yet."""
        release = self._active.get(reference)
        return None if release is None else self._versions.peek(release)

    def catalogue(self, digest: str, image_id: str) -> Catalogue:
        """A loaded shop whose dataset digest begins with `digest`; if possible one that shows the photo.

        Raises ApiError 404.
        """
        catalogues = [served.catalogue for served in self._versions if served.catalogue is not None]
        found = [catalogue for catalogue in catalogues if catalogue.digest == digest]
        if not found:
            raise not_found("dataset_not_found", f"no dataset {digest} is served now", "dataset")
        return next((catalogue for catalogue in found if catalogue.has_photo(image_id)), found[0])

    async def _known(self, reference: str) -> Reference:
        """The parts of a reference whose name is served. Raises ApiError 404, or 503 if nothing is served at all."""
        parts = references.read(reference)
        if parts is not None and parts.name in self.names:
            return parts
        if parts is not None and self.settings.models is None:
            registered: Sequence[str] = await self._rollout.registered.remote()
            if parts.name in registered:
                return parts
            if not self.names:
                raise self._nothing_yet(parts.name, None)
        known = ", ".join(self.names) or "none yet"
        raise not_found("model_not_found", f"no model {reference[:100]!r} is served here; there is {known}", "model")

    def _current(self, parts: Reference) -> Release | None:
        if parts.version is None:
            return self._active.get(self.settings.canonical(str(parts)))
        return next((active for active in self._active.values() if active.version == str(parts)), None)

    async def _resolve(self, parts: Reference) -> Release:
        if parts.version is None and parts.alias in (None, self.settings.alias):
            trouble = (await self._rollout.trouble.remote()).get(parts.name)
            raise self._nothing_yet(parts.name, trouble)
        reference = str(parts)
        until, found = self._resolved.get(reference, (0.0, Missing("")))
        if until < time.monotonic():
            found = await self._rollout.resolve.remote(reference)
            if len(self._resolved) >= 1000:
                self._resolved.clear()
            self._resolved[reference] = time.monotonic() + self.settings.poll_s, found
        if isinstance(found, Missing):
            if found.outage:
                raise unavailable("registry_unavailable", f"{reference} cannot be looked up: {found.reason}")
            raise not_found("model_not_found", found.reason, "model")
        return found

    def _nothing_yet(self, name: str, trouble: str | None) -> ApiError:
        advice = f"register a model and run `shoplens promote {name} VERSION --alias {self.settings.alias}`"
        what = f"nothing is served as {name} yet: {trouble or advice}"
        return unavailable("no_champion", what, NOTHING_YET_RETRY_S)

    async def models(self) -> list[dict[str, Any]]:
        """Rows of `GET /v1/models`. Raises ApiError 503."""
        found = await self._rollout.models.remote()
        if isinstance(found, Missing):
            raise unavailable("registry_unavailable", f"models cannot be listed: {found.reason}")
        loaded = {
            served.version: {"capabilities": list(served.model.capabilities), "precision": served.model.precision}
            for served in self._versions
        }
        return [{"precision": None, **row, **loaded.get(row["id"], {})} for row in found]

    async def call(
        self, served: Served, capability: Capability[Item, Result], items: Sequence[Item]
    ) -> list[Result | Fault]:
        """One result or Fault for each item. Raises ApiError 503 if the model does not answer in time."""
        gatherer = served.calls.get(capability.name)
        if gatherer is None:
            gatherer = served.calls[capability.name] = Gatherer(
                partial(self._asked, served.version, capability),
                at_once=self.settings.batching.calls,
                max_size=AT_ONCE,
            )
        deadline = self.settings.limits.deadline_s
        parts = [items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE)]
        try:
            return [result for part in parts for result in await asyncio.wait_for(gatherer.submit(part), deadline)]
        except asyncio.TimeoutError:
            raise unavailable("deadline", f"the model did not answer within {deadline:g} s") from None

    async def _asked(self, version: str, capability: Capability[Any, Any], items: list[Any]) -> list[Any]:
        """Asks a second time if the replica at work was lost."""
        asked: Any = np.stack(items) if capability.takes == ("image",) else items
        deadline = self.settings.limits.deadline_s
        for last in (False, True):
            response = self._encoder.call.remote(version, capability.name, asked)
            try:
                return await asyncio.wait_for(response, deadline)
            except asyncio.TimeoutError:
                response.cancel()
                raise
            except RayActorError:
                if last:
                    raise
        raise AssertionError

    async def pulse(self) -> None:
        """Raises ApiError 503 unless a sample comes back through the queue of each active model."""
        try:
            await asyncio.wait_for(self._encoder.pulse.remote(), HEALTH_DEADLINE_S)
        except Exception as error:
            log.warning("the model does not answer the health check: %s", error)
            raise unavailable("model_stuck", "the model does not answer") from error

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def _no_index(served: Served) -> ApiError:
    name = served.release.name
    message = f"{served.version} has no index; {name} without a version is searchable"
    return not_found("no_index", message, "model")
