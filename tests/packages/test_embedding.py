"""Photos of a dataset -> vectors, in this process and as a Ray Data job."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shoplens.packages import embedding
from shoplens.packages.embedder import Embedder
from shoplens.synthetic import SyntheticShop, synthesize


@pytest.mark.usefixtures("ray_local")
def test_few_photos_get_the_vectors_of_the_ray_data_job(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = synthesize(tmp_path / "shop", SyntheticShop(products=150, seed=3, image_size=48))
    embedder.save(tmp_path / "package", "# card", {"recipe": "eclip"})
    samples = np.random.default_rng(0).permutation(len(shop.images))[: embedding.ROWS + 7]
    told: list[int] = []
    here = embedding.embed_photos(shop, samples, tmp_path / "package", progress=told.append)
    assert told == [embedding.ROWS, embedding.ROWS + 7]
    monkeypatch.setattr(embedding, "FEW", 0)
    np.testing.assert_allclose(here, embedding.embed_photos(shop, samples, tmp_path / "package"), atol=1e-5)
    one = embedding.embed_photos(shop, samples[:1], tmp_path / "package")
    np.testing.assert_allclose(here[:1], one, atol=1e-5)
