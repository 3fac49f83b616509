"""Large contrastive batches in small memory: encode in streams, one loss over all rows, encode again to differentiate.

Equal to the one-shot gradient: every stream is encoded a second time from the random state it was first encoded
with, the loss is differentiated once, and so is what it holds beside the rows (the logit scale). Gradient
caching is known from GradCache and BASIC; e-CLIP calls its form multi-stream accumulation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, distributed, nn

from shoplens.errors import ShoplensError
from shoplens.recipes.base import Batch


@runtime_checkable
class Streamed(Protocol):
    """A recipe whose loss compares rows that towers encode one sample at a time.

    towers   name of each tower -> the entries of a batch that it reads
    """

    @property
    def towers(self) -> Mapping[str, tuple[str, ...]]: ...

    def encode(self, model: nn.Module, tower: str, inputs: Batch) -> Tensor:
        """Rows [n, d] of n samples, each independent of the others."""
        ...

    def compare(self, model: nn.Module, rows: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Scalars to log; `loss` is differentiated. `batch` lacks what only towers read."""
        ...


def check(recipe: object, model: nn.Module, sizes: Mapping[str, int]) -> None:
    """Raises ShoplensError where streams could not equal the one-shot gradient."""
    if not isinstance(recipe, Streamed):
        raise ShoplensError("training.stream_size: this recipe does not compare rows of towers; leave it out")
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
    recipe: Streamed,
    model: nn.Module,
    batch: Batch,
    sizes: Mapping[str, int],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
) -> dict[str, Tensor]:
    """Gradients of `loss` into the parameters of `model`, their mean over workers, and the terms to log.

    sizes   samples of a stream by tower; a tower that is not named is encoded at once, and only once
    """
    streams = {tower: list(_streams(batch, names, sizes.get(tower), device)) for tower, names in recipe.towers.items()}
    states: dict[str, list[tuple[Tensor, ...]]] = {tower: [] for tower in streams}
    whole: dict[str, Tensor] = {}
    for tower, inputs in streams.items():
        parts = []
        for each in inputs:
            states[tower].append(_random_state(device))
            with torch.set_grad_enabled(len(inputs) == 1), autocast():
                parts.append(recipe.encode(model, tower, each()))
        whole[tower] = torch.cat(parts)
    rows = {tower: encoded.detach().requires_grad_() for tower, encoded in whole.items()}
    read = {name for names in recipe.towers.values() for name in names}
    rest = {name: value.to(device) for name, value in batch.items() if name not in read}
    with autocast():
        terms = recipe.compare(model, rows, rest)
    terms["loss"].backward()

    after = _random_state(device)
    for tower, inputs in streams.items():
        gradient = rows[tower].grad
        assert gradient is not None
        if len(inputs) == 1:
            if whole[tower].requires_grad:
                whole[tower].backward(gradient)
            continue
        start = 0
        for each, state in zip(inputs, states[tower], strict=True):
            _restore(state, device)
            with autocast():
                encoded = recipe.encode(model, tower, each())
            if encoded.requires_grad:
                encoded.backward(gradient[start : start + len(encoded)])
            start += len(encoded)
    _restore(after, device)
    _mean_gradients(model)
    return {name: value.detach() for name, value in terms.items()}


def _streams(
    batch: Batch, names: tuple[str, ...], size: int | None, device: torch.device
) -> Iterator[Callable[[], Batch]]:
    """Parts of the batch, moved to the device when they are asked for."""
    total = len(batch[names[0]])
    for start in range(0, total, size or total):
        part = slice(start, start + (size or total))
        yield lambda part=part: {name: batch[name][part].to(device, non_blocking=True) for name in names}  # type: ignore[misc]


def _random_state(device: torch.device) -> tuple[Tensor, ...]:
    state = torch.get_rng_state()
    return (state, torch.cuda.get_rng_state(device)) if device.type == "cuda" else (state,)


def _restore(state: tuple[Tensor, ...], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)


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
