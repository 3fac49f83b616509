"""What the cluster file may say about the application, under `args:`."""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import Field

from shoplens.config import Config

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
    limits: Limits = Limits()
    batching: Batching = Batching()

    def choose_registry(self) -> None:
        """Points this process at `tracking_uri`; MLflow reads it from the environment."""
        if self.tracking_uri is not None:
            os.environ["MLFLOW_TRACKING_URI"] = self.tracking_uri

    def cache_dir(self) -> str:
        storage = os.environ.get("SHOPLENS_STORAGE", "")
        if self.cache is not None:
            return self.cache
        if storage and "://" not in storage:
            return os.path.join(storage, "cache")
        return os.path.join(os.path.expanduser("~"), ".cache", "shoplens")
