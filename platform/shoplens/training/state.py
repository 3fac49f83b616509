"""The state that a killed run continues from: weights, optimizer, random states and the step, in one folder."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


def save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, rank: int) -> None:
    """Writes the state after `step` steps. Every rank writes its random state, rank 0 everything else."""
    torch.save(_random_state(), folder / f"random-{rank}.pt")
    if rank == 0:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder / "state.pt")
        (folder / "step.json").write_text(json.dumps({"step": step}))


def load(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, rank: int) -> int:
    """Restores the state and returns the number of steps done.

    If the number of workers has grown, a new rank keeps its own random state.
    """
    state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    own = folder / f"random-{rank}.pt"
    if own.exists():
        _restore_random_state(torch.load(own, map_location="cpu", weights_only=True))
    return steps_done(folder)


def steps_done(folder: Path) -> int:
    return int(json.loads((folder / "step.json").read_text())["step"])


def _random_state() -> dict[str, Any]:
    version, python, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": [version, list(python), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    version, python, gauss = state["python"]
    random.setstate((version, tuple(python), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
