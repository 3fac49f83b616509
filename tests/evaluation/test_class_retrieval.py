from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shoplens.errors import ShoplensError
from shoplens.evaluation.class_retrieval import class_retrieval
from shoplens.evaluation.metrics import TIE, recall_at
from shoplens.evaluation.ranking import rank
from shoplens.objectives import hyperbolic


@settings(max_examples=80, deadline=None)
@given(
    n=st.integers(1, 25),
    classes=st.integers(1, 8),
    copies=st.integers(0, 8),
    k=st.integers(1, 5),
    seed=st.integers(0, 2**31),
)
def test_recall_is_that_of_a_loop_with_every_tie_lost(n: int, classes: int, copies: int, k: int, seed: int) -> None:
    """Some photos are copies of others, in their class or in another."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 4)).astype(np.float32)
    vectors[rng.integers(n, size=copies)] = vectors[rng.integers(n, size=copies)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    label = rng.integers(-1, classes, size=n)
    expected = []
    for i in range(n):
        others = [j for j in range(n) if j != i]
        mates = [j for j in others if label[j] == label[i] >= 0]
        if mates:
            best = max(float(vectors[i] @ vectors[j]) for j in mates)
            wrong = [j for j in others if j not in mates and float(vectors[i] @ vectors[j]) >= best - TIE]
            expected.append(float(len(wrong) < k))
    task = class_retrieval(vectors, label)
    assert recall_at(k, rank(task).first).tolist() == expected
    assert task.n_without_answer == n - len(expected)


def test_a_copy_is_right_in_its_class_and_wrong_in_another() -> None:
    """Dropping the best hit as the query itself would drop a copy, or keep the query."""
    one, other = [1.0, 0.0], [0.6, 0.8]
    vectors = np.array([one, one, other, other, [0.0, 1.0]])
    ranks = rank(class_retrieval(vectors, np.array([0, 0, 1, 2, 1])))
    assert recall_at(1, ranks.first).tolist() == [1, 1, 0, 0]
    assert ranks.n_gallery.tolist() == [4] * 4


@pytest.mark.parametrize("length", [0.0, 1e-3, 1.0])
def test_one_point_for_everything_finds_nothing_in_the_ball(length: float) -> None:
    points = hyperbolic.to_ball(torch.full((60, 8), length, dtype=torch.float64), 0.1, 2.3)
    lifted = (lift(points, 0.1).numpy() for lift in (hyperbolic.lift_queries, hyperbolic.lift_items))
    queries, items = lifted
    assert (rank(class_retrieval(queries, np.arange(60) // 2, items)).first == 58).all()


def test_vectors_that_are_not_finite_are_refused() -> None:
    """A right item whose score is nan would rank before every wrong one."""
    for bad in (np.nan, np.inf):
        vectors = np.eye(4)
        vectors[1, 2] = bad
        with pytest.raises(ShoplensError, match="diverged"):
            class_retrieval(vectors, np.array([0, 0, 1, 1]))


def test_one_vector_for_everything_finds_nothing() -> None:
    ranks = rank(class_retrieval(np.ones((60, 8)) / np.sqrt(8), np.arange(60) // 2))
    assert recall_at(10, ranks.first).sum() == 0
    assert (ranks.first == 58).all()


@pytest.mark.parametrize(("c", "length"), [(0.01, 1), (0.1, 1), (1.0, 1), (1e-3, 0.03), (1e-4, 0.1), (1e-4, 0.01)])
def test_lifted_points_are_ranked_by_hyperbolic_distance(c: float, length: float) -> None:
    """However short the rows and however flat the ball."""
    generator = torch.Generator().manual_seed(0)
    points = hyperbolic.to_ball(length * torch.randn(120, 6, dtype=torch.float64, generator=generator), c, 2.3)
    label = np.arange(120) // 3
    near = hyperbolic.distances(points, points, c).fill_diagonal_(torch.inf).numpy()
    mate = (label[:, None] == label) & ~np.eye(120, dtype=bool)
    best = np.where(mate, near, np.inf).min(axis=1)
    first = (np.where(mate, np.inf, near) < best[:, None]).sum(axis=1)
    task = class_retrieval(hyperbolic.lift_queries(points, c).numpy(), label, hyperbolic.lift_items(points, c).numpy())
    np.testing.assert_array_equal(rank(task).first, first)


def test_no_photo_and_no_class_ask_nothing() -> None:
    assert len(class_retrieval(np.empty((0, 3)), np.empty(0, np.int64))) == 0
    assert class_retrieval(np.eye(3), np.array([-1, -1, 5])).n_without_answer == 3
