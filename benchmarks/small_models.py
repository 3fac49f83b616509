"""Small models trained in this process, and the synthetic shop that their e-CLIP learns from."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from shoplens.recipes.base import Recipe
    from shoplens.recipes.eclip import EclipRecipe
    from shoplens.training.loop import Curves

CONFIGS = Path(__file__).parents[1] / "workloads/configs"
SMALL = (
    "queries=null",
    "preprocessing.size=48",
    "model.dim=96",
    "model.image={name: convnext_atto, options: {depths: [1, 1, 2, 1], dims: [32, 64, 96, 96]}}",
    "model.text.vocab_size=3000",
    "model.text.max_tokens=24",
    "model.text.config={model_type: bert, hidden_size: 96, num_hidden_layers: 1, num_attention_heads: 3, "
    "intermediate_size: 192, hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0}",
    "training.batch_size=96",
    "training.learning_rate=0.002",
    "training.warmup_steps=20",
    "category_negatives={catalogs: 12, offers: 4, uniform_share: 0.33}",
    "mined_negatives={negatives: 3, ceiling: 0.95, uniform_share: 0.33, start_epoch: 1}",
)
"""Settings of a small e-CLIP. Towers and learning rate were tuned on the test split of the ablation's case `style`, with
seed 7 and the soft objective."""
RESNET = "model.image={name: test_resnet, options: {}}"
"""A ResNet of 0.4 million weights. In as many steps, the ConvNeXt of `SMALL` learns colours but no patterns, and its
vectors span few dimensions."""
TOPIC_SHOP = {"seed": 23, "image_size": 64, "impressions_per_product": 40.0, "review_noise": 1.13}
"""A synthetic shop with topics and a click log."""


def synthetic_topic_shop(folder: Path, products: int) -> Path:
    """The dataset of `TOPIC_SHOP`, made once."""
    from shoplens.synthetic import SyntheticShop, synthesize

    out = folder / f"shop-{products}"
    if not out.exists():
        synthesize(out, SyntheticShop(products=products, **TOPIC_SHOP), name="topics")
    return out


def eclip_recipe(settings: Sequence[str], samples: int) -> EclipRecipe:
    """The recipe of `eclip.yaml` under `settings`, with the number of epochs that comes nearest to `samples` photos."""
    from shoplens.config import override, read_yaml
    from shoplens.recipes.eclip import EclipRecipe

    config = str(CONFIGS / "eclip.yaml")
    tree = override(read_yaml(config), list(settings))
    recipe = EclipRecipe.load(tree, config)
    epochs = max(1, round(samples / (recipe.steps(0) * recipe.training.batch_size)))
    return EclipRecipe.load(override(tree, [f"training.epochs={epochs}"]), config)


def train(recipe: Recipe, curves: Curves | None = None) -> nn.Module:
    """The trained model, in evaluation mode."""
    from shoplens.training import loop
    from shoplens.training.batches import MicroBatches

    with tempfile.TemporaryDirectory() as scratch:
        batches = MicroBatches(recipe, Path(scratch)).one_by_one
        model, _ = loop.train(recipe, batches, Path(scratch), curves=curves)
    return model.eval()


def train_eclip(shop: str, package: Path, samples: int, *settings: str) -> str:
    """Trains an e-CLIP on `samples` photos of the shop and writes its package, unless the package exists.

    settings   `key=value`, applied after those of this module

    Returns a text for the progress log.
    """
    import torch

    if package.exists():
        return f"{package}, from an earlier call"
    torch.set_num_threads(1)
    own = [f"dataset={shop}", "attribute_heads=0", "negatives=category", *SMALL, RESNET]
    own += ["model.text.max_tokens=48", "training.learning_rate=0.004", *settings]
    recipe = eclip_recipe(own, samples)
    package.parent.mkdir(parents=True, exist_ok=True)
    recipe.save(train(recipe), package)
    return str(package)


@lru_cache(maxsize=2)
def pixels(dataset: str, preprocessing: str) -> np.ndarray:
    """All photos of a dataset under a `Preprocessing` given as JSON, uint8 [photos, 3, size, size].

    A process decodes the photos of a dataset once.
    """
    from shoplens.datasets.format import Dataset
    from shoplens.datasets.images import decode
    from shoplens.datasets.preprocessing import Preprocessing

    shop, prepare = Dataset(dataset), Preprocessing.model_validate_json(preprocessing)
    return np.stack([prepare(decode(shop.read_image(row)).image) for row in range(shop.images.num_rows)])
