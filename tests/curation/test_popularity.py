"""Click-through rates against the probabilities that clicks were drawn from."""

from __future__ import annotations

import numpy as np
import pytest

from shoplens.curation.popularity import click_through


def log(seed: int, visits: int, liked: np.ndarray) -> tuple[np.ndarray, ...]:
    """One page of eight places: its products, best first, on the places in order, or shifted (one visit in two)."""
    rng = np.random.default_rng(seed)
    n = len(liked)
    shift = np.where(rng.random(visits) < 0.5, 0, rng.integers(1, n, visits))
    place = np.tile(np.arange(n), (visits, 1))
    product = (place - shift[:, None]) % n
    likely = np.where(shift == 0, 0.5, 0.5 / (n - 1))[:, None].repeat(n, 1)
    clicked = rng.random((visits, n)) < (1.0 + place) ** -0.6 * liked[product]
    return (np.zeros(visits * n, np.int64), *(x.ravel() for x in (product, place, clicked, likely)))


def test_places_and_products_are_told_apart() -> None:
    liked = np.linspace(0.5, 0.1, 8)
    found = click_through(*log(0, 20_000, liked))
    np.testing.assert_allclose(found.examination, (1.0 + np.arange(8)) ** -0.6, atol=0.02)
    np.testing.assert_allclose(found.rate, liked, atol=0.02)


def test_without_propensities_a_place_takes_part_of_the_credit() -> None:
    """The popular are shown first, so that a place's rate is partly theirs: they differ less, the order stays."""
    liked = np.linspace(0.5, 0.1, 8)
    found = click_through(*log(0, 20_000, liked)[:-1])
    assert (np.diff(found.rate) < 0).all()
    assert 0.6 < found.rate[0] / found.rate[-1] / 5 < 0.95


def test_few_impressions_say_little() -> None:
    """A click on a single impression is no rate of one; smoothing beats counting."""
    rng = np.random.default_rng(1)
    liked = rng.beta(2, 18, 3000)
    seen = rng.integers(1, 30, 3000)
    product = np.repeat(np.arange(3000), seen)
    clicked = rng.random(len(product)) < liked[product]
    found = click_through(np.zeros_like(product), product, np.zeros_like(product), clicked)
    counted = found.clicks / found.exposure
    assert np.square(found.rate - liked).mean() < 0.5 * np.square(counted - liked).mean()
    assert found.rate.mean() == pytest.approx(0.1, abs=0.01)
