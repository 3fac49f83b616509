"""The recipe against its contract: batches, a loss that falls, and a package that answers as the trained tower."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from my_shop.category import CategoryRecipe

from shoplens.config import override, read_yaml
from shoplens.packages.model import PackagedModel
from shoplens.synthetic import SyntheticShop, synthesize

CONFIG = Path(__file__).parents[1] / "category.yaml"
SMALL = ["training.batch_size=16", "training.epochs=2", "preprocessing.size=32", "model.dim=16"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> CategoryRecipe:
    out = tmp_path_factory.mktemp("shop") / "shop"
    synthesize(str(out), SyntheticShop(products=60, image_size=48, seed=1), name="shop", workers=1)
    recipe = CategoryRecipe.load(override(read_yaml(CONFIG), [f"dataset={out}", *SMALL]), str(CONFIG))
    recipe.check()
    return recipe


def test_an_epoch_meets_a_photo_at_most_once(recipe: CategoryRecipe) -> None:
    plan = recipe.plan(0)
    assert plan.shape == (recipe.steps(0), 16)
    assert len(np.unique(plan)) == plan.size
    assert not np.array_equal(plan, recipe.plan(1))


def test_the_same_arguments_give_the_same_batch(recipe: CategoryRecipe) -> None:
    first, again = (recipe.collate(recipe.plan(0)[0], 0) for _ in range(2))
    for name in ("pixels", "label"):
        np.testing.assert_array_equal(first[name], again[name])


def test_the_loss_falls(recipe: CategoryRecipe) -> None:
    torch.manual_seed(0)
    model = recipe.build()
    batch = {name: torch.from_numpy(array) for name, array in recipe.collate(recipe.plan(0)[0], 0).items()}
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        loss = recipe.loss(model, batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_the_package_answers_as_the_tower(recipe: CategoryRecipe, tmp_path: Path) -> None:
    model = recipe.build().eval()
    recipe.save(model, tmp_path / "package")
    loaded = PackagedModel.load(tmp_path / "package")
    pixels = recipe.collate(recipe.plan(0)[0], 0)["pixels"]
    with torch.inference_mode():
        expected = model.tower.encode_image(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(loaded.encode_images(pixels), expected, atol=1e-6)
