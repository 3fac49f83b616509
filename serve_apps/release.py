"""What a request is answered with: a model version and the index built for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Release:
    """A model version (`eclip/3`) with its index. `stamp` changes when the index is built anew or gets a delta."""

    name: str
    version: str
    index: str | None = None
    stamp: str | None = None


@dataclass(frozen=True)
class Missing:
    """Why a reference could not be resolved; `outage` if the registry did not answer."""

    reason: str
    outage: bool = False
