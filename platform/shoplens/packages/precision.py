"""The number format that a loaded model computes in, chosen by measuring on this machine.

`float32` is what training leaves. `bfloat16` keeps the weights of linear and convolution layers in bfloat16 and runs
them in autocast; sums along the layers stay in float32. `int8` is PyTorch's dynamic quantisation of linear layers, on
CPUs only: its scales follow the batch, so an answer depends a little on its neighbours.
"""

from __future__ import annotations

import copy
import logging
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from shoplens.errors import ShoplensError
from shoplens.packages.capabilities import Capability
from shoplens.packages.check import check, vector_of
from shoplens.packages.model import PackagedModel

log = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16", "int8"]

LEAST_PARAMETERS = 10_000_000
"""Smaller models stay in float32: they have little to gain."""
LEAST_GAIN = 1.1
"""How many times as fast as float32 another precision must be."""
ROUNDS = 3


@dataclass(frozen=True)
class Runner:
    """A model that is ready to answer.

    seconds   time of the samples of all capabilities; nan if it was not measured
    cosine    least cosine of an answer on the samples to its float32 answer; nan if it was not measured
    """

    model: PackagedModel
    precision: Precision
    seconds: float = float("nan")
    cosine: float = float("nan")

    def call(self, capability: Capability[Any, Any], items: Sequence[Any]) -> Sequence[Any]:
        """One result for each item, by the capability's own call."""
        assert capability.call is not None
        casting = torch.autocast(self.model.device.type, torch.bfloat16) if self.precision == "bfloat16" else None
        with casting or nullcontext():
            return capability.call(self.model, items)


def converted(model: PackagedModel, precision: Precision) -> Runner:
    """The model in `precision`: itself in float32, else a copy. Raises ShoplensError for int8 on a GPU."""
    if precision == "float32":
        return Runner(model, precision)
    if precision == "int8" and model.device.type != "cpu":
        raise ShoplensError("int8 runs on CPUs only: set `precision: bfloat16`, or `device: cpu`")
    other = copy.copy(model)
    other.model = copy.deepcopy(model.model)
    if precision == "bfloat16":
        for layer in other.model.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.to(torch.bfloat16)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch announces the move of this function to another library
            other.model = torch.ao.quantization.quantize_dynamic(other.model, {nn.Linear}, dtype=torch.qint8)
    return Runner(other, precision)


def choose(
    model: PackagedModel, precision: Precision | Literal["auto"] = "auto", least_cosine: float = 0.9995
) -> Runner:
    """The model in the given precision, checked, or in the fastest one that keeps its answers.

    `auto` times the samples of every capability in each precision. A precision keeps the answers if its least cosine to
    float32 leaves half of the allowed distance `1 - least_cosine`: real inputs differ from the samples.

    Raises ShoplensError if the model is not fit to serve (see `check`), or not in the given precision.
    """
    check(model)
    best = Runner(model, "float32")
    if precision != "auto":
        best = converted(model, precision)
        if best.model is not model:
            check(best.model, best.call)
        return best
    if sum(parameter.numel() for parameter in model.model.parameters()) < LEAST_PARAMETERS:
        return best
    candidates = [best]
    for other in ("bfloat16", "int8") if model.device.type == "cpu" else ("bfloat16",):
        try:
            candidates.append(converted(model, other))
            check(candidates[-1].model, candidates[-1].call)
        except Exception as error:
            log.info("%s cannot run in %s: %s", model.name, other, error)
            candidates = [known for known in candidates if known.precision != other]
    return _fastest(candidates, 1 - (1 - least_cosine) / 2)


def _fastest(candidates: Sequence[Runner], least_cosine: float) -> Runner:
    """The fastest candidate that keeps the answers of the first, and is not slower than it by any doubt."""
    asked = [
        (capability, capability.samples(candidates[0].model))
        for capability in candidates[0].model.can
        if capability.call is not None
    ]
    seconds = dict.fromkeys((runner.precision for runner in candidates), float("inf"))
    answers: dict[Precision, list[Any]] = {}
    for _ in range(ROUNDS):
        for runner in candidates:
            began = time.perf_counter()
            answers[runner.precision] = [runner.call(*question) for question in asked]
            seconds[runner.precision] = min(seconds[runner.precision], time.perf_counter() - began)
    measured = [
        Runner(
            runner.model,
            runner.precision,
            seconds[runner.precision],
            min(
                _least_cosine(capability, truth, found)
                for (capability, _), truth, found in zip(
                    asked, answers["float32"], answers[runner.precision], strict=True
                )
            ),
        )
        for runner in candidates
    ]
    for runner in measured:
        log.info("%s in %s: %.3f s, cosine %.6f", runner.model.name, runner.precision, runner.seconds, runner.cosine)
    first = measured[0]
    fit = [
        runner
        for runner in measured[1:]
        if runner.cosine >= least_cosine and runner.seconds * LEAST_GAIN <= first.seconds
    ]
    return min(fit, key=lambda runner: runner.seconds, default=first)


def _least_cosine(capability: Capability[Any, Any], truth: Sequence[Any], found: Sequence[Any]) -> float:
    """Texts count as 1 if they are equal, else as 0; scores as 1 less their largest difference."""
    if capability.gives == "text":
        return float(list(truth) == list(found))
    if capability.gives == "score":
        return 1 - float(np.abs(np.subtract(truth, found)).max())
    rows = (np.stack([vector_of(capability, answer) for answer in answers]) for answers in (truth, found))
    return float(np.prod(list(rows), 0).sum(1).min())
