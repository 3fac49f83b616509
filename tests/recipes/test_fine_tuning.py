"""e-CLIP from a checkpoint: what the configuration brings, and what a few steps move."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shoplens.config import ConfigError, override, read_yaml
from shoplens.datasets.format import Dataset
from shoplens.errors import ShoplensError
from shoplens.packages.embedder import Embedder
from shoplens.recipes import eclip
from shoplens.recipes.schedule import TrainingConfig
from shoplens.training.loop import parameter_groups
from tests.conftest import ROOT
from tests.packages.pretrained.conftest import clip_folder, siglip_folder, start
from tests.training.conftest import noise_shop

__all__ = ["clip_folder", "noise_shop", "siglip_folder"]

CONFIG = str(Path(ROOT, "workloads/configs/eclip_finetune.yaml"))
Make = Callable[..., eclip.EclipRecipe]


@pytest.fixture
def make(noise_shop: Dataset, clip_folder: Path) -> Make:
    """Recipes of the shipped configuration on the noise shop, from the tiny CLIP."""

    def recipe(*assignments: str) -> eclip.EclipRecipe:
        small = [f"dataset={noise_shop.path}", f"model.start_from={clip_folder}", "training.batch_size=16"]
        return eclip.EclipRecipe.load(override(read_yaml(CONFIG), [*small, *assignments]), CONFIG)

    return recipe


def steps(recipe: eclip.EclipRecipe, model: nn.Module, number: int = 6) -> list[float]:
    """The losses of a few steps on one batch, as the training loop takes them."""
    optimizer = torch.optim.AdamW(parameter_groups(model, recipe.training), betas=recipe.training.betas)
    batch = {name: torch.tensor(value) for name, value in recipe.collate(recipe.plan(0)[0], 0).items()}
    losses = []
    for _ in range(number):
        loss = recipe.loss(model.train(), batch)["loss"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def moved(before: dict[str, Tensor], model: nn.Module, part: str) -> float:
    after = model.state_dict()
    return max(float((after[name] - before[name]).abs().max()) for name in before if name.startswith(part))


def copy_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_training_begins_at_the_checkpoint_and_learns(make: Make, kind: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(f"{kind}_folder")
    factors = "{image.trunk: 0.05, text.trunk: 0.1}"
    recipe = make(f"model.start_from={folder}", "training.learning_rate=0.01", f"training.learning_rates={factors}")
    model = recipe.build()
    begun = start(folder).model.state_dict()
    assert all(torch.equal(begun[name], weight) for name, weight in model.state_dict().items())
    before = copy_of(model)
    losses = steps(recipe, model)
    assert losses[-1] < losses[0] - 0.05
    assert 0 < moved(before, model, "image.trunk") < moved(before, model, "text.projection") / 4


def test_a_locked_image_tower_stays_as_it_was(make: Make) -> None:
    recipe = make("model.locked=[image]", "training.learning_rate=0.01")
    model = recipe.build()
    before = copy_of(model)
    losses = steps(recipe, model)
    assert losses[-1] < losses[0]
    assert moved(before, model, "image.") == 0
    assert moved(before, model, "text.trunk") > 0
    assert all(parameter.grad is None for parameter in model.image.parameters())
    assert model.training and model.text.training
    assert not any(module.training for module in model.image.modules())


def test_rates_go_by_the_longest_name_and_decay_to_matrices_only() -> None:
    model = nn.ModuleDict({"image": nn.ModuleDict({"trunk": nn.Linear(3, 2), "head": nn.Linear(2, 2)})})
    model["imagery"] = nn.Linear(2, 2)
    config = TrainingConfig(learning_rate=0.5, weight_decay=0.3, learning_rates={"image": 0.1, "image.trunk": 0.01})
    groups = parameter_groups(model, config)
    of = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    found = {name: of[id(parameter)] for name, parameter in model.named_parameters()}
    assert {name: rate for name, (rate, _) in found.items()} == pytest.approx(
        {
            "image.trunk.weight": 0.005,
            "image.trunk.bias": 0.005,
            "image.head.weight": 0.05,
            "image.head.bias": 0.05,
            "imagery.weight": 0.5,
            "imagery.bias": 0.5,
        }
    )
    assert {decay for name, (_, decay) in found.items() if name.endswith("weight")} == {0.3}
    assert {decay for name, (_, decay) in found.items() if name.endswith("bias")} == {0.0}
    one = parameter_groups(model, TrainingConfig())
    assert [len(group["params"]) for group in one] == [3, 3], "with one rate: matrices, then the rest"


def test_a_part_that_is_not_there_is_refused(make: Make) -> None:
    recipe = make("training.learning_rates={images: 0.1}")
    with pytest.raises(ShoplensError, match=r"no part 'images' \(it has logit_scale, image, text\)"):
        parameter_groups(recipe.build(), recipe.training)
    with pytest.raises(ShoplensError, match=r"model\.locked: there is no part 'tower'"):
        make("model.locked=[tower]").build()
    with pytest.raises(ConfigError, match=r"training\.learning_rates\.image"):
        make("training.learning_rates={image: 0}")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("model.dim=512", r"model\.dim is 512, where the checkpoint of model\.start_from has 24"),
        ("preprocessing.size=64", r"preprocessing\.size is 64"),
        ("model.image.name=convnext_atto", r"model\.image\.name"),
        ("model.text.pooling=mean", r"model\.text\.pooling"),
        ("model.text.poolin=eos", "did you mean pooling"),
        ("model.image.options={drop_path_rate: 0.1}", "timm's"),
    ],
)
def test_a_setting_against_the_checkpoint_is_refused(make: Make, assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(assignment)


def test_the_filled_in_configuration_reads_as_it_was_written(make: Make) -> None:
    recipe = make("model.dim=24")
    written = recipe.config.model_dump(mode="json")
    assert eclip.EclipRecipe.load(written, "config.yaml").config == recipe.config
    assert pickle.loads(pickle.dumps(recipe)).tokenizer_json == recipe.tokenizer_json


def test_the_package_of_a_fine_tuned_model_stands_alone(make: Make, clip_folder: Path, tmp_path: Path) -> None:
    recipe = make()
    model = recipe.build()
    steps(recipe, model, 2)
    recipe.save(model, tmp_path / "package")
    told = [(tmp_path / "package" / name).read_text() for name in ("config.json", "MODEL_CARD.md")]
    assert not any(str(clip_folder) in text for text in told)
    assert "started from clip" in told[1] and "clip_vision_model" in told[1]
    package = Embedder.load(tmp_path / "package")
    batch = recipe.collate(np.arange(4), 0)
    with torch.no_grad():
        wanted = model.eval().encode_image(torch.tensor(batch["pixels"])).numpy()
    np.testing.assert_array_equal(package.encode_images(batch["pixels"]), wanted)
