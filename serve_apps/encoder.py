"""The Encoder: the deployment that holds loaded versions and runs them in batches over requests."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import ray
import torch
from ray.serve.handle import DeploymentHandle

from serve_apps.batcher import Batcher, identity
from serve_apps.encoded import Fault, Prepared, lacks
from serve_apps.settings import Batching, Settings
from serve_apps.versions import Versions
from shoplens.errors import ShoplensError
from shoplens.packages import capabilities
from shoplens.packages.model import PackagedModel
from shoplens.packages.precision import Precision, Runner, choose
from shoplens.registry import versions as packages

log = logging.getLogger("ray.serve")

STUCK_AFTER_S = 20.0
"""A model is stuck if a health check waits this long and no batch finishes meanwhile."""


class Model:
    """A loaded version with one queue for each of its capabilities. All queues share one compute thread."""

    def __init__(
        self,
        loaded: PackagedModel,
        batching: Batching,
        compute: ThreadPoolExecutor,
        prepared: Prepared | None = None,
        runner: Runner | None = None,
    ) -> None:
        """`runner` is what computes; None: `loaded` in float32."""
        self.loaded = loaded
        runner = runner or Runner(loaded, "float32")
        self.prepared = prepared
        self._queues: dict[str, Batcher[Any, Any]] = {
            capability.name: Batcher(
                partial(runner.call, capability),
                compute,
                max_size=batching.images if "image" in capability.takes else batching.texts,
                wait_s=batching.wait_s,
                key=identity,
            )
            for capability in loaded.can
            if capability.call is not None
        }

    @property
    def batches(self) -> int:
        return sum(queue.batches for queue in self._queues.values())

    async def call(self, capability: str, items: Sequence[Any]) -> list[Any]:
        """One result or Fault for each item. Raises ShoplensError if the model lacks the capability."""
        if capability not in self._queues:
            known = tuple(known.name for known in self.loaded.can)
            raise ShoplensError(lacks(self.loaded.name, known, capabilities.named(capability)))
        results = await self._queues[capability].submit(items)
        return [_fault(result) if isinstance(result, BaseException) else result for result in results]

    async def beat(self) -> None:
        """Sends a sample through the queue of the first capability. Raises RuntimeError if the model fails on it."""
        for capability in self.loaded.can:
            if capability.call is None:
                continue
            [result] = await self.call(capability.name, capability.samples(self.loaded)[:1])
            if isinstance(result, Fault):
                raise RuntimeError(f"the model cannot answer its sample of {capability}: {result.message}")
            return


def _fault(error: BaseException) -> Fault:
    if isinstance(error, ShoplensError):
        return Fault(str(error))
    log.warning("the model failed on an item: %s: %s", type(error).__name__, error)
    return Fault(f"the model cannot encode it ({type(error).__name__})")


def cores(reserved: float) -> int:
    """Threads for a model: the CPUs that Ray reserves for the process, or all cores if it reserves less than one."""
    return int(reserved) or int(joblib.cpu_count(only_physical_cores=True))


def _reserved_cpus() -> float:
    """CPUs that Ray reserves for this actor; 0 outside of one."""
    if not ray.is_initialized() or ray.get_runtime_context().get_actor_id() is None:
        return 0
    return float(ray.get_runtime_context().get_assigned_resources().get("CPU", 0))


def prepared(folder: Path, loaded: PackagedModel, precision: Precision = "float32") -> Prepared:
    """The facts of a loaded package that a Gateway needs."""
    evaluation = json.loads((folder / "config.json").read_text()).get("evaluation", {})
    return Prepared(
        tuple(capability.name for capability in loaded.can),
        loaded.preprocessing,
        loaded.dim,
        loaded.cosine_scale,
        loaded.extractor,
        evaluation.get("attribute_prompt", "{value}"),
        precision,
    )


class Encoder:
    """Answers `call` for any registered version; Rollout calls `prepare` and `activate`."""

    async def __init__(self, settings: Settings, rollout: DeploymentHandle) -> None:  # type: ignore[misc]  # Serve awaits it
        self._settings = settings
        settings.choose_registry()
        self._device = settings.device
        if self._device == "auto":
            self._device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.set_num_threads(settings.torch_threads or cores(_reserved_cpus()))
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._models: Versions[str, Model] = Versions(self._load, settings.versions_kept)
        self._active: dict[str, str] = {}
        self._pulse: asyncio.Task[None] | None = None
        await self._catch_up(rollout)

    async def _catch_up(self, rollout: DeploymentHandle) -> None:
        """A replica that joins a running service loads the served versions before it takes requests."""
        try:
            releases = await asyncio.wait_for(rollout.serving.remote(), 30)
            for reference, release in releases.items():
                await self.prepare(release.version)
                self.activate(reference, release.version)
        except Exception:
            log.exception("the Encoder starts without a model; the rollout will load it")

    async def _load(self, version: str) -> Model:
        runner, prepared = await asyncio.to_thread(self._load_blocking, version)
        return Model(runner.model, self._settings.batching, self._compute, prepared, runner)

    def _load_blocking(self, version: str) -> tuple[Runner, Prepared]:
        folder = packages.download(packages.resolve(version), self._settings.cache_dir())
        loaded = PackagedModel.load(folder).to(self._device)
        runner = choose(loaded, self._settings.precision, self._settings.least_cosine)
        log.info("loaded %s on %s in %s, %d threads", version, self._device, runner.precision, torch.get_num_threads())
        return runner, prepared(folder, runner.model, runner.precision)

    async def prepare(self, version: str) -> Prepared:
        """Loads `version` beside the others and checks it. Raises ShoplensError if it is not fit to serve."""
        found = (await self._models.get(version)).prepared
        assert found is not None
        return found

    def activate(self, reference: str, version: str) -> None:
        """Keeps `version` in memory as the version in use for `reference`."""
        self._active[reference] = version
        self._models.pinned = frozenset(self._active.values())

    async def call(self, version: str, capability: str, items: Sequence[Any]) -> list[Any]:
        """One result or Fault for each item. Photos are preprocessed for `version`.

        A capability that takes only an image gets its photos as one array uint8 [n, 3, size, size].
        """
        return await (await self._models.get(version)).call(capability, items)

    async def pulse(self) -> None:
        """Sends a sample of every active version through its queue.

        Raises RuntimeError if the sample does not come back and no batch has finished meanwhile. A long queue is
        healthy, a stuck one is not.
        """
        if self._pulse is None or self._pulse.done():
            self._pulse = asyncio.get_running_loop().create_task(self._beat())
        await asyncio.shield(self._pulse)

    async def _beat(self) -> None:
        for version in set(self._active.values()):  # a copy: a version may be activated meanwhile
            model = self._models.peek(version)
            if model is None:
                continue
            before = self._batches()
            try:
                await asyncio.wait_for(model.beat(), STUCK_AFTER_S)
            except asyncio.TimeoutError:
                if self._batches() == before:
                    raise RuntimeError(f"{version} has finished no batch for {STUCK_AFTER_S:.0f} s") from None

    def _batches(self) -> int:
        return sum(model.batches for model in self._models)

    async def check_health(self) -> None:
        await self.pulse()
