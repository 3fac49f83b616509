"""Settings of the application: the `args:` of `serve_apps.shop:app` in a cluster file."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from serve_apps.references import ModelRef, name_of
from shoplens.config import Config
from shoplens.experiments.assignment import Arm, Assignment
from shoplens.experiments.event_log import Sealing
from shoplens.schema import Identifier
from shoplens.search.rules import SameProduct

Positive = Annotated[int, Field(ge=1)]


class Limits(Config):
    """Bounds on one request, and on all requests that one Gateway works on at the same time."""

    body_bytes: Positive = Field(default=64 * 2**20, description="largest request body, bytes; larger ones get 413")
    inputs: Positive = Field(
        default=2048, description="most texts, photos and products in one request; the model gets 256 at a time"
    )
    candidates: Positive = Field(default=1000, description="most photos that one request may rank")
    text_chars: Positive = Field(default=8192, description="longest text, characters")
    requests: Positive = Field(
        default=256, description="most requests that a Gateway works on at the same time; further ones get 503"
    )
    bytes_in_flight: Positive = Field(
        default=512 * 2**20, description="most bytes of request bodies that a Gateway holds; further requests get 503"
    )
    deadline_s: float = Field(
        default=50, gt=0, description="longest wait for the model's answer to 256 inputs, seconds; then 503"
    )
    body_deadline_s: float = Field(default=30, gt=0, description="longest wait for a request body, seconds; then 408")


class Batching(Config):
    """Batches that the Encoder gives to a model. Items of many requests share a batch."""

    images: Positive = Field(default=32, description="largest batch of items with a photo")
    texts: Positive = Field(default=128, description="largest batch of items without a photo")
    calls: Positive = Field(
        default=4,
        description="most calls of the Encoder that a Gateway has open for one capability of a model; what arrives "
        "meanwhile shares the next call. Give more where there are more replicas of the Encoder than of the Gateway",
    )
    wait_s: float = Field(
        default=0.002, ge=0, description="longest time that the first item of a batch waits for others, seconds"
    )


class ServedArm(Arm):
    """An arm of an experiment, and the model that answers its users."""

    model: ModelRef = Field(
        description="the model that answers the users of the arm: `similar@challenger`, `eclip`, `eclip/3`"
    )


class Experiment(Assignment):
    """The experiment that runs now. Give a new experiment a new name and a new salt."""

    name: Identifier = Field(description="name of the experiment in answers and in the event log")
    arms: tuple[ServedArm, ...] = Field(
        min_length=1, max_length=64, description="the arms; their shares sum to 1, and their order is part of the split"
    )


class Settings(Config):
    """Arguments of `serve_apps.shop:app`."""

    models: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="registered names to serve, such as `[eclip, similar]`; the first one that can answer is the "
        "default. None: every registered name that has the alias, in the order in which they were first registered",
    )
    alias: str = Field("champion", description="alias of the version that is served for a name without a version")
    search: bool = Field(True, description="offer /v1/similar, /v1/products, /v1/images, /v1/categories")
    page: bool = Field(True, description="offer the page at /")
    tracking_uri: str | None = Field(
        None, description="MLflow server, such as `http://mlflow:5000`; None: MLFLOW_TRACKING_URI"
    )
    poll_s: float = Field(5, gt=0, description="time between two look-ups of the alias, seconds")
    versions_kept: Positive = Field(3, description="versions that a replica keeps in memory, over all models")
    image_hosts: tuple[str, ...] = Field(
        (), description="hosts that image URLs may name, such as `[img.shop.example]`; none by default"
    )
    private_hosts: bool = Field(False, description="let `image_hosts` resolve to private addresses")
    decode_threads: Positive = Field(2, description="threads of a Gateway that decode photos")
    device: str = Field("auto", description="torch device of the Encoder; `auto` takes a GPU if there is one")
    torch_threads: Positive | None = Field(
        None,
        description="CPU threads of the model; None: the CPUs that Ray reserves for a replica of the Encoder if that is "
        "one or more, else the processor's cores",
    )
    precision: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        "auto",
        description="number format that the models compute in. `auto` measures them at load and takes the fastest one "
        "whose answers stay within `least_cosine`; models under ten million weights stay in float32. An index holds "
        "float32 vectors whatever is set here",
    )
    least_cosine: float = Field(
        0.9995,
        ge=0.9,
        le=1,
        description="least cosine of an answer in the precision that `auto` takes to the answer in float32. It is "
        "measured on sample inputs, which must leave half of the distance",
    )
    cache: str | None = Field(None, description="folder for downloaded packages; None: SHOPLENS_STORAGE/cache")
    same_product: SameProduct = Field(
        SameProduct(), description="rule by which /v1/similar takes listings for one product"
    )
    experiment: Experiment | None = Field(
        None, description="experiment whose arms answer the users of /v1/similar; None: no experiment runs"
    )
    events: str | None = Field(
        None, description="folder of the event log, an absolute path; None: SHOPLENS_STORAGE/events"
    )
    sealing: Sealing = Field(Sealing(), description="when a segment of the event log is sealed into Parquet")
    limits: Limits = Field(Limits(), description="bounds on requests")
    batching: Batching = Field(Batching(), description="batches that the Encoder gives to a model")

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
        if self.models is None:
            return self
        for arm in self.experiment.arms:
            if (name := name_of(arm.model)) not in self.models:
                raise ValueError(
                    f"the arm {arm.name!r} is answered by {arm.model!r}, but {name!r} is not among `models:` "
                    f"({', '.join(self.models)})"
                )
        return self

    @property
    def followed(self) -> tuple[str, ...]:
        """References that every replica keeps ready: `models`, and the models of arms with a share of the users."""
        arms = () if self.experiment is None else self.experiment.arms
        return tuple(dict.fromkeys((*(self.models or ()), *(self.canonical(arm.model) for arm in arms if arm.share))))

    def canonical(self, reference: str) -> str:
        """`eclip@champion` -> `eclip`, if `champion` is the alias that is served."""
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
        """Folder of the event log; None if `events` is not set and the storage is not a folder."""
        return self.events or _in_storage("events")


def _in_storage(name: str) -> str | None:
    storage = os.environ.get("SHOPLENS_STORAGE", "")
    return os.path.join(storage, name) if storage and "://" not in storage else None
