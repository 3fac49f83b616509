"""Training pixels: enough resolution for the smallest crop, the same draws as the parts, and a name for a bad photo."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from shoplens.datasets.format import Dataset
from shoplens.datasets.images import decode
from shoplens.datasets.preprocessing import Augmentation, Preprocessing
from shoplens.datasets.staging import Staging
from shoplens.datasets.training_photo import training_pixels
from shoplens.errors import ShoplensError
from shoplens.schema import Product

SIDES = [(60, 80), (256, 200), (300, 400), (512, 512), (1600, 1200)]


def jpeg(width: int, height: int, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    blocks = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    blocks.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def photos() -> list[bytes]:
    return [jpeg(*sides, seed) for seed, sides in enumerate(SIDES)] + [b"not a photo"]


@pytest.fixture(scope="module")
def dataset(photos: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    staging = Staging(str(tmp_path_factory.mktemp("photos") / "dataset"), {"source": "test"})
    staging.begin()
    product = Product(id="p", title="p", category_path=("a",), category_id="a")
    images = []
    with staging.shard("train-000000.tar") as shard:
        for number, data in enumerate(photos):
            offset = shard.add(f"p-{number}", data, "jpg", product.to_json())
            images.append(
                {
                    "image_id": f"p-{number}",
                    "product_id": "p",
                    "role": "main",
                    "split": "train",
                    "shard": "train-000000.tar",
                    "offset": offset,
                    "length": len(data),
                    "width": 1,
                    "height": 1,
                    "format": "jpg",
                    "sha256": str(number),
                    "phash": number,
                }
            )
    row = {"product_id": "p", "title": "p", "category_id": "a", "category_path": ["a"], "split": "train"}
    staging.write_chunk("rows", {"products": [row], "images": images})
    return staging.finish("photos", {})


@pytest.mark.parametrize("sample", range(len(SIDES)))
@pytest.mark.parametrize("crop", [0.5, 0.8, 1.0])
def test_the_smallest_crop_has_the_full_resolution(
    dataset: Dataset, photos: list[bytes], sample: int, crop: float
) -> None:
    preprocessing, augmentation = Preprocessing(size=64), Augmentation(crop=crop)
    image = decode(photos[sample], draft=round(64 / crop)).image
    assert min(image.size) * crop >= min(63, min(SIDES[sample]) * crop)
    pixels = training_pixels(dataset, sample, preprocessing, augmentation, np.random.default_rng(sample))
    assert np.array_equal(pixels, preprocessing(augmentation(image, np.random.default_rng(sample))))


@pytest.mark.parametrize("gap", [3.0, None])
def test_without_augmentation_the_pixels_are_those_of_serving(
    dataset: Dataset, photos: list[bytes], gap: float | None
) -> None:
    preprocessing = Preprocessing(size=64, reducing_gap=gap)
    for sample, data in enumerate(photos[:-1]):
        pixels = training_pixels(dataset, sample, preprocessing, None, np.random.default_rng(0))
        assert np.array_equal(pixels, preprocessing(decode(data, draft=preprocessing.draft).image))


def test_a_bad_photo_is_named(dataset: Dataset) -> None:
    with pytest.raises(ShoplensError, match=r"photo p-5 of .*dataset cannot be used: .*not an image"):
        training_pixels(dataset, 5, Preprocessing(), Augmentation(), np.random.default_rng(0))
