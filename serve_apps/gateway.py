"""The deployment that HTTP reaches: resolves the version, decodes photos, asks the model, searches."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from fastapi import FastAPI
from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle

from serve_apps.api import build
from serve_apps.catalogue import Catalogue
from serve_apps.encoded import Encoded, Prepared
from serve_apps.event_writer import EventWriter
from serve_apps.http.errors import ApiError, bad_request, not_found, unavailable
from serve_apps.photos import UNPROCESSABLE, Photos
from serve_apps.protocol import Input, Photo, ProductRef, Text
from serve_apps.release import Missing, Release
from serve_apps.settings import Settings
from serve_apps.versions import Versions
from shoplens.errors import ShoplensError
from shoplens.packages.ranking import Query
from shoplens.schema import TopicText
from shoplens.search.index import UnknownProduct

log = logging.getLogger("ray.serve")

T = TypeVar("T")

HEALTH_DEADLINE_S = 30.0
AT_ONCE = 256
"""Photos that are sent to the model in one call."""
_REFERENCE = re.compile(r"(?P<name>[^@/]+)(?:@(?P<alias>.+)|/(?P<version>\d+))?")


@dataclass(frozen=True)
class Served:
    """Everything of one release that a request needs; model, attribute heads and index belong together."""

    release: Release
    model: Prepared
    catalogue: Catalogue | None

    @property
    def version(self) -> str:
        return self.release.version


class Gateway:
    """One object a replica, shared by all its requests; everything runs in its event loop or its threads."""

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
        self._resolved: dict[str, tuple[float, Release | Missing]] = {}
        await self._catch_up()

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build(self)

    async def _catch_up(self) -> None:
        """A replica that joins a service which already answers loads its releases before taking requests."""
        try:
            for reference, release in (await asyncio.wait_for(self._rollout.serving.remote(), 30)).items():
                await self.prepare(release)
                self.activate(release, reference)
        except Exception:
            log.exception("the Gateway starts without a model; the rollout will load it")

    async def prepare(self, release: Release) -> None:
        """Loads the release beside what is there. Raises ShoplensError if model and index do not fit."""
        await self._versions.get(release)

    def activate(self, release: Release, reference: str | None = None) -> None:
        """The pointer swap: requests for `reference` (None: its name) that begin from here on get `release`."""
        self._active[reference or release.name] = release
        self._versions.pinned = frozenset(self._active.values())

    def serving(self) -> dict[str, Release]:
        return dict(self._active)

    async def _load(self, release: Release) -> Served:
        model: Prepared = await self._encoder.prepare.remote(release.version)
        if release.index is None or not self.settings.search:
            return Served(release, model, None)
        return Served(
            release, model, await asyncio.to_thread(Catalogue, release, model.dim, self.settings.same_product)
        )

    async def served(self, reference: str | None = None, *, search: bool = False) -> Served:
        """The release that answers a request for `reference` (None: the champion of the first model).

        Raises ApiError 404 if there is none, 503 if nothing is promoted yet.
        """
        name, _, _ = parts = self._parts(reference or self.settings.models[0])
        release = self._current(*parts) or await self._resolve(*parts)
        try:
            served = await self._versions.get(release)
        except ShoplensError as error:
            reason = str(getattr(error, "cause", error))
            raise unavailable("model_not_loadable", f"{release.version} cannot be loaded: {reason}") from error
        if search and served.catalogue is None:
            raise not_found(
                "no_index", f"{served.version} has no index; {name} without a version is searchable", "model"
            )
        return served

    def ready(self, reference: str) -> Served | None:
        """The release that is in use for one of `settings.followed`; None if there is none yet."""
        release = self._active.get(reference)
        return None if release is None else self._versions.peek(release)

    def catalogue(self, digest: str, image_id: str) -> Catalogue:
        """A shop whose dataset's digest begins so, among those in memory: one that shows the photo, if any does.

        Raises ApiError 404.
        """
        catalogues = [served.catalogue for served in self._versions if served.catalogue is not None]
        found = [catalogue for catalogue in catalogues if catalogue.digest == digest]
        if not found:
            raise not_found("dataset_not_found", f"no dataset {digest} is served now", "dataset")
        return next((catalogue for catalogue in found if catalogue.has_photo(image_id)), found[0])

    def _parts(self, reference: str) -> tuple[str, str | None, int | None]:
        match = _REFERENCE.fullmatch(reference)
        if match is None or match["name"] not in self.settings.models:
            known = ", ".join(self.settings.models)
            raise not_found(
                "model_not_found", f"no model {reference[:100]!r} is served here; there is {known}", "model"
            )
        version = match["version"]
        return match["name"], match["alias"], None if version is None else int(version)

    def _current(self, name: str, alias: str | None, version: int | None) -> Release | None:
        if version is None:
            return self._active.get(self.settings.canonical(name if alias is None else f"{name}@{alias}"))
        return next((active for active in self._active.values() if active.version == f"{name}/{version}"), None)

    async def _resolve(self, name: str, alias: str | None, version: int | None) -> Release:
        if version is None and alias in (None, self.settings.alias):
            trouble = (await self._rollout.trouble.remote()).get(name)
            advice = f"register a model and run `shoplens promote {name} VERSION --alias {self.settings.alias}`"
            raise unavailable("no_champion", f"nothing is served as {name} yet: {trouble or advice}", 10)
        reference = f"{name}@{alias}" if version is None else f"{name}/{version}"
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

    async def models(self) -> list[dict[str, Any]]:
        found = await self._rollout.models.remote()
        if isinstance(found, Missing):
            raise unavailable("registry_unavailable", f"models cannot be listed: {found.reason}")
        return found

    async def embed(self, served: Served, inputs: Sequence[Input]) -> tuple[np.ndarray, int]:
        """Unit vectors float32 [n, d] in the order of `inputs`, and the tokens of the texts.

        A product's vector is the one the index holds. Raises ApiError naming the first input at fault.
        """
        self._within_limits(inputs)
        rows, tokens = await self.embed_each(served, inputs, all_or_none=True)
        _raise_first(rows)
        return np.stack(rows), tokens  # type: ignore[arg-type]

    async def embed_each(
        self, served: Served, inputs: Sequence[Input], *, all_or_none: bool = False
    ) -> tuple[list[np.ndarray | ApiError], int]:
        """As `embed`, with what is wrong with an input in its place.

        `all_or_none` raises it instead, before the model is asked, if it is seen that early.
        """
        rows: list[np.ndarray | ApiError] = [np.empty(0)] * len(inputs)
        texts = [(i, item) for i, item in enumerate(inputs) if isinstance(item, Text)]
        photos = [(i, item) for i, item in enumerate(inputs) if isinstance(item, Photo)]
        for i, item in enumerate(inputs):
            if isinstance(item, ProductRef):
                try:
                    rows[i] = self._product_vector(served, item)
                except ApiError as error:
                    rows[i] = error
        decoded = await self.photos.pixels([item for _, item in photos], served.model.preprocessing)
        good = []
        for (i, item), pixels in zip(photos, decoded, strict=True):
            if isinstance(pixels, ApiError):
                rows[i] = pixels
            else:
                good.append((i, item, pixels))
        if all_or_none:
            _raise_first(rows)
        tokens = 0
        for start in range(0, max(len(good), 1), AT_ONCE):
            part, said = good[start : start + AT_ONCE], [] if start else texts
            if not (part or said):
                break
            together = np.stack([pixels for *_, pixels in part]) if part else None
            encoded = await self._encode(served.version, [item.text for _, item in said], together)
            tokens += encoded.tokens
            places: list[tuple[int, str]] = [(i, item.place) for i, item in said]
            places += [(i, item.place) for i, item, _ in part]
            faults = {**encoded.text_faults, **{len(said) + at: fault for at, fault in encoded.image_faults.items()}}
            for at, ((i, place), vector) in enumerate(zip(places, [*encoded.texts, *encoded.images], strict=True)):
                rows[i] = ApiError(UNPROCESSABLE, "not_encodable", faults[at], place) if at in faults else vector
        return rows, tokens

    async def ranker(self, reference: str | None) -> Served:
        """The release that ranks for `reference` (None: the first model in use that ranks).

        Raises ApiError 404 if it does not rank, 503 if there is none.
        """
        if reference is not None:
            served = await self.served(reference)
            if not served.model.ranks:
                raise not_found("not_a_ranker", f"{served.version} ranks nothing for topics", "model")
            return served
        name = await self.first_ranker()
        if name is not None:
            return await self.served(name)
        advice = "promote a CLIK model and name it under `models:` in the cluster file"
        raise unavailable("no_ranker", f"no model that ranks for topics is served: {advice}")

    async def first_ranker(self) -> str | None:
        """The first model in use that ranks for topics."""
        for name in filter(self._active.__contains__, self.settings.models):
            if (await self.served(name)).model.ranks:
                return name
        return None

    async def query(self, served: Served, topic: TopicText) -> Query:
        """The topic and the query of it, unit rows [1, d], of a release that ranks."""
        return await self._asked(lambda: self._encoder.query.remote(served.version, topic))

    def _within_limits(self, inputs: Sequence[Input]) -> None:
        limits = self.settings.limits
        if len(inputs) > limits.inputs:
            raise bad_request("too_many_inputs", f"{len(inputs)} inputs; at most {limits.inputs} at a time", "input")
        for item in inputs:
            if not isinstance(item, Text):
                continue
            if not item.text.strip():
                raise bad_request("empty_text", "the text is empty", item.place)
            if len(item.text) > limits.text_chars:
                message = f"the text has {len(item.text)} characters; at most {limits.text_chars} are taken"
                raise bad_request("text_too_long", message, item.place)

    def _product_vector(self, served: Served, item: ProductRef) -> np.ndarray:
        if served.catalogue is None:
            raise not_found("no_index", f"{served.version} has no index to find products in", item.place)
        try:
            return served.catalogue.index.vector_of(item.product_id)
        except UnknownProduct as error:
            raise not_found("product_not_found", str(error)[:300], item.place) from None

    async def _encode(self, version: str, texts: Sequence[str], pixels: np.ndarray | None) -> Encoded:
        return await self._asked(lambda: self._encoder.encode.remote(version, texts, pixels))

    async def _asked(self, ask: Callable[[], Any]) -> Any:
        """Asks again, once, when the replica at work was lost."""
        deadline = self.settings.limits.deadline_s
        for last in (False, True):
            response = ask()
            try:
                return await asyncio.wait_for(response, deadline)
            except asyncio.TimeoutError:
                response.cancel()
                raise unavailable("deadline", f"the model did not answer within {deadline:g} s") from None
            except RayActorError:
                if last:
                    raise
        raise AssertionError

    async def pulse(self) -> None:
        """Raises ApiError 503 unless a sentinel comes back through the queue that requests go through."""
        try:
            await asyncio.wait_for(self._encoder.pulse.remote(), HEALTH_DEADLINE_S)
        except Exception as error:
            log.warning("the model does not answer the health check: %s", error)
            raise unavailable("model_stuck", "the model does not answer") from error

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def _raise_first(rows: Sequence[np.ndarray | ApiError]) -> None:
    for row in rows:
        if isinstance(row, ApiError):
            raise row
