"""The loop in one process: no Ray, the same mathematics."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from shoplens.errors import ShoplensError
from shoplens.nn.towers import TextTower, TextTowerConfig
from shoplens.recipes.schedule import TrainingConfig
from shoplens.training import loop
from shoplens.training.batches import MicroBatches
from tests.training.conftest import MakeRecipe


class Curve:
    def __init__(self) -> None:
        self.points: dict[int, dict[str, float]] = {}

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.points.setdefault(step, {}).update(metrics)


class Memory:
    """Checkpoints in memory; `done` steps of it are gone on from."""

    def __init__(self) -> None:
        self.kept: dict[int, tuple[dict, dict, torch.Tensor]] = {}
        self.start = 0

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        if self.start:
            weights, moments, random = self.kept[self.start]
            model.load_state_dict(weights)
            optimizer.load_state_dict(moments)
            torch.set_rng_state(random)
        return self.start

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        copied = torch.utils._pytree.tree_map(
            lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf,
            (dict(model.state_dict()), optimizer.state_dict()),
        )
        self.kept[step] = (*copied, torch.get_rng_state())


def test_learning_rate_warms_up_and_falls_to_zero(small_recipe: MakeRecipe) -> None:
    timeline = small_recipe("training.epochs=10").timeline
    assert timeline.total == 60
    factors = [loop.learning_rate_factor(timeline, step, warmup=10) for step in range(61)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1
    assert factors[35] == pytest.approx(0.5)
    assert factors[60] == pytest.approx(0, abs=1e-12)
    assert all(a >= b for a, b in zip(factors[10:], factors[11:], strict=False))


def test_a_run_that_goes_on_from_a_checkpoint_ends_with_the_same_bits(small_recipe: MakeRecipe, tmp_path: Path) -> None:
    """Dropout is on, so a random state that is not restored would show; so would a mined plan that differs."""
    recipe = small_recipe("training.epochs=4", "negatives=mined", "training.checkpoint_every=5")
    memory, curve = Memory(), Curve()
    batches = MicroBatches(recipe, tmp_path)
    whole, summary = loop.train(recipe, batches.one_by_one, tmp_path, checkpoints=memory, curves=curve)
    assert summary["steps"] == recipe.timeline.total == 24
    assert sorted(memory.kept) == [5, 10, 15, 20, 24]
    assert {"train/loss", "train/grad_norm", "sampling/guarded"} <= {key for p in curve.points.values() for key in p}
    weights = {name: value.clone() for name, value in whole.state_dict().items()}
    memory.start = 10
    again, _ = loop.train(recipe, MicroBatches(recipe, tmp_path).one_by_one, tmp_path, checkpoints=memory)
    assert [name for name, value in again.state_dict().items() if not torch.equal(value, weights[name])] == []


def test_after_step_is_called_with_the_progress_of_each_step(small_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = small_recipe("training.epochs=1")
    seen: list[float] = []
    recipe.after_step = lambda model, progress: seen.append(progress)  # type: ignore[method-assign]
    loop.train(recipe, MicroBatches(recipe, tmp_path).one_by_one, tmp_path)
    assert seen == [pytest.approx((step + 1) / 6) for step in range(6)]


def test_a_loss_that_is_not_finite_ends_the_run(small_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = small_recipe("training.learning_rate=1e30", "training.max_grad_norm=1e30")
    with pytest.raises(ShoplensError, match=r"lower training\.learning_rate"):
        loop.train(recipe, MicroBatches(recipe, tmp_path).one_by_one, tmp_path)


def test_a_feed_out_of_step_is_refused(small_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = small_recipe("training.epochs=1")
    batches = MicroBatches(recipe, tmp_path)
    with pytest.raises(ShoplensError, match="delivered step 1 where step 0 was due"):
        loop.train(recipe, lambda start, total: batches.one_by_one(start + 1, total), tmp_path)


def test_weights_that_a_library_spares_do_not_decay() -> None:
    """timm's ViT spares its class token and position embedding; a plain rule by dimensions would decay both."""
    import timm

    model = nn.ModuleDict({"image": timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=0)})
    groups = loop.parameter_groups(model, TrainingConfig(weight_decay=0.1, learning_rates={"image": 0.5}))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
    assert {"image.cls_token", "image.pos_embed"} <= set(names.values()) - decayed
    assert "image.blocks.0.mlp.fc1.weight" in decayed
    assert all(group["lr"] == pytest.approx(0.5e-3) for group in groups)
    assert not math.isnan(sum(p.numel() for group in groups for p in group["params"]))


def test_position_embeddings_of_text_towers_do_not_decay() -> None:
    """transformers has no list of such weights; a plain rule by dimensions would decay them."""
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    configs = {
        "bert": {"model_type": "bert", **shape},
        "clip": {"model_type": "clip_text_model", "eos_token_id": 2, **shape},
        "siglip": {"model_type": "siglip_text_model", **shape},
    }
    towers = {
        name: TextTower(TextTowerConfig(config=config, max_tokens=8), vocab_size=40, dim=4)
        for name, config in configs.items()
    }
    model = nn.ModuleDict(
        {**towers, "norm": nn.LayerNorm((2, 3)), "scale": nn.ParameterDict({"bias": torch.ones(2, 2)})}
    )
    decayed = {id(p) for g in loop.parameter_groups(model, TrainingConfig()) if g["weight_decay"] for p in g["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in decayed}
    assert {name for name in names if "position" in name or name.startswith(("norm", "scale"))} == set()
    assert sum("position" in name for name, _ in model.named_parameters()) == 3
    matrices = {
        f"{place}.weight"
        for place, part in model.named_modules()
        if isinstance(part, nn.Linear | nn.Embedding) and "position" not in place
    }
    assert names == matrices
