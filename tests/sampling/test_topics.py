"""Batches of topics: their layout, and the distribution that lists are drawn from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shoplens.curation.topics import TopicProducts
from shoplens.errors import ShoplensError
from shoplens.sampling.topics import Draw, TopicBatch, drawn, topic_plan


def table(sizes: list[int], seed: int = 0) -> TopicProducts:
    topic = np.repeat(np.arange(len(sizes)) * 2, sizes)
    liked = np.random.default_rng(seed).exponential(size=len(topic))
    return TopicProducts(topic, np.arange(len(topic)), liked, liked, np.ones(len(topic), bool))


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=12, max_size=40),
    matching=st.sampled_from([0, 4, 6, 8, 12]),
    groups=st.integers(1, 4),
    candidates=st.integers(2, 6),
    draw=st.sampled_from(["random", "stratified", "reference"]),
    one_topic=st.booleans(),
    workers=st.sampled_from([1, 2, 4]),
)
@example(sizes=[6] * 5 + [1] * 7, matching=4, groups=4, candidates=6, draw="random", one_topic=False, workers=1)
def test_shares_hold_different_topics_to_match_and_whole_lists(
    sizes: list[int], matching: int, groups: int, candidates: int, draw: Draw, one_topic: bool, workers: int
) -> None:
    candidates_of, batch = table(sizes), TopicBatch(matching, groups, candidates)
    enough = {2 * i for i, n in enumerate(sizes) if n >= candidates}
    if len(enough) < (1 if one_topic else groups):
        with pytest.raises(ShoplensError, match="too few"):
            topic_plan(candidates_of, batch, 1, 0, draw=draw, one_topic=one_topic)
        return
    plan = topic_plan(candidates_of, batch, 1, 0, draw=draw, one_topic=one_topic)
    np.testing.assert_array_equal(plan, topic_plan(candidates_of, batch, 1, 0, draw=draw, one_topic=one_topic))
    assert plan.shape[1] == batch.size
    visited = set()
    for row in plan:
        pairs, lists = batch.apart(row)
        assert len(set(candidates_of.topic[pairs].tolist())) == matching == len(pairs)
        assert lists.shape == (groups, candidates)
        for one in lists:
            assert len(set(one.tolist())) == candidates
            assert len(set(candidates_of.topic[one].tolist())) == 1
        topics = candidates_of.topic[lists[:, 0]].tolist()
        assert len(set(topics)) == (1 if one_topic else groups)
        visited.update(topics)
        if batch.blocks % workers == 0:
            shares = [batch.apart(share) for share in np.split(row, workers)]
            np.testing.assert_array_equal(np.concatenate([share[0] for share in shares]), pairs)
            np.testing.assert_array_equal(np.concatenate([share[1] for share in shares]), lists)
    assert visited == enough


def test_what_is_matched_is_what_the_topic_lists_where_it_lists_any() -> None:
    shown = table([20] * 12)
    listed = np.random.default_rng(3).random(len(shown)) < 0.3
    listed[shown.topic == 0] = False
    batch = TopicBatch(12, 1, 4)
    plan = topic_plan(replace(shown, listed=listed), batch, 1, 0)
    pairs = np.concatenate([batch.apart(row)[0] for row in plan])
    assert (listed[pairs] | (shown.topic[pairs] == 0)).all()
    lists = np.concatenate([batch.apart(row)[1].ravel() for row in plan])
    assert not listed[lists].all()


def test_a_share_of_half_a_block_is_refused() -> None:
    batch = TopicBatch(6, 3, 4)
    with pytest.raises(ShoplensError, match="number of workers"):
        batch.apart(np.arange(batch.size // 2))


@pytest.mark.parametrize(
    ("like", "best", "in_best_five", "not_first", "zeros"),
    [("clicks", 0.48, 0.96, 0.08, 0.45), ("reviews", 0.82, 0.997, 0.02, 0.09)],
)
def test_lists_as_the_reference_draws_them(
    like: str, best: float, in_best_five: float, not_first: float, zeros: float
) -> None:
    """Shares that the specification gives for groups of 50 to 75 and lists of 20, on liking of the same make."""
    rng = np.random.default_rng(0)
    seen = np.zeros(4)
    n = 5000
    for _ in range(n):
        size = int(rng.integers(50, 76))
        if like == "clicks":
            liked = np.where(rng.random(size) < 0.4, 0, rng.exponential(size=size))
        else:
            liked = np.floor(rng.lognormal(3, 2, size))
        chosen = drawn(liked, 20, "reference", rng)
        label = chosen[np.argmax(liked[chosen])]
        rank = (liked > liked[label]).sum()
        seen += (rank == 0, rank < 5, liked[label] != liked[chosen[0]], (liked[chosen] == 0).mean())
    np.testing.assert_allclose(seen / n, (best, in_best_five, not_first, zeros), atol=0.03)


def test_a_stratified_list_has_its_share_of_the_most_the_middling_and_the_least_liked() -> None:
    rng = np.random.default_rng(2)
    liked = rng.permutation(30).astype(float)
    for k in (6, 7, 30):
        third = (29 - liked[drawn(liked, k, "stratified", rng)]) // 10
        counts = np.bincount(third.astype(int), minlength=3)
        assert counts.sum() == k
        assert counts.max() - counts.min() <= 1
