"""The MLflow signature of a package, as its capabilities make it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mlflow.models import ModelSignature
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

from shoplens.packages.capabilities import Capability

INPUTS = {"text": DataType.string, "image": AnyType(), "topic": DataType.string}
OUTPUTS = {
    "vector": ColSpec(Array(DataType.float), "embedding", required=False),
    "query": ColSpec(Array(DataType.float), "query", required=False),
    "text": ColSpec(DataType.string, "text", required=False),
}


def signature(capabilities: Iterable[Capability[Any, Any]]) -> ModelSignature:
    """Input columns, all optional, and output columns of the capabilities. The parameter `capability` chooses one."""
    offered = [capability for capability in capabilities if capability.call is not None]
    takes = [name for name in INPUTS if any(name in capability.takes for capability in offered)]
    gives = [name for name in OUTPUTS if any(name == capability.gives for capability in offered)]
    outputs = [OUTPUTS[name] for name in gives]
    if len(outputs) == 1:
        outputs = [ColSpec(outputs[0].type, outputs[0].name)]
    return ModelSignature(
        inputs=Schema([ColSpec(INPUTS[name], name, required=False) for name in takes]),
        outputs=Schema(outputs),
        params=ParamSchema([ParamSpec("capability", DataType.string, "")]),
    )
