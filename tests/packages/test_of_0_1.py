"""Packages that shoplens 0.1 (commit 7882923) wrote: each loads, and answers as it did then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shoplens.packages.capabilities import EMBED_IMAGE, EMBED_TEXT, EXTRACT_ATTRIBUTES, RANK_IMAGES
from shoplens.packages.check import check
from shoplens.packages.model import PackagedModel
from shoplens.schema import TopicText

FOLDER = Path(__file__).parent / "of_0_1"
TEXTS = ["빨간 원피스", "black boots", "니트"]
CAN = {
    "eclip": (EMBED_IMAGE, EMBED_TEXT, EXTRACT_ATTRIBUTES),
    "clik": (EMBED_IMAGE, EMBED_TEXT, RANK_IMAGES),
    "similar": (EMBED_IMAGE,),
}


@pytest.fixture(scope="module")
def then() -> dict[str, np.ndarray]:
    """What the commit answered: `NAME.images`, `NAME.texts`, `NAME.topic` and `NAME.query` [3, d]; and the pixels."""
    with np.load(FOLDER / "vectors.npz") as stored:
        return dict(stored)


@pytest.mark.parametrize("name", CAN)
def test_a_package_of_0_1_answers_as_it_did(name: str, then: dict[str, np.ndarray]) -> None:
    model: PackagedModel = PackagedModel.load(FOLDER / name)
    assert model.can == CAN[name]
    check(model)
    for capability, method, entry, items in (
        (EMBED_IMAGE, "encode_images", "images", then["pixels"]),
        (EMBED_TEXT, "encode_texts", "texts", TEXTS),
    ):
        if capability in model.can:
            np.testing.assert_allclose(getattr(model, method)(items), then[f"{name}.{entry}"], atol=1e-5)
    if RANK_IMAGES in model.can:
        assert RANK_IMAGES.call is not None
        queries = RANK_IMAGES.call(model, [TopicText(name=text, date="2025-04-01") for text in TEXTS])
        for entry in ("topic", "query"):
            vectors = np.concatenate([getattr(query, entry) for query in queries])
            np.testing.assert_allclose(vectors, then[f"{name}.{entry}"], atol=1e-5)


def test_the_class_is_found_under_the_name_that_pyfuncs_of_0_1_import() -> None:
    from shoplens.models.photo_embedder import PhotoEmbedder

    embedder = PhotoEmbedder.load(FOLDER / "eclip")
    assert embedder.dim == 8
