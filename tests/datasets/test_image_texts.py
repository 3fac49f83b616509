"""Texts of photos: training draws one of a photo's own, titles and queries in their shares."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from shoplens.datasets.image_texts import ImageTexts
from shoplens.errors import ShoplensError
from shoplens.synthetic.shop import SyntheticShop, synthesize

TEXTS = ImageTexts(
    texts=["title", "other title", "often", "seldom", "only a title", "only a query"],
    start=np.array([0, 4, 5, 6]),
    titles=np.array([2, 1, 0]),
    weight=np.array([1, 1, np.log1p(99), np.log1p(3), 1, np.log1p(1)]),
)


def drawn(sample: int, title_share: float, draws: int = 4000) -> dict[str, float]:
    found = Counter(TEXTS.draw(sample, np.random.default_rng(n), title_share) for n in range(draws))
    return {text: count / draws for text, count in found.items()}


def test_titles_and_queries_come_in_their_shares() -> None:
    shares = drawn(0, 0.3)
    often = np.log1p(99) / (np.log1p(99) + np.log1p(3))
    expected = {"title": 0.15, "other title": 0.15, "often": 0.7 * often, "seldom": 0.7 * (1 - often)}
    assert shares == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("title_share", [0.0, 0.3, 1.0])
def test_a_photo_with_one_kind_of_text_has_that(title_share: float) -> None:
    assert drawn(1, title_share, 20) == {"only a title": 1}
    assert drawn(2, title_share, 20) == {"only a query": 1}


def test_a_dataset_without_such_texts_is_refused(tmp_path: Path) -> None:
    shop = synthesize(tmp_path / "shop", SyntheticShop(products=4, image_size=48), workers=1, progress=False)
    with pytest.raises(ShoplensError, match=r"has no image_texts\.parquet: make the dataset with"):
        ImageTexts.of(shop)
