"""Mining: one epoch in one process and in two, against scores computed another way; files that appear whole or never."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shoplens.recipes.eclip import EclipRecipe
from shoplens.sampling.mined import Mined
from shoplens.training import mining
from shoplens.training.batches import plan_of
from tests.training.conftest import MakeRecipe
from tests.workers import together

EPOCH = 2
SETTINGS = ("negatives=mined", "training.epochs=4", "mined_negatives={start_epoch: 2, negatives: 5, ceiling: 0.9}")


class SameSamples(EclipRecipe):
    """Mines all samples but the last, an odd number that two workers cannot share evenly."""

    @property
    def mined_samples(self) -> np.ndarray:
        return self.samples.sample[:-1]

    def mine(self, rows: Mapping[str, Tensor]) -> Mined:
        return Mined(np.stack([rows["image"].numpy(), rows["text"].numpy()]), 0.25)


def mine(recipe: EclipRecipe, model: nn.Module, folder: Path) -> dict[str, float]:
    return mining.mine_epoch(recipe, recipe, model, folder, EPOCH, torch.device("cpu"), contextlib.nullcontext)


def built(recipe: EclipRecipe) -> nn.Module:
    torch.manual_seed(0)
    return recipe.build()


@torch.no_grad()
def encoded(recipe: EclipRecipe, model: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Rows of photos and texts of all samples, without dropout, encoded at once."""
    batch = {name: torch.tensor(value) for name, value in recipe.collate(recipe.samples.sample, EPOCH).items()}
    model.eval()
    rows = [
        recipe.encode(model, tower, {name: batch[name] for name in names}) for tower, names in recipe.towers.items()
    ]
    model.train()
    return rows[0].double().numpy(), rows[1].double().numpy()


def test_the_neighbours_are_the_nearest_texts_of_other_catalogs_below_the_ceiling(
    small_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = small_recipe(*SETTINGS)
    model = built(recipe)
    figures = mine(recipe, model, tmp_path)
    found = np.load(mining.mined_file(tmp_path, EPOCH))

    images, texts = encoded(recipe, model)
    assert found.shape == (len(images), 5)
    taken = guarded = 0
    for row, (image, catalog) in enumerate(zip(images, recipe.samples.catalog, strict=True)):
        scores = texts @ image
        others = [other for other in np.argsort(-scores) if recipe.samples.catalog[other] != catalog]
        near = [other for other in others if scores[other] > 0.9 * scores[row]]
        expected = [other for other in others if other not in near][:5]
        guarded += len(set(near) & set(others[:5]))
        neighbours = [other for other in found[row] if other >= 0]
        np.testing.assert_allclose(scores[neighbours], scores[expected], atol=1e-6)  # texts repeat: equal scores swap
        taken += len(neighbours)
    assert taken > 0
    assert 0 < guarded < found.size
    assert figures["sampling/guarded"] == pytest.approx(guarded / found.size)
    assert figures["sampling/mining_seconds"] > 0


def test_mining_leaves_the_model_in_training_and_the_random_state_alone(
    small_recipe: MakeRecipe, tmp_path: Path
) -> None:
    """A restarted run does not mine again: the numbers it draws afterwards must be those of the run that did."""
    recipe = small_recipe(*SETTINGS)
    model, state = built(recipe), torch.get_rng_state()
    mine(recipe, model, tmp_path)
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_file_that_is_there_stays_and_another_model_follows_it(small_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = small_recipe(*SETTINGS)
    model = built(recipe)
    mine(recipe, model, tmp_path)
    file = mining.mined_file(tmp_path, EPOCH)
    whole, plan = file.read_bytes(), plan_of(recipe, EPOCH, tmp_path)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert mine(recipe, model, tmp_path) == {}
    assert file.read_bytes() == whole
    np.testing.assert_array_equal(plan_of(recipe, EPOCH, tmp_path), plan)
    mine(recipe, model, tmp_path / "afresh")
    assert mining.mined_file(tmp_path / "afresh", EPOCH).read_bytes() != whole


class Watched:
    """Neighbours that look at the folder while they are written."""

    def __init__(self, folder: Path, *, breaks: bool) -> None:
        self.folder, self.breaks, self.seen = folder, breaks, list[str]()

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        self.seen = [path.name for path in self.folder.iterdir()]
        if self.breaks:
            raise OSError("disk full")
        return np.arange(6, dtype=np.int32).reshape(3, 2)


def test_the_file_is_written_aside_then_renamed(small_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = small_recipe(*SETTINGS)
    file = mining.mined_file(tmp_path, EPOCH)
    for breaks in (True, False):
        watched = Watched(file.parent, breaks=breaks)
        recipe.mine = lambda rows, watched=watched: Mined(watched, 0.0)  # type: ignore[method-assign, misc]
        with pytest.raises(OSError, match="disk full") if breaks else contextlib.nullcontext():
            mine(recipe, built(recipe), tmp_path)
        assert watched.seen == ["epoch-00002.partial"]
        assert file.exists() is not breaks
    assert [path.name for path in file.parent.iterdir()] == ["epoch-00002.npy"]
    np.testing.assert_array_equal(np.load(file), [[0, 1], [2, 3], [4, 5]])


def test_the_feed_waits_until_the_epoch_is_mined(small_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = small_recipe(*SETTINGS)
    np.testing.assert_array_equal(plan_of(recipe, EPOCH - 1, tmp_path), recipe.plan(EPOCH - 1))  # nothing to wait for
    waited: list[np.ndarray] = []
    feed = threading.Thread(target=lambda: waited.append(plan_of(recipe, EPOCH, tmp_path)), daemon=True)
    feed.start()
    time.sleep(0.3)
    assert feed.is_alive() and not waited
    mine(recipe, built(recipe), tmp_path)
    feed.join(timeout=30)
    neighbours = mining.wait_for_neighbours(tmp_path, EPOCH)
    np.testing.assert_array_equal(waited[0], recipe.mined_plan(EPOCH, neighbours))
    assert not np.array_equal(waited[0], recipe.plan(EPOCH))


def _rank(rank: int, world: int, recipe: SameSamples, folder: Path) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    figures = mine(recipe, built(recipe), folder)
    (folder / f"{rank}.txt").write_text(str(figures["sampling/guarded"]))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_workers_gather_the_rows_of_one_in_order(small_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = SameSamples(small_recipe(*SETTINGS).config)
    together(_rank, 2, 2, recipe, tmp_path)
    gathered = np.load(mining.mined_file(tmp_path, EPOCH))
    assert gathered.shape[1] == len(recipe.samples) - 1
    for found, expected in zip(gathered, encoded(recipe, built(recipe)), strict=True):
        np.testing.assert_allclose(found, expected[:-1], atol=1e-5)
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == ["0.25", "0.0"]
