"""Contrastive batches larger than memory: towers encode in streams that are encoded again to differentiate.

Gradient caching is known from GradCache and BASIC; e-CLIP calls its form multi-stream accumulation. One loss over all
rows is differentiated once, so the gradient is that of the whole batch, the logit scale's too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, distributed, nn
from torch.utils.checkpoint import checkpoint

from shoplens.errors import ShoplensError
from shoplens.recipes.base import Batch, Recipe, TowerLoss


def checked(recipe: Recipe, model: nn.Module) -> TowerLoss:
    """The recipe's loss by towers. Raises ShoplensError where streams could not equal the one-shot gradient."""
    if recipe.tower_loss is None:
        raise ShoplensError("training.stream_size: this recipe does not compare rows of towers; leave it out")
    check(recipe.tower_loss, model, recipe.training.stream_size)
    return recipe.tower_loss


def check(recipe: TowerLoss, model: nn.Module, sizes: Mapping[str, int]) -> None:
    """Raises ShoplensError if a tower is unknown, or if batch norm would mix the samples of a stream."""
    if unknown := sorted(set(sizes) - set(recipe.towers)):
        raise ShoplensError(
            f"training.stream_size names {', '.join(unknown)}; the towers are {', '.join(recipe.towers)}"
        )
    normed = [name for name, part in model.named_modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    if normed:
        raise ShoplensError(
            f"training.stream_size: batch norm ({normed[0]}) mixes the samples of a stream, so streams would change "
            "the gradient; choose a tower without it, such as a ViT or ConvNeXt"
        )


def accumulate(
    recipe: TowerLoss,
    model: nn.Module,
    batch: Batch,
    sizes: Mapping[str, int],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
) -> dict[str, Tensor]:
    """Gradients of `loss` into the parameters of `model`, their mean over workers, and the terms to log.

    sizes   samples of a stream by tower; a tower that is not named is encoded at once, and only once

    A stream keeps its inputs alone: torch.utils.checkpoint encodes it again on the way back, from the random state of
    the first time.
    """
    read = {name for names in recipe.towers.values() for name in names}
    rest = {name: value.to(device) for name, value in batch.items() if name not in read}
    with autocast():
        rows = {
            tower: _rows(recipe, model, tower, {name: batch[name] for name in names}, sizes.get(tower), device)
            for tower, names in recipe.towers.items()
        }
        terms = recipe.compare(model, rows, rest)
    terms["loss"].backward()
    _mean_gradients(model)
    return {name: value.detach() for name, value in terms.items()}


def _rows(
    recipe: TowerLoss, model: nn.Module, tower: str, inputs: Batch, size: int | None, device: torch.device
) -> Tensor:
    names = list(inputs)

    def encode(_: Tensor, *values: Tensor) -> Tensor:
        moved = (value.to(device, non_blocking=True) for value in values)
        return recipe.encode(model, tower, dict(zip(names, moved, strict=True)))

    here = torch.empty(0, device=device)  # checkpoint keeps the random states of its arguments' devices
    total = len(inputs[names[0]])
    if size is None or size >= total:
        return encode(here, *inputs.values())
    parts = zip(*(value.split(size) for value in inputs.values()), strict=True)
    return torch.cat([checkpoint(encode, here, *part, use_reentrant=False) for part in parts])


def _mean_gradients(model: nn.Module) -> None:
    """One reduction for each type of gradient, after the last stream."""
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return
    gradients: dict[torch.dtype, list[Tensor]] = {}
    for parameter in model.parameters():
        if parameter.grad is not None:
            gradients.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for same_type in gradients.values():
        flat = torch.cat([gradient.flatten() for gradient in same_type])
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        for gradient, mean in zip(same_type, flat.split([g.numel() for g in same_type]), strict=True):
            gradient.copy_(mean.view_as(gradient))
