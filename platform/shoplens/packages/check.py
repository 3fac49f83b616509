"""The check of a loaded model before it is let near traffic: every capability answers, and a batch equals its parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from shoplens.errors import ShoplensError
from shoplens.packages.capabilities import Capability
from shoplens.packages.model import PackagedModel

SCORE_TOLERANCE = 1e-3
"""Largest difference of a photo's score in a batch and alone."""
Call = Callable[[Capability[Any, Any], Sequence[Any]], Sequence[Any]]


def check(model: PackagedModel, call: Call | None = None) -> None:
    """Raises ShoplensError if a capability fails, gives no unit vectors or no score, or answers differently in a batch.

    call   how a capability is called; None: by its own call
    """
    for capability in model.can:
        if capability.call is None:
            continue
        samples = capability.samples(model)[:2]
        try:
            together, alone = (
                call(capability, items) if call is not None else capability.call(model, items)
                for items in (samples, samples[:1])
            )
        except AttributeError as error:
            raise ShoplensError(
                f"the package declares {capability} ({capability.title}), and cannot do it: {error}"
            ) from error
        if len(together) != len(samples):
            raise ShoplensError(
                f"the package answers {capability} with {len(together)} results for {len(samples)} items"
            )
        if capability.gives == "text":
            if not all(isinstance(text, str) for text in together):
                raise ShoplensError(f"the package answers {capability} with something other than text")
            continue
        if capability.gives == "score":
            _check_scores(capability, together, alone)
            continue
        vectors = np.stack([vector_of(capability, result) for result in together])
        if vectors.shape != (len(samples), model.dim) or not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
            raise ShoplensError(f"the package does not answer {capability} with unit vectors of {model.dim} numbers")
        if float(vectors[0] @ vector_of(capability, alone[0])) < 0.999:
            raise ShoplensError(f"the package answers {capability} differently in a batch and alone")


def _check_scores(capability: Capability[Any, Any], together: Sequence[float], alone: Sequence[float]) -> None:
    if not all(0 <= score <= 1 for score in together):
        raise ShoplensError(f"the package answers {capability} with numbers that do not lie between 0 and 1")
    if abs(together[0] - alone[0]) > SCORE_TOLERANCE:
        raise ShoplensError(f"the package answers {capability} differently in a batch and alone")


def vector_of(capability: Capability[Any, Any], result: Any) -> np.ndarray:
    """float32 [d] of one result of a capability that gives vectors or queries."""
    if capability.gives == "query":
        return np.asarray(result.query[0])
    return np.asarray(getattr(result, "vector", result))
