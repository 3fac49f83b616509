"""What lists would earn: by hand on small logs, and on a simulated log whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from shoplens.search.lists.value import Impressions, value_of_lists

LISTS = np.array([[0, 1], [2, -1]])


def shown(*rows: tuple[int, int, int, float, float, int]) -> Impressions:
    row, item, place, reward, propensity, user = zip(*rows, strict=True)
    integer = [np.array(one) for one in (row, item, place, user)]
    return Impressions(*integer[:3], np.array(reward), np.array(propensity), integer[3])


def test_weights_of_what_the_lists_show_too() -> None:
    log = shown(
        (0, 0, 0, 1.0, 0.5, 0),
        (0, 1, 0, 1.0, 0.5, 1),
        (0, 1, 1, 0.0, 0.25, 2),
        (1, 2, 0, 0.0, 1.0, 3),
        (1, 2, 1, 1.0, 0.5, 4),
        (1, 3, 1, 0.0, 0.5, 5),
        (0, 0, 7, 1.0, 0.5, 6),
    )
    found = value_of_lists(log, LISTS, 4)
    told = found.about["off_policy"]
    assert (told["impressions"], told["matched"], told["logged"]) == (6, 3, pytest.approx(3 / 6))
    assert told["clip"] == pytest.approx(np.sqrt(6))
    clipped = np.sqrt(6)
    metrics = found.evaluation().metrics
    assert metrics["off_policy/ips"].value == pytest.approx(2 / 6)
    assert metrics["off_policy/snips"].value == pytest.approx(2 / (2 + clipped + 1))
    assert told["estimates"]["ips"]["value"] == pytest.approx(2 / 6)
    assert told["estimates"]["snips"]["value"] == pytest.approx(2 / (3 + clipped))
    assert told["estimates"]["ips"]["mean_weight"] == pytest.approx(7 / 6)
    assert metrics["off_policy/dr"].value == pytest.approx(told["estimates"]["dr"]["value"])
    assert metrics["off_policy/ips"].low == pytest.approx(told["estimates"]["ips"]["interval"][0])


def test_a_log_that_says_nothing_of_the_lists_says_so() -> None:
    users = [(0, 3, 0, 1.0, 0.5, user) for user in range(9)]
    found = value_of_lists(shown(*users), LISTS, 4)
    assert not found.outcomes and "shows nothing of what was logged" in found.about["off_policy"]["not_known"]
    found = value_of_lists(shown(*((0, 0, 0, 1.0, 0.5, 1) for _ in range(9))), LISTS, 4)
    assert "folds" in found.about["off_policy"]["not_known"], "of one user nothing can be held out"
    assert not value_of_lists(shown(*users).keep(np.zeros(9, bool)), LISTS, 4).about


def test_estimates_are_near_the_truth_where_items_were_drawn_at_random() -> None:
    """Four items on two places, drawn with unequal known probabilities; their click rates are known."""
    rng = np.random.default_rng(3)
    n, rates = 20_000, np.array([[0.5, 0.3, 0.1, 0.05], [0.25, 0.15, 0.05, 0.02]])
    logging = np.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])
    place = rng.integers(2, size=n)
    item = (rng.random(n)[:, None] > np.cumsum(logging[place], axis=1)).sum(axis=1)
    click = (rng.random(n) < rates[place, item]).astype(float)
    log = Impressions(np.zeros(n, int), item, place, click, logging[place, item], rng.integers(900, size=n))
    found = value_of_lists(log, np.array([[0, 1]]), 4)
    truth = (rates[0, 0] + rates[1, 1]) / 2
    assert abs(click.mean() - truth) > 0.1
    for name, estimate in found.about["off_policy"]["estimates"].items():
        low, high = estimate["interval"]
        assert abs(estimate["value"] - truth) < 1.5 * (high - low) < 0.2, name
        assert estimate["mean_weight"] == pytest.approx(1, abs=0.05)
