"""Training photos: the one way in which a photo of a dataset becomes training pixels."""

from __future__ import annotations

import numpy as np
from PIL import Image

from shoplens.datasets.format import Dataset
from shoplens.datasets.images import ImageRejected, decode
from shoplens.datasets.preprocessing import Augmentation, Preprocessing
from shoplens.errors import ShoplensError


def training_pixels(
    dataset: Dataset,
    sample: int,
    preprocessing: Preprocessing,
    augmentation: Augmentation | None,
    rng: np.random.Generator,
) -> np.ndarray:
    """`training_image`, preprocessed: uint8 [3, size, size]. Raises ShoplensError as it does."""
    return preprocessing(training_image(dataset, sample, preprocessing, augmentation, rng))


def training_image(
    dataset: Dataset,
    sample: int,
    preprocessing: Preprocessing,
    augmentation: Augmentation | None,
    rng: np.random.Generator,
) -> Image.Image:
    """Photo `sample` decoded (RGB) and augmented with draws of `rng`, as `preprocessing` will read it.

    A JPEG is decoded at a reduced scale that still gives the smallest random crop the full resolution.
    Raises ShoplensError if the photo cannot be decoded; the message names it.
    """
    crop = augmentation.crop if augmentation else 1
    draft = round(preprocessing.draft / crop) if preprocessing.draft else None
    try:
        image = decode(dataset.read_image(sample), draft=draft).image
    except ImageRejected as error:
        image_id = dataset.images["image_id"][sample].as_py()
        raise ShoplensError(
            f"photo {image_id} of {dataset.path} cannot be used: {error}; remove it, or import the dataset again"
        ) from error
    return augmentation(image, rng) if augmentation else image
