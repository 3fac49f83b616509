"""A photo of a dataset as training sees it: decoded no larger than needed, augmented, preprocessed."""

from __future__ import annotations

import numpy as np

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
    """uint8 [3, size, size]. Raises ShoplensError that names the photo if it cannot be decoded."""
    crop = augmentation.crop if augmentation else 1
    draft = round(preprocessing.draft / crop) if preprocessing.draft else None
    try:
        image = decode(dataset.read_image(sample), draft=draft).image
    except ImageRejected as error:
        image_id = dataset.images["image_id"][sample].as_py()
        raise ShoplensError(f"photo {image_id} of {dataset.path} cannot be used: {error}") from error
    return preprocessing(augmentation(image, rng) if augmentation else image)
