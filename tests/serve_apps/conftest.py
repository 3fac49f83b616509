"""A small shop and an untrained package of real parts, and the application without Ray around it."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serve_apps.http.errors import ApiError
from serve_apps.http.inputs import Strict
from serve_apps.http.parsing import parse
from shoplens.datasets.format import Dataset
from shoplens.datasets.images import decode, perceptual_hash
from shoplens.datasets.preprocessing import Preprocessing
from shoplens.datasets.staging import Staging
from shoplens.datasets.tokenizers import train_tokenizer
from shoplens.nn.dual_encoder import DualEncoder, DualEncoderConfig
from shoplens.packages.embedder import Embedder
from shoplens.schema import Product
from shoplens.search.index import Index
from shoplens.search.items import items

PATHS = [("Clothing", "Dresses"), ("Clothing", "Jeans"), ("Kitchen", "Mugs")]


def jpeg(seed: int, side: int = 80) -> bytes:
    """A photo of its own: coarse random colours."""
    coarse = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()


def make_shop(out: Path, n: int = 24) -> Dataset:
    """`n` products in pairs of one catalog, two photos each; product 0 has an id that needs quoting."""
    staging = Staging(str(out), {"n": n})
    staging.begin()
    products, images = [], []
    with staging.shard("train-000000.tar") as shard:
        for i in range(n):
            path = PATHS[i // 2 % len(PATHS)]
            product = Product(
                id="p 0/ä" if i == 0 else f"p{i}",
                catalog_id=f"c{i // 2}",
                title=f"{path[-1]} no. {i} 상품",
                category_path=path,
                category_id="/".join(path).lower(),
                attributes={"color": ("red",)},
                price=None if i == 3 else 10.0 + i,
                currency="KRW",
                seller=f"seller {i % 2}",
            )
            row = product.model_dump(exclude={"id", "split", "texts"})
            products.append({**row, "product_id": product.id, "split": "train", "texts": []})
            for view in range(2):
                data = jpeg(2 * i + view)
                image_id = f"{i:04d}-{view}"
                place = shard.add(image_id, data, "jpg", product.to_json())
                images.append(
                    {
                        "image_id": image_id,
                        "product_id": product.id,
                        "role": "main" if view == 0 else "other",
                        "split": "train",
                        "shard": "train-000000.tar",
                        "offset": place,
                        "length": len(data),
                        "width": 80,
                        "height": 80,
                        "format": "jpg",
                        "sha256": hashlib.sha256(data).hexdigest(),
                        "phash": perceptual_hash(Image.open(io.BytesIO(data))),
                    }
                )
    staging.write_chunk("0", {"products": products, "images": images})
    return staging.finish("shop", {})


def make_package(folder: Path, dataset: Dataset, seed: int = 0, dim: int = 32) -> Path:
    """An untrained e-CLIP of a few hundred thousand weights."""
    import torch

    torch.manual_seed(seed)
    config = DualEncoderConfig.model_validate(
        {
            "dim": dim,
            "image": {"name": "test_efficientnet"},
            "text": {
                "config": {
                    "model_type": "bert",
                    "hidden_size": 32,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 2,
                    "intermediate_size": 64,
                },
                "vocab_size": 400,
            },
        }
    )
    preprocessing = Preprocessing(size=64)
    tokenizer = train_tokenizer(dataset.products["title"].to_pylist(), 400, config.text.max_tokens)
    model = DualEncoder(config, preprocessing, tokenizer.get_vocab_size())
    Embedder("eclip", config, preprocessing, tokenizer, model).save(folder, "# test", {})
    return folder


def make_index(folder: Path, package: Path, dataset: Dataset, version: int, name: str = "eclip") -> Path:
    """As `workloads.build_index` makes it."""
    embedder = Embedder.load(package)
    samples = np.arange(dataset.images.num_rows)
    photos = [decode(dataset.read_image(int(sample)), draft=embedder.image_size).image for sample in samples]
    vectors = embedder.encode_images(np.stack([embedder.preprocess(photo) for photo in photos]))
    about = {
        "model": name,
        "version": version,
        "dataset": dataset.name,
        "dataset_path": dataset.path,
        "dataset_digest": dataset.digest,
    }
    Index.build(folder, vectors, items(dataset, samples), dataset.categories, about)
    return folder


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_shop(tmp_path_factory.mktemp("shop") / "dataset")


@pytest.fixture(scope="session")
def package(shop: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(tmp_path_factory.mktemp("package") / "eclip", shop)


def refused(model: type[Strict], body: bytes) -> ApiError:
    """The 400 that a request body is refused with."""
    with pytest.raises(ApiError) as caught:
        parse(model, body)
    assert caught.value.status == 400
    assert len(caught.value.message) < 500
    return caught.value


class Local:
    """Stands where a Ray handle would: `handle.method.remote(...)` calls the object in this process."""

    def __init__(self, target: object) -> None:
        self._target = target

    def __getattr__(self, method: str) -> object:
        target = self._target

        class Call:
            @staticmethod
            def remote(*arguments: object) -> asyncio.Task[object]:
                async def call() -> object:
                    result = getattr(target, method)(*arguments)
                    return await result if inspect.isawaitable(result) else result

                return asyncio.get_running_loop().create_task(call())

        return Call
