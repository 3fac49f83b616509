"""Shares of the workers, read by the plan."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shoplens.training.batches import MicroBatches
from tests.training.conftest import MakeRecipe


def test_shares_of_the_workers_are_the_plan(small_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = small_recipe()
    for world_size in (1, 2, 4):
        shares = [MicroBatches(recipe, tmp_path, rank, world_size) for rank in range(world_size)]
        for step in (0, recipe.steps(0) + 1):
            epoch, row = divmod(step, recipe.steps(0))
            whole = recipe.collate(recipe.plan(epoch)[row], epoch)
            parts = [share[step] for share in shares]
            for name in ("pixels", "catalog"):
                np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), whole[name])
