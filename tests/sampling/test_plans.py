"""Batch plans: what every plan promises, on random tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shoplens.datasets.samples import Samples
from shoplens.errors import ShoplensError
from shoplens.sampling.category import CategoryNegatives, category_plan
from shoplens.sampling.mined import MinedNegatives, mine, mined_plan
from shoplens.sampling.statistics import plan_statistics
from shoplens.sampling.uniform import uniform_plan


def table(n: int, catalogs: int, leaves: int, seed: int) -> Samples:
    """`leaves` leaf categories under three roots; a catalog lies in one of them."""
    rng = np.random.default_rng(seed)
    catalog = rng.integers(catalogs, size=n)
    leaf = rng.integers(leaves, size=catalogs)[catalog]
    category = np.stack([1000 + leaf % 3, leaf], axis=1)
    sample = np.sort(rng.choice(10 * n, size=n, replace=False))
    return Samples(sample, np.arange(n), catalog, category, np.zeros(n, np.uint64))


@settings(max_examples=50, deadline=None)
@given(
    n=st.integers(20, 300),
    batch=st.integers(2, 20),
    catalogs=st.integers(2, 80),
    leaves=st.integers(1, 12),
    share=st.floats(0, 0.9),
    seed=st.integers(0, 2**31),
)
@example(n=20, batch=2, catalogs=2, leaves=1, share=0.75, seed=0)  # no room for a hard negative
def test_every_batch_is_full_of_known_samples_without_repeats(
    n: int, batch: int, catalogs: int, leaves: int, share: float, seed: int
) -> None:
    samples = table(n, catalogs, leaves, seed)
    options = CategoryNegatives(catalogs=4, offers=2, uniform_share=share)
    mining = MinedNegatives(negatives=3, uniform_share=share)
    neighbours = np.random.default_rng(seed).integers(-1, n, size=(n, 3))
    for plan in (
        uniform_plan(samples, batch, seed, 1),
        category_plan(samples, batch, options, seed, 1),
        mined_plan(samples, neighbours, batch, mining, seed, 1),
    ):
        assert plan.shape == (n // batch, batch)
        assert np.isin(plan, samples.sample).all()
        assert all(len(set(row)) == batch for row in plan.tolist())


def test_a_uniform_epoch_shows_no_sample_twice_and_epochs_differ() -> None:
    samples = table(200, 50, 5, 0)
    first, second = (uniform_plan(samples, 30, 7, epoch) for epoch in (0, 1))
    assert len(np.unique(first)) == first.size
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, uniform_plan(samples, 30, 7, 0))


def test_category_batches_are_harder_and_hold_offers_of_one_catalog() -> None:
    samples = table(2000, 700, 25, 1)
    options = CategoryNegatives(catalogs=8, offers=2, uniform_share=0.25)
    row_of = {sample: row for row, sample in enumerate(samples.sample.tolist())}

    def same(plan: np.ndarray, codes: np.ndarray) -> float:
        """Share of pairs within a batch that have the same code."""
        values = [codes[[row_of[s] for s in batch]] for batch in plan.tolist()]
        return float(np.mean([(v[:, None] == v[None, :]).mean() for v in values]))

    uniform, hard = uniform_plan(samples, 64, 0, 0), category_plan(samples, 64, options, 0, 0)
    leaf = samples.category[:, -1]
    assert same(hard, leaf) > 3 * same(uniform, leaf)
    assert same(hard, samples.catalog) > same(uniform, samples.catalog)
    np.testing.assert_array_equal(hard, category_plan(samples, 64, options, 0, 0))


def test_small_leaves_walk_up_to_their_parent() -> None:
    """With 3 catalogs a leaf and 8 wanted, batches must draw whole roots."""
    catalog = np.repeat(np.arange(60), 4)
    leaf = catalog // 3
    category = np.stack([1000 + leaf // 10, leaf], axis=1)
    samples = Samples(np.arange(240), np.arange(240), catalog, category, np.zeros(240, np.uint64))
    plan = category_plan(samples, 16, CategoryNegatives(catalogs=8, offers=2, uniform_share=0), 0, 0)
    for batch in plan:
        assert len(np.unique(leaf[batch])) > 1
        assert len(np.unique(category[batch, 0])) == 1


def test_too_few_samples_are_one_batch_and_no_categories_are_said() -> None:
    samples = table(10, 5, 2, 0)
    few = uniform_plan(samples, 11, 0, 0)
    assert few.shape == (1, 10)
    assert set(few[0]) == set(samples.sample)
    bare = Samples(samples.sample, samples.product, samples.catalog, np.full((10, 2), -1), samples.phash)
    with pytest.raises(ShoplensError, match="need products with a category"):
        category_plan(bare, 5, CategoryNegatives(), 0, 0)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 60), catalogs=st.integers(1, 20), seed=st.integers(0, 2**31), ceiling=st.floats(0.3, 1))
def test_mined_neighbours_are_the_hardest_below_the_ceiling(n: int, catalogs: int, seed: int, ceiling: float) -> None:
    rng = np.random.default_rng(seed)
    image, text = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in rng.normal(size=(2, n, 6)))
    catalog = rng.integers(catalogs, size=n)
    options = MinedNegatives(negatives=4, ceiling=ceiling)
    mined = mine(torch.tensor(image), torch.tensor(text), torch.tensor(catalog), options)
    for row in range(n):
        order = sorted((j for j in range(n) if catalog[j] != catalog[row]), key=lambda j: -(image[row] @ text[j]))
        below = [j for j in order if image[row] @ text[j] <= ceiling * (image[row] @ text[row])]
        assert [j for j in mined.neighbours[row].tolist() if j >= 0] == below[:4]
    assert 0 <= mined.guarded <= 1


def test_mined_batches_hold_anchors_with_their_neighbours() -> None:
    samples = table(400, 100, 5, 2)
    neighbours = (np.arange(400)[:, None] ^ np.array([[1, 2]])).astype(np.int32)
    plan = mined_plan(samples, neighbours, 40, MinedNegatives(negatives=2, uniform_share=0.25), 7, 3)
    row_of = {sample: row for row, sample in enumerate(samples.sample.tolist())}
    for batch in plan.tolist():
        rows = [row_of[sample] for sample in batch]
        complete = sum(row ^ 1 in rows and row ^ 2 in rows for row in rows[:30])
        assert complete >= 10, "every anchor but the last brings both its neighbours"


def test_plan_statistics_of_a_plan_made_by_hand() -> None:
    samples = Samples(
        sample=np.array([10, 11, 12, 13]),
        product=np.arange(4),
        catalog=np.array([0, 0, 1, 2]),
        category=np.array([[5], [5], [6], [-1]]),
        phash=np.array([1, 2, 2, 3], np.uint64),
    )
    found = plan_statistics(np.array([[10, 11, 12], [12, 13, 11]]), samples)
    assert found == pytest.approx(
        {
            "same_catalog": (2 / 3 + 0) / 2,
            "same_photo": (2 / 3 + 2 / 3) / 2,
            "category_entropy": (-(2 / 3) * np.log(2 / 3) - (1 / 3) * np.log(1 / 3) + np.log(2)) / 2,
            "repeats": 2 / 6,
        }
    )
