"""Values that the Encoder sends to a Gateway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shoplens.datasets.preprocessing import Preprocessing
from shoplens.evaluation.heads.extractor import Extractor
from shoplens.packages import capabilities
from shoplens.packages.capabilities import Capability
from shoplens.packages.precision import Precision


@dataclass(frozen=True)
class Fault:
    """Why the model gave no result for one item; `message` is for the client."""

    message: str


@dataclass(frozen=True)
class Prepared:
    """Facts that a Gateway needs to call a loaded version and to read its results.

    capabilities       names of what the model can do
    preprocessing      turns a photo into pixels; None if the model takes no photos
    dim                length of the model's vectors; None if it gives none
    cosine_scale       factor for cosines before a softmax over candidates
    extractor          the model's attribute heads, if the package has any
    attribute_prompt   template that turns `{key}` and `{value}` into a text, for keys without a head
    precision          number format that the model computes in
    """

    capabilities: tuple[str, ...]
    preprocessing: Preprocessing | None
    dim: int | None
    cosine_scale: float
    extractor: Extractor | None
    attribute_prompt: str
    precision: Precision = "float32"

    def can(self, capability: Capability[Any, Any]) -> bool:
        return capability.name in self.capabilities


def lacks(version: str, known: tuple[str, ...], capability: Capability[Any, Any]) -> str:
    """The sentence for a model without a capability: `similar/3 does photo → vector, and no text → vector`."""
    titles = ", ".join(capabilities.ALL[name].title for name in known if name in capabilities.ALL)
    return f"{version} does {titles or 'nothing'}, and no {capability.title}"
