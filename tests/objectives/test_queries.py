"""The loss of short queries against a dense float64 sum over right pairs, on random and ragged batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shoplens.objectives.queries import matches, query_loss


def by_hand(x: np.ndarray, q: np.ndarray, right: np.ndarray, scale: float) -> float:
    scores = scale * x @ q.T

    def one_way(scores: np.ndarray, right: np.ndarray) -> float:
        losses = []
        for row, good in zip(scores, right, strict=True):
            total = math.log(sum(math.exp(score) for score in row))
            losses.append(total - row[good].mean() if good.any() else 0.0)
        return sum(losses) / len(losses)

    return (one_way(scores, right) + one_way(scores.T, right.T)) / 2


@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 7), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_it_is_the_cross_entropy_to_shared_targets(seed: int, n: int, m: int, keys: int) -> None:
    rng = np.random.default_rng(seed)
    facts, asks = rng.integers(-1, 3, (n, keys)), rng.integers(-1, 3, (m, keys))
    right = np.array(
        [
            [any(ask >= 0) and all(a < 0 or a == f for a, f in zip(ask, fact, strict=True)) for ask in asks]
            for fact in facts
        ]
    )
    assert np.array_equal(matches(torch.tensor(facts), torch.tensor(asks)).numpy(), right)
    x, q = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (rng.normal(size=(k, 5)) for k in (n, m)))
    image, query = (torch.tensor(rows, requires_grad=True) for rows in (x, q))
    loss = query_loss(image, query, torch.tensor(facts), torch.tensor(asks), torch.tensor(7.0, dtype=torch.float64))
    assert loss.item() == pytest.approx(by_hand(x, q, right, 7.0), abs=1e-12)
    loss.backward()
    assert torch.isfinite(image.grad).all() and torch.isfinite(query.grad).all()


def test_its_gradient_is_that_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    image, query = (torch.randn(n, 4, dtype=torch.float64, generator=generator, requires_grad=True) for n in (5, 3))
    facts = torch.tensor([[0, 1], [0, 2], [1, 1], [-1, 2], [2, 2]])
    asks = torch.tensor([[0, -1], [-1, 2], [-1, -1]])
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, q, s: query_loss(x, q, facts, asks, s), (image, query, scale))
