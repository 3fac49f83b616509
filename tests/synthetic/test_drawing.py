"""Drawings: pixels distinguish every leaf, pattern and backdrop, and colours match their names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shoplens.synthetic.catalogue import Catalogue, Design
from shoplens.synthetic.departments import LEAVES_OF_SHOP, Leaf
from shoplens.synthetic.photography import VIEWPOINTS, photograph, view
from shoplens.synthetic.sellers import BACKDROPS, seller, styled
from shoplens.synthetic.surfaces import paint
from shoplens.synthetic.vocabulary import COLOURS, PATTERNS

CATALOGUE = Catalogue(7, 4000, 4, (("train", 0.8), ("val", 0.1), ("test", 0.1)))
DESIGNS = {CATALOGUE.leaf(i).id: CATALOGUE.design(i) for i in range(len(LEAVES_OF_SHOP))}


def photo(design: Design, by: int = 1, size: int = 64, seed: int = 0) -> np.ndarray:
    habit, rng = seller(7, by).photo, np.random.default_rng(seed)
    taken = view(habit, design.leaf.upright, True, rng)
    return np.asarray(photograph(paint(design, 2 * size), habit, taken, design.leaf.upright, size))


@pytest.mark.parametrize("leaf", LEAVES_OF_SHOP, ids=lambda leaf: leaf.id)
def test_every_variant_of_a_leaf_is_a_silhouette_of_its_own(leaf: Leaf) -> None:
    base = replace(DESIGNS[leaf.id], rgb=(200, 120, 90), accent_rgb=(60, 90, 160))
    for key, words in leaf.shapes.items():
        drawn = []
        for word in words:
            cut = paint(replace(base, shape={**base.shape, key: word}), 96)
            filled = cut.alpha.size / 96**2 * (cut.alpha > 0).mean()
            assert 0.03 < filled < 0.85
            assert set(np.unique(cut.alpha)) <= {0, 255}
            full = np.zeros((96, 96, 3), np.float32)
            x, y = cut.corner
            full[y : y + cut.alpha.shape[0], x : x + cut.alpha.shape[1]] = cut.albedo * (cut.alpha[..., None] > 0)
            drawn.append(full)
        for i in range(len(drawn)):
            for j in range(i):
                assert np.abs(drawn[i] - drawn[j]).mean() > 0.2, f"{key}: {words[i].en} looks like {words[j].en}"


def test_patterns_differ_from_each_other() -> None:
    drawn = [paint(replace(DESIGNS["t-shirts"], pattern=pattern), 96).albedo for pattern in PATTERNS]
    for i in range(len(drawn)):
        for j in range(i):
            assert np.abs(drawn[i] - drawn[j]).mean() > 3


def test_a_shade_is_nearest_to_the_colour_it_is_named_for() -> None:
    names = np.array(list(COLOURS))
    palette = np.array([COLOURS[name].rgb for name in names])
    designs = [CATALOGUE.design(i) for i in range(400)]
    distance = np.linalg.norm(np.array([d.rgb for d in designs])[:, None] - palette, axis=2)
    assert names[distance.argmin(1)].tolist() == [d.colour for d in designs]
    assert {d.colour for d in designs} == set(names.tolist())


def test_sellers_photograph_one_product_differently() -> None:
    design = DESIGNS["mugs"]
    by_seller = np.stack([photo(design, by) for by in range(len(BACKDROPS))]).astype(float)
    twice = np.abs(photo(design, 3, seed=1).astype(float) - photo(design, 3, seed=2)).mean()
    between = [np.abs(by_seller[i] - by_seller[j]).mean() for i in range(12) for j in range(i)]
    assert np.median(between) > 1.5 * twice


def test_seller_style_sets_how_often_the_own_hand_shows() -> None:
    rng = np.random.default_rng(0)
    for strength in (0.0, 0.5, 1.0):
        pairs = [styled(7, 5, 20, strength, rng) for _ in range(1500)]
        expected = strength + (1 - strength) / 20
        for hand in (0, 1):
            share = np.mean([pair[hand] is seller(7, 5) for pair in pairs])
            assert share == pytest.approx(expected, abs=0.05)


def test_every_viewpoint_is_drawn_and_main_photos_are_no_close_ups() -> None:
    rng = np.random.default_rng(0)
    habit = seller(7, 0).photo
    assert {view(habit, True, False, rng).viewpoint for _ in range(200)} == set(VIEWPOINTS)
    assert "close" not in {view(habit, True, True, rng).viewpoint for _ in range(200)}


def test_photos_are_sharp_at_any_size() -> None:
    small, large = photo(DESIGNS["sneakers"], size=48), photo(DESIGNS["sneakers"], size=192)
    assert small.shape == (48, 48, 3) and large.shape == (192, 192, 3)
    shrunk = large.reshape(48, 4, 48, 4, 3).mean((1, 3))
    assert np.abs(shrunk - small).mean() < 12
