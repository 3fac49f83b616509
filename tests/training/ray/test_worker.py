"""What a worker of two does: rank 0 alone keeps curves, both compute with the threads of the configuration."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import torch

from shoplens.training.ray.trainer import Workers, train
from tests.training.conftest import MakeRecipe


class Kept:
    """Curves of one process as JSON lines, in a file named for it."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / str(os.getpid())

    def __enter__(self) -> Kept:
        self._file.touch()
        return self

    def __exit__(self, *_: object) -> None:
        self.log({"closed": 1.0}, -1)

    def log(self, metrics: dict[str, float], step: int) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps({"step": step, "threads": torch.get_num_threads(), **metrics}) + "\n")


def test_rank_0_alone_keeps_curves_and_closes_them(ray_local: None, small_recipe: MakeRecipe, tmp_path: Path) -> None:
    curves = tmp_path / "curves"
    curves.mkdir()
    recipe = small_recipe("training.epochs=1", "training.threads=1", "training.feed=loader")
    workers = Workers(count=2, cpus=0.5)
    _, summary = train(
        recipe, name="two", storage=tmp_path, workers=workers, open_curves=functools.partial(Kept, curves)
    )
    (kept,) = curves.iterdir()
    points = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [point["step"] for point in points if "train/loss" in point] == list(range(6))
    assert {point["threads"] for point in points} == {1}
    assert "closed" in points[-1]
    assert summary["steps"] == 6
    assert summary["train/samples_per_second"] > 0
