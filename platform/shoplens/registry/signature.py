"""The MLflow signature of a package, as its capabilities make it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mlflow.models import ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

from shoplens.packages.capabilities import Capability
from shoplens.packages.rows import COLUMNS

OUTPUTS = {
    "vector": ColSpec(Array(DataType.float), "embedding", required=False),
    "query": ColSpec(Array(DataType.float), "query", required=False),
    "score": ColSpec(DataType.double, "score", required=False),
    "text": ColSpec(DataType.string, "text", required=False),
}


def signature(capabilities: Iterable[Capability[Any, Any]]) -> ModelSignature:
    """Output columns of the capabilities. The parameter `capability` chooses one.

    Inputs are left out. With a schema of inputs, MLflow drops what it does not name before the model sees it: a list of
    texts and a misspelt column would become an empty table. The model reads its input itself (`packages/rows`).
    """
    offered = [capability for capability in capabilities if capability.call is not None]
    gives = [name for name in OUTPUTS if any(name == capability.gives for capability in offered)]
    outputs = [OUTPUTS[name] for name in gives]
    if len(outputs) == 1:
        outputs = [ColSpec(outputs[0].type, outputs[0].name)]
    return ModelSignature(
        outputs=Schema(outputs),
        params=ParamSchema([ParamSpec("capability", DataType.string, "")]),
    )


def columns(capabilities: Iterable[Capability[Any, Any]]) -> list[str]:
    """Names of the input columns, for the metadata of the logged model."""
    taken = {name for capability in capabilities if capability.call is not None for name in capability.takes}
    return [name for name in COLUMNS if name in taken]
