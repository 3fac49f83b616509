"""Batches by class: what every plan promises, on random tables."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shoplens.datasets.samples import Samples
from shoplens.errors import ShoplensError
from shoplens.sampling.classes import ClassBatches, class_plan


def table(sizes: list[int], leaf_of_class: list[int], seed: int) -> tuple[Samples, np.ndarray]:
    """Photos of classes of these sizes in a random order, leaves under roots of two; a tenth of no class."""
    rng = np.random.default_rng(seed)
    label = np.concatenate([np.repeat(np.arange(len(sizes)) * 3, sizes), np.full(sum(sizes) // 10 + 1, -1)])
    label = label[rng.permutation(len(label))]
    n = len(label)
    leaf = np.array([*leaf_of_class, -1])[label // 3]
    category = np.stack([np.where(leaf < 0, -1, 1000 + leaf // 2), leaf], axis=1)
    sample = np.sort(rng.choice(10 * n, size=n, replace=False))
    return Samples(sample, np.arange(n), np.zeros(n, np.int64), category, np.zeros(n, np.uint64)), label


def classes_of(plan: np.ndarray, samples: Samples, label: np.ndarray, *shape: int) -> np.ndarray:
    """The label of each photo of a plan, [steps, *shape]."""
    return label[np.searchsorted(samples.sample, plan)].reshape(len(plan), *shape)


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=40),
    classes=st.integers(2, 8),
    each=st.integers(2, 4),
    seed=st.integers(0, 2**31),
)
@example(sizes=[400, 2, 2, 2], classes=3, each=2, seed=0)  # one class has nearly all photos
@example(sizes=[9] * 25, classes=25, each=9, seed=0)  # one batch holds everything
@example(sizes=[9] * 25, classes=100, each=9, seed=0)  # CUB's quarter on one of four workers: no batch at all
def test_a_class_comes_once_a_batch_and_in_proportion_to_its_photos(
    sizes: list[int], classes: int, each: int, seed: int
) -> None:
    samples, label = table(sizes, [0] * len(sizes), seed)
    batch = ClassBatches(classes=classes, samples=each)
    groups = [size // each for size in sizes]
    if sum(n > 0 for n in groups) < classes:
        with pytest.raises(ShoplensError, match=f"{sum(n > 0 for n in groups)} classes of {each} photos or more"):
            class_plan(samples, label, batch, seed, 0)
        return
    plan = class_plan(samples, label, batch, seed, 0)
    assert plan.shape[1] == batch.size == classes * each
    assert len(np.unique(plan)) == plan.size, "no photo twice an epoch"
    found = classes_of(plan, samples, label, classes, each)
    assert (found >= 0).all()
    assert (found == found[:, :, :1]).all(), "the photos of a class stand side by side"
    assert all(len(set(met)) == classes for met in found[:, :, 0].tolist())

    steps = len(plan)
    assert sum(min(n, steps + 1) for n in groups) < (steps + 1) * classes, "one more batch could not be filled"
    visits = Counter(found[:, :, 0].ravel().tolist())
    missing = [min(n, steps) - visits[3 * i] for i, n in enumerate(groups)]
    assert min(missing) >= 0
    assert sum(missing) < classes, "nothing but what does not fill a batch is left out"


@settings(max_examples=100, deadline=None)
@given(
    content=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=8), min_size=1, max_size=10),
    categories=st.integers(2, 4),
    classes=st.integers(2, 4),
    each=st.integers(2, 3),
    level=st.sampled_from([0, 1, -1]),
    seed=st.integers(0, 2**31),
)
def test_balanced_batches_hold_as_many_classes_of_each_of_their_categories(
    content: list[list[int]], categories: int, classes: int, each: int, level: int, seed: int
) -> None:
    """`content`: sizes of the classes of each leaf; leaves 2 i and 2 i + 1 are of one root."""
    sizes = [size for leaf in content for size in leaf]
    leaf_of = [i for i, leaf in enumerate(content) for _ in leaf]
    samples, label = table(sizes, leaf_of, seed)
    batch = ClassBatches(classes=classes, samples=each, categories=categories, level=level)
    usable = Counter(leaf for size, leaf in zip(sizes, leaf_of, strict=True) if size >= each)
    home = {leaf: f"root {leaf // 2}" if level == 0 or usable[leaf] < classes else f"leaf {leaf}" for leaf in leaf_of}
    fitting = Counter(home[leaf] for leaf in usable.elements())
    enough = {name for name, n in fitting.items() if n >= classes}
    if len(enough) < categories:
        with pytest.raises(ShoplensError, match=f"in {len(enough)} categories"):
            class_plan(samples, label, batch, seed, 0)
        return
    plan = class_plan(samples, label, batch, seed, 0)
    assert len(plan) > 0
    assert plan.shape[1] == batch.size == categories * classes * each
    assert len(np.unique(plan)) == plan.size
    found = classes_of(plan, samples, label, categories, classes, each)
    assert (found == found[..., :1]).all()
    for step in found[..., 0]:
        homes = [{home[leaf_of[one // 3]] for one in block} for block in step.tolist()]
        assert all(len(one) == 1 for one in homes)
        assert len(set.union(*homes)) == categories
        assert len(set(step.ravel().tolist())) == categories * classes


@pytest.mark.parametrize("categories", [None, 2])
def test_a_plan_is_a_function_of_table_seed_and_epoch_and_has_equal_steps(categories: int | None) -> None:
    samples, label = table([7, 5, 4, 9, 2, 6, 6, 3] * 5, [0, 0, 1, 1, 2, 2, 3, 3] * 5, 1)
    batch = ClassBatches(classes=3, samples=2, categories=categories)
    first = class_plan(samples, label, batch, 7, 0)
    np.testing.assert_array_equal(first, class_plan(samples, label, batch, 7, 0))
    for seed, epoch in [(7, 1), (8, 0)]:
        other = class_plan(samples, label, batch, seed, epoch)
        assert other.shape == first.shape
        assert not np.array_equal(other, first)


def test_epochs_together_show_every_photo() -> None:
    """Three photos in pairs: one is left out, another each time."""
    samples, label = table([3] * 20, [0] * 20, 2)
    shown = [class_plan(samples, label, ClassBatches(classes=5, samples=2), 0, epoch) for epoch in range(30)]
    assert set(np.concatenate(shown).ravel().tolist()) == set(samples.sample[label >= 0].tolist())


def test_partners_change_from_epoch_to_epoch() -> None:
    samples, label = table([2] * 40, [0] * 40, 3)
    met: Counter[tuple[int, int]] = Counter()
    for epoch in range(20):
        found = classes_of(class_plan(samples, label, ClassBatches(classes=8), 0, epoch), samples, label, 8, 2)
        met.update((a, b) for step in found[:, :, 0].tolist() for a in step for b in step if a < b)
    assert len(met) > 0.9 * 40 * 39 / 2
    assert max(met.values()) <= 12


def test_tables_without_a_class_and_levels_that_are_none_are_refused() -> None:
    samples, label = table([4, 4], [0, 1], 4)
    with pytest.raises(ShoplensError, match="0 classes of 2 photos or more"):
        class_plan(samples, np.full(len(label), -1), ClassBatches(classes=2), 0, 0)
    with pytest.raises(ShoplensError, match="0 classes of 2 photos or more, in 0 categories"):
        class_plan(samples, np.full(len(label), -1), ClassBatches(classes=2, categories=2), 0, 0)
    with pytest.raises(ShoplensError, match="level is 2, and the category tree has 2 levels"):
        class_plan(samples, label, ClassBatches(classes=2, categories=2, level=2), 0, 0)
    bare = Samples(samples.sample, samples.product, samples.catalog, np.full_like(samples.category, -1), samples.phash)
    with pytest.raises(ShoplensError, match="in 0 categories"):
        class_plan(bare, label, ClassBatches(classes=2, categories=2), 0, 0)


def test_the_batches_of_a_large_class_are_spread_over_the_epoch() -> None:
    samples, label = table([20] + [2] * 190, [0] * 191, 5)
    plan = class_plan(samples, label, ClassBatches(classes=5), 0, 0)
    steps = np.flatnonzero((classes_of(plan, samples, label, 10) == 0).any(axis=1))
    assert len(steps) == 10
    assert np.ptp(steps) > 20
