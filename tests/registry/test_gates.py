from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoplens.config import ConfigError, validate
from shoplens.errors import ShoplensError
from shoplens.evaluation import matching, tasks
from shoplens.evaluation.embedded import EmbeddedSplit
from shoplens.evaluation.results import Evaluation, Metric
from shoplens.registry.gates import Gate, Gates, NotComparable, Verdict, judge
from shoplens.statistics.bootstrap import paired_difference, ratio

RECALL = "text_to_image/recall@10"


def _evaluation(hits: list[float], groups: list[int] | None = None) -> Evaluation:
    return Evaluation.of({RECALL: np.array(hits)}, {RECALL: np.array(groups or range(len(hits)))})


outcome_lists = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=30)


@given(outcome_lists, st.integers(0, 20), st.integers(0, 20))
def test_a_gate_passes_above_its_floor_and_within_its_drop(pairs: list[tuple[int, int]], floor: int, drop: int) -> None:
    """Against exact arithmetic on counts of hits."""
    n = len(pairs)
    ours, theirs = (sum(hit) for hit in zip(*pairs, strict=True))
    gate = Gate(metric=RECALL, at_least=floor / 20, max_drop=drop / 20)
    candidate, holder = (_evaluation([float(x) for x in hits]) for hits in zip(*pairs, strict=True))
    (verdict,) = judge([gate], candidate, holder)
    above, within = 20 * ours >= floor * n, 20 * (theirs - ours) <= drop * n
    assert verdict.passed == (above and within), verdict.why


def test_the_interval_is_the_paired_one_and_does_not_decide() -> None:
    rng = np.random.default_rng(0)
    a, b, groups = rng.integers(0, 2, 60), rng.integers(0, 2, 60), np.arange(60) // 3
    candidate, holder = (_evaluation([float(x) for x in hits], groups.tolist()) for hits in (a, b))
    difference, low, high = paired_difference(a, b, groups)
    (verdict,) = judge([Gate(metric=RECALL, max_drop=max(0.0, -difference))], candidate, holder)
    assert (verdict.difference, verdict.difference_low, verdict.difference_high) == (difference, low, high)
    assert low < min(0.0, difference)
    assert verdict.passed
    assert f"{difference:+.4f} [{low:+.4f}, {high:+.4f}]" in verdict.why


def test_without_a_holder_only_the_floor_counts() -> None:
    candidate = _evaluation([1.0, 0.0, 0.0, 0.0])
    low, high = judge([Gate(metric=RECALL, max_drop=0), Gate(metric=RECALL, at_least=0.5)], candidate, None)
    assert low.passed
    assert "nothing holds the alias" in low.why
    assert not high.passed
    assert "below the floor 0.5" in high.why


def test_nan_never_passes() -> None:
    broken = Evaluation(
        {RECALL: Metric(math.nan, math.nan, math.nan, 2)},
        {RECALL: np.full(2, math.nan)},
        {RECALL: np.arange(2)},
    )
    fine = _evaluation([0.0, 0.0])
    assert not judge([Gate(metric=RECALL, at_least=0)], broken, None)[0].passed
    assert not judge([Gate(metric=RECALL, max_drop=1)], broken, fine)[0].passed


def test_a_gate_on_what_was_not_measured_is_an_error_not_a_pass() -> None:
    with pytest.raises(ShoplensError, match=r"did you mean text_to_image/recall@10\?"):
        judge([Gate(metric="text_to_image/recal@10", at_least=0.1)], _evaluation([1.0, 0.0]), None)


def test_a_gate_on_a_task_without_answers_leaves_the_decision_to_the_others() -> None:
    """A shop without catalog ids, one photo a product: matching was asked for, and has nothing to find."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(6, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    split = EmbeddedSplit(
        images=vectors,
        samples=np.arange(6),
        product=np.arange(6),
        texts=[f"item {n}" for n in range(6)],
        text_vectors=vectors,
        catalog=np.arange(6),
        category=None,
        category_vectors=None,
        category_paths=[],
        attributes=[{}] * 6,
    )
    found = tasks.retrieve(split)
    found.include(matching.match(split))
    shop = found.evaluation()
    asked, other = (
        Gate(metric="matching/image/recall@1", at_least=0.1, max_drop=0.02),
        Gate(metric=RECALL, at_least=0.5),
    )
    skipped, judged = judge([asked, other], shop, shop)
    assert (skipped.judged, skipped.passed, skipped.value) == (False, True, None)
    assert "not judged" in skipped.why and "catalog_id" in skipped.why
    assert judged.judged and judged.passed
    assert not judge([asked, Gate(metric=RECALL, at_least=1.1)], shop, None)[1].passed
    assert Verdict.model_validate_json(skipped.model_dump_json()) == skipped
    with pytest.raises(ShoplensError, match="not judged"):
        judge([asked], shop, None)
    with pytest.raises(ShoplensError, match="did not measure it"):
        judge([Gate(metric="matching/images/recall@1", at_least=0.1)], shop, None)


@pytest.mark.parametrize("theirs", [_evaluation([1.0, 0.0]), _evaluation([1.0, 0.0, 1.0], [0, 0, 1])])
def test_different_queries_cannot_be_compared(theirs: Evaluation) -> None:
    with pytest.raises(NotComparable, match="different queries"):
        judge([Gate(metric=RECALL, max_drop=0.1)], _evaluation([1.0, 0.0, 1.0]), theirs)


def _statistic(hits: np.ndarray, groups: int = 60, **rest: Collection[str]) -> Evaluation:
    one = ratio(hits, np.ones(len(hits)), np.arange(len(hits)) % groups, np.arange(groups))
    return Evaluation.of({}, {}, statistics={RECALL: one}, **rest)  # type: ignore[arg-type]


def test_a_statistic_is_compared_draw_by_draw() -> None:
    """The ratio of a sum to a count is a mean: its paired interval must be that of the outcomes."""
    rng = np.random.default_rng(0)
    theirs = rng.random(240) < 0.5
    ours = theirs ^ (rng.random(240) < 0.05)
    (verdict,) = judge([Gate(metric=RECALL, max_drop=0.5)], _statistic(ours), _statistic(theirs))
    difference, low, high = paired_difference(ours, theirs, np.arange(240) % 60)
    assert verdict.difference == pytest.approx(difference)
    assert verdict.difference_low == pytest.approx(low, abs=0.01)
    assert verdict.difference_high == pytest.approx(high, abs=0.01)
    apart = _statistic(theirs).metrics[RECALL]
    assert high - low < 0.7 * (apart.high - apart.low), "pairing tells more than two intervals"


def test_statistics_of_other_products_or_against_outcomes_are_not_compared() -> None:
    hits = np.ones(60)
    for other in (_statistic(hits, groups=30), _evaluation([1.0] * 60)):
        with pytest.raises(NotComparable, match="different queries"):
            judge([Gate(metric=RECALL, max_drop=0.1)], _statistic(hits), other)


def test_errors_take_a_ceiling_and_nothing_else() -> None:
    error = _statistic(np.arange(60) < 3, lower_is_better={RECALL})
    for ceiling in (0.05, 0.06):
        assert judge([Gate(metric=RECALL, at_most=ceiling)], error, None)[0].passed
    (verdict,) = judge([Gate(metric=RECALL, at_most=0.04)], error, _statistic(np.ones(60), groups=30))
    assert not verdict.passed and "above the ceiling 0.04" in verdict.why
    with pytest.raises(ShoplensError, match="is an error: set at_most"):
        judge([Gate(metric=RECALL, at_least=0.1)], error, None)
    with pytest.raises(ShoplensError, match="is better when higher"):
        judge([Gate(metric=RECALL, at_most=0.1)], _evaluation([1.0, 0.0]), None)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"gates": [{"metric": RECALL, "at_lest": 0.1}]}, "did you mean at_least"),
        ({"gates": [{"metric": RECALL}]}, "needs at_least, max_drop or both"),
        ({"gates": [{"metric": RECALL, "max_drop": -0.1}]}, "max_drop"),
        ({"gates": [{"metric": RECALL, "at_least": math.nan}]}, "at_least"),
        ({"gates": [{"metric": RECALL, "at_least": 0.1, "at_most": 0.2}]}, "set one kind"),
        ({"gates": []}, "gates"),
        ({}, "gates"),
    ],
)
def test_gates_that_say_nothing_are_refused(tree: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Gates, tree, "gates")
