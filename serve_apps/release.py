"""A model version with the index that was built for it."""

from __future__ import annotations

from dataclasses import dataclass

from shoplens.packages import capabilities
from shoplens.packages.capabilities import EMBED_IMAGE


@dataclass(frozen=True)
class Release:
    """A model version (`eclip/3`) with its index. `stamp` changes when the index is rebuilt or gets a delta.

    `capabilities` are the names that the version's tag lists. Versions registered without the tag embed photos.
    """

    name: str
    version: str
    index: str | None = None
    stamp: str | None = None
    capabilities: tuple[str, ...] = (EMBED_IMAGE.name,)

    @property
    def gives_vectors(self) -> bool:
        """Whether the model has vectors to search with. Names that this shoplens does not know count as no."""
        known = (capabilities.ALL.get(name) for name in self.capabilities)
        return any(capability is not None and capability.gives == "vector" for capability in known)


@dataclass(frozen=True)
class Missing:
    """Why a reference could not be resolved; `outage` if the registry did not answer."""

    reason: str
    outage: bool = False
