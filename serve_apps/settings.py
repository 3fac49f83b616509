"""What the cluster file may say about the application, under `args:`."""

from __future__ import annotations

import os
import re
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from serve_apps.protocol import ModelRef
from shoplens.config import Config
from shoplens.experiments.assignment import Arm, Assignment
from shoplens.experiments.event_log import Sealing
from shoplens.schema import Identifier
from shoplens.search.rules import SameProduct

Positive = Annotated[int, Field(ge=1)]


class Limits(Config):
    """What one request, and all requests at a time, may cost."""

    body_bytes: Positive = 64 * 2**20
    inputs: Positive = 256
    candidates: Positive = Field(default=1000, description="photos that one request may have ranked")
    text_chars: Positive = 8192
    requests: Positive = Field(default=256, description="requests a Gateway works on at a time; more are answered 503")
    bytes_in_flight: Positive = Field(default=512 * 2**20, description="request bodies a Gateway holds at a time")
    deadline_s: float = Field(default=50, gt=0, description="longest wait for the model before 503")
    body_deadline_s: float = Field(default=30, gt=0, description="longest wait for a request body before 408")


class Batching(Config):
    """Largest batch given to the model, and how long the first item of a batch waits for others."""

    images: Positive = 32
    texts: Positive = 128
    wait_s: float = Field(default=0.002, ge=0)


class ServedArm(Arm):
    model: ModelRef = Field(description="answers the users of the arm: `similar@challenger`, `eclip`, `eclip/3`")


class Experiment(Assignment):
    """What runs now. A new experiment takes a new name and a new salt."""

    name: Identifier
    arms: tuple[ServedArm, ...] = Field(min_length=1, max_length=64)


class Settings(Config):
    """Arguments of `serve_apps.shop:app`."""

    models: tuple[str, ...] = Field(("eclip",), min_length=1, description="registered names; the first is the default")
    alias: str = "champion"
    search: bool = Field(True, description="offer /v1/similar, /v1/products, /v1/images, /v1/categories")
    page: bool = Field(True, description="offer the page at /")
    tracking_uri: str | None = Field(None, description="MLflow server; None: MLFLOW_TRACKING_URI")
    poll_s: float = Field(5, gt=0, description="how often the alias is looked up")
    versions_kept: Positive = Field(3, description="versions of all models kept in memory")
    image_hosts: tuple[str, ...] = Field((), description="hosts from which image URLs are fetched; none by default")
    private_hosts: bool = Field(False, description="let `image_hosts` resolve to private addresses")
    decode_threads: Positive = 2
    device: str = Field("auto", description="torch device of the Encoder; `auto` takes a GPU where there is one")
    torch_threads: Positive | None = Field(None, description="CPU threads of the model; None leaves it to Ray")
    cache: str | None = Field(None, description="folder for downloaded packages; None: SHOPLENS_STORAGE/cache")
    same_product: SameProduct = Field(SameProduct(), description="what makes listings one product in /v1/similar")
    experiment: Experiment | None = Field(None, description="whose arms answer the users of /v1/similar")
    events: str | None = Field(None, description="root of the event log; None: SHOPLENS_STORAGE/events")
    sealing: Sealing = Sealing()
    limits: Limits = Limits()
    batching: Batching = Batching()

    @field_validator("events")
    @classmethod
    def _is_a_folder(cls, events: str | None) -> str | None:
        if events is not None and not os.path.isabs(events):
            raise ValueError("the event log needs a folder of a file system, by its absolute path")
        return events

    @model_validator(mode="after")
    def _arms_can_answer(self) -> Settings:
        if self.experiment is None:
            return self
        if not self.search:
            raise ValueError("an experiment is about /v1/similar: it needs `search: true`")
        for arm in self.experiment.arms:
            if (name := re.split("[@/]", arm.model)[0]) not in self.models:
                raise ValueError(
                    f"the arm {arm.name!r} is answered by {arm.model!r}, but {name!r} is not among `models:` "
                    f"({', '.join(self.models)})"
                )
        return self

    @property
    def followed(self) -> tuple[str, ...]:
        """References that every replica keeps ready: the models, and what else answers arms."""
        arms = () if self.experiment is None else self.experiment.arms
        return tuple(dict.fromkeys((*self.models, *(self.canonical(arm.model) for arm in arms if arm.share))))

    def canonical(self, reference: str) -> str:
        """`eclip@champion` -> `eclip` where `champion` is the alias that models are served by."""
        return reference.removesuffix(f"@{self.alias}")

    def choose_registry(self) -> None:
        """Points this process at `tracking_uri`; MLflow reads it from the environment."""
        if self.tracking_uri is not None:
            os.environ["MLFLOW_TRACKING_URI"] = self.tracking_uri

    def cache_dir(self) -> str:
        if self.cache is not None:
            return self.cache
        return _in_storage("cache") or os.path.join(os.path.expanduser("~"), ".cache", "shoplens")

    def events_dir(self) -> str | None:
        """None where events cannot be logged: the storage is no folder, and `events` names none."""
        return self.events or _in_storage("events")


def _in_storage(name: str) -> str | None:
    storage = os.environ.get("SHOPLENS_STORAGE", "")
    return os.path.join(storage, name) if storage and "://" not in storage else None
