"""Vectors of a locked trunk against the trunk on the same views, and training on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from shoplens.errors import ShoplensError
from shoplens.nn.dual_encoder import DualEncoder
from shoplens.training import loop, trunk_vectors
from shoplens.training.batches import MicroBatches
from tests.training.conftest import MakeRecipe

LOCKED = ("model.locked=[image.trunk]", "photo_views=2", "training.epochs=2")


def test_they_are_those_of_the_views(small_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = small_recipe(*LOCKED)
    done: list[tuple[int, int]] = []
    path = trunk_vectors.compute(recipe, tmp_path, progress=lambda views, of: done.append((views, of)))
    found = np.load(path)
    assert found.shape[:2] == (96, 2) and done[-1] == (192, 192)
    torch.manual_seed(recipe.seed)
    model = recipe.build().eval()
    assert isinstance(model, DualEncoder)
    for sample, view in ((0, 0), (41, 1), (95, 0)):
        pixels = recipe.pixels(sample, recipe.draws(sample, 0, view))
        with torch.no_grad():
            expected = model.trunk_vectors(torch.from_numpy(pixels[None]))[0]
        np.testing.assert_allclose(found[sample, view], expected, rtol=2e-3, atol=2e-3)
    assert not np.array_equal(found[3, 0], found[3, 1])
    assert [file.suffix for file in tmp_path.iterdir() if file.suffix != ".lock"] == [".npy"], "no half-written file"

    assert recipe.collate(recipe.plan(0)[0], 0)["pixels"].dtype == np.uint8, "photos, until the vectors are there"
    recipe.trunk_file = path
    batch = recipe.collate(recipe.plan(0)[0], 0)
    assert batch["pixels"].shape == (16, 32) and batch["pixels"].dtype == np.float16
    again = small_recipe(*LOCKED)
    before = path.stat().st_mtime_ns
    assert trunk_vectors.compute(again, tmp_path) == path and path.stat().st_mtime_ns == before
    other = small_recipe(*LOCKED, "augmentation.crop=0.5")
    assert trunk_vectors.compute(other, tmp_path) != path


def test_training_on_them_learns_and_leaves_the_trunk(small_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = small_recipe(*LOCKED)
    recipe.trunk_file = trunk_vectors.compute(recipe, tmp_path)
    torch.manual_seed(recipe.seed)
    start = recipe.build().state_dict()
    model, _ = loop.train(recipe, MicroBatches(recipe, tmp_path).one_by_one, tmp_path)
    changed = {name.rpartition(".")[0] for name, weight in model.state_dict().items() if not weight.equal(start[name])}
    assert not any(name.startswith("image.trunk") for name in changed)
    assert {"image.projection", "text.projection"} <= changed


def test_a_trunk_that_learns_has_no_lasting_vectors(small_recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(ShoplensError, match=r"add model.locked=\[image.trunk\]"):
        trunk_vectors.compute(small_recipe("photo_views=2"), tmp_path)
    assert not list(tmp_path.iterdir())
