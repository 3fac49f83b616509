from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shoplens.config import override, read_yaml
from shoplens.datasets.format import Dataset
from shoplens.datasets.images import decode, perceptual_hash
from shoplens.datasets.staging import Staging
from shoplens.recipes import eclip
from tests.conftest import ROOT

SMALL = [
    "preprocessing.size=32",
    "model.dim=16",
    "model.image.name=vit_tiny_patch16_224",
    "model.image.options={img_size: 32, patch_size: 16, depth: 2, embed_dim: 32, num_heads: 2}",
    "model.text.config={model_type: bert, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, "
    "intermediate_size: 64, hidden_dropout_prob: 0.1}",
    "model.text.vocab_size=400",
    "training.batch_size=16",
    "training.warmup_steps=3",
    "training.log_every=1",
    "training.threads=1",
]
"""A model of a few thousand weights, with dropout on, so that random states matter."""


@pytest.fixture(scope="session")
def noise_shop(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """96 photos of 48 products in 24 catalogs, flat colours and noise: enough to train on in milliseconds."""
    out = tmp_path_factory.mktemp("noise") / "shop"
    staging = Staging(str(out), {})
    staging.begin()
    rng = np.random.default_rng(0)
    products, images = [], []
    with staging.shard("train-000000.tar") as shard:
        for number in range(48):
            catalog = number // 2
            path = ["things", f"kind {catalog % 4}"]
            products.append(
                {
                    "product_id": f"p{number}",
                    "catalog_id": f"c{catalog}",
                    "title": f"물건 {catalog} model {catalog * 7} seller {number % 2}",
                    "description": "",
                    "texts": {},
                    "category_path": path,
                    "category_id": f"things/kind-{catalog % 4}",
                    "attributes": {},
                    "split": "train",
                }
            )
            for view in range(2):
                colour = np.array([catalog * 10 % 256, catalog * 37 % 256, catalog * 91 % 256])
                pixels = np.clip(colour + rng.normal(0, 20, (40, 48, 3)), 0, 255).astype(np.uint8)
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "JPEG")
                data = buffer.getvalue()
                offset = shard.add(f"p{number}_{view}", data, "jpg", "{}")
                images.append(
                    {
                        "image_id": f"p{number}_{view}",
                        "product_id": f"p{number}",
                        "role": "main",
                        "split": "train",
                        "shard": "train-000000.tar",
                        "offset": offset,
                        "length": len(data),
                        "width": 48,
                        "height": 40,
                        "format": "jpg",
                        "sha256": "",
                        "phash": perceptual_hash(decode(data).image),
                    }
                )
    staging.write_chunk("000000", {"products": products, "images": images})
    return staging.finish("noise", {})


MakeRecipe = Callable[..., eclip.EclipRecipe]


@pytest.fixture(scope="session")
def small_recipe(noise_shop: Dataset) -> MakeRecipe:
    """Makes small e-CLIP recipes on the noise shop without short queries, further settings as `key=value`."""

    def make(*assignments: str) -> eclip.EclipRecipe:
        config = Path(ROOT, "workloads/configs/eclip.yaml")
        tree = override(read_yaml(config), [f"dataset={noise_shop.path}", "queries=null", *SMALL, *assignments])
        return eclip.EclipRecipe.load(tree, str(config))

    return make
