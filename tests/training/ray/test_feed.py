"""Batches by Ray Data: every step of the plan once, in order, each rank its slice."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from shoplens.training.ray.feed import PlanConfig, Segment, segments, steps_of
from tests.training.conftest import MakeRecipe

STEPS = 6
"""Batches of 16 in an epoch of 96 photos."""


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ((), [(0, 24)]),
        (("negatives=mined", "mined_negatives={start_epoch: 2}"), [(0, 12), (12, 18), (18, 24)]),
        (("negatives=mined", "mined_negatives={start_epoch: 9}"), [(0, 24)]),
        (("negatives=mined", "training.batch_sizes={2: 32}"), [(0, 6), (6, 12), (12, 15), (15, 18)]),
    ],
)
def test_every_mined_epoch_is_a_segment_of_its_own(
    small_recipe: MakeRecipe, settings: tuple[str, ...], expected: list[tuple[int, int]]
) -> None:
    recipe = small_recipe("training.epochs=4", *settings)
    found = segments(recipe)
    assert [(segment.first, segment.stop) for segment in found] == expected
    assert len({segment.name for segment in found}) == len(found)
    steps = list(chain.from_iterable(range(segment.first, segment.stop) for segment in found))
    assert steps == list(range(recipe.timeline.total))


def test_steps_begin_at_the_first_that_is_not_done(ray_local: None) -> None:
    done = 0
    dataset = steps_of(Segment("second epoch", STEPS, 2 * STEPS), lambda: done)

    def steps() -> list[int]:
        return sorted(row["step"] for row in dataset().take_all())

    assert steps() == [6, 7, 8, 9, 10, 11]  # nothing is done: its own steps all the same
    done = 9  # the workers restart from a later checkpoint
    assert steps() == [9, 10, 11]
    assert dataset().materialize().num_blocks() == 3


@pytest.mark.parametrize("world_size", [1, 2])
def test_each_rank_gets_its_slice_of_every_step_in_order(
    ray_local: None, small_recipe: MakeRecipe, tmp_path: Path, world_size: int
) -> None:
    """Across the border of two epochs, whose plans and augmentations differ."""
    recipe = small_recipe("training.epochs=2")
    (segment,) = segments(recipe)
    begun = 4
    ranks = PlanConfig(recipe, 2, tmp_path).configure(
        {segment.name: steps_of(segment, lambda: begun)()}, world_size=world_size
    )
    assert len(ranks) == world_size
    plans = [recipe.plan(epoch) for epoch in range(2)]
    assert not np.array_equal(plans[0], plans[1])
    for rank, shards in enumerate(ranks):
        rows = list(shards[segment.name].iter_batches(batch_size=1, batch_format="numpy"))
        assert [int(row["step"][0]) for row in rows] == list(range(begun, 2 * STEPS))
        for row in rows:
            epoch, batch = divmod(int(row["step"][0]), STEPS)
            own = plans[epoch][batch].reshape(world_size, -1)[rank]
            expected = recipe.collate(own, epoch)
            assert row.keys() == {"step", *expected}
            for name, values in expected.items():
                np.testing.assert_array_equal(row[name][0], values)
