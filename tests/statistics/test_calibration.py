from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from shoplens.statistics.bootstrap import draw, interval_of_draws
from shoplens.statistics.calibration import (
    BINS,
    NEVER,
    calibration_error,
    fit_temperature,
    reliability,
    threshold_at_precision,
)

scored = st.lists(st.tuples(st.integers(0, 10).map(lambda i: i / 10), st.booleans()), min_size=1, max_size=25)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_temperature_is_found_again(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=(20_000, 5))
    truth = (softmax(logits, axis=1).cumsum(axis=1) > rng.random((20_000, 1))).argmax(axis=1)
    assert fit_temperature(logits * temperature, truth) == pytest.approx(temperature, rel=0.04)


def test_without_rows_the_temperature_is_one() -> None:
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, int)) == 1.0


@settings(max_examples=80, deadline=None)
@given(scored=scored, precision=st.sampled_from([0.5, 0.75, 0.9, 1.0]))
def test_the_threshold_is_the_lowest_that_reaches_the_precision(
    scored: list[tuple[float, bool]], precision: float
) -> None:
    score, right = (np.array(part) for part in zip(*scored, strict=True))
    reaching = [cut for cut in np.unique(score) if right[score >= cut].mean() >= precision]
    assert threshold_at_precision(score, right, precision) == (min(reaching) if reaching else NEVER)


def test_no_rows_no_threshold() -> None:
    assert threshold_at_precision(np.zeros(0), np.zeros(0, bool), 0.9) == NEVER


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 97).map(lambda i: i / 97), st.booleans(), st.integers(0, 3)), min_size=1, max_size=30
    )
)
def test_the_calibration_error_is_its_definition(rows: list[tuple[float, bool, int]]) -> None:
    confidence, right, unit = (np.array(part) for part in zip(*rows, strict=True))
    edges, expected = np.linspace(0, 1, BINS + 1), 0.0
    edges[-1] += 1e-9
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (confidence >= low) & (confidence < high)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    statistic = calibration_error(confidence, right, unit, np.arange(4))
    assert statistic.value == pytest.approx(expected, abs=1e-9)
    bins = reliability(confidence, right)
    assert sum(one["n"] for one in bins) == len(rows)
    assert sum(one["n"] * abs(one["right"] - one["confidence"]) for one in bins) / len(rows) == pytest.approx(expected)


def test_a_calibrated_model_has_little_error_and_a_sure_one_much() -> None:
    rng = np.random.default_rng(0)
    group = np.arange(4000)
    confidence = rng.random(4000)
    right = rng.random(4000) < confidence
    honest = calibration_error(confidence, right, group, group)
    boastful = calibration_error(np.full(4000, 0.99), right, group, group)
    assert honest.value < 0.04
    low, high = interval_of_draws(draw(boastful), 4000)
    assert low < 0.49 < high and boastful.value > 10 * honest.value
