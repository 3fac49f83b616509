from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from shoplens.errors import ShoplensError
from shoplens.evaluation.heads import probes
from shoplens.evaluation.heads.probes import AttributeHeads, LinearHead

NOTHING = np.zeros((0, 6), np.float32)


def _rows(seed: int, n: int, values: str = "abc", noise: float = 1.0) -> tuple[np.ndarray, list[str | None]]:
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(99).normal(size=(len(values), 6)) * 1.5
    code = rng.integers(len(values), size=n)
    return (centers[code] + noise * rng.normal(size=(n, 6)) + 3).astype(np.float32), [values[c] for c in code]


@pytest.mark.parametrize("values", ["ab", "abc"])
def test_a_head_is_sklearns_model_on_standardised_rows(values: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "DEFAULT_PENALTY", 0.1)
    vectors, labels = _rows(0, 300, values)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-6)).fit(vectors, labels)
    ours = LinearHead.fit(vectors, labels, NOTHING, [])
    assert ours.values == tuple(values)
    np.testing.assert_allclose(ours.predict_proba(vectors), theirs.predict_proba(vectors), atol=5e-3)
    answers = ours.answer(vectors)
    assert [ours.values[code] for code in answers.code] == theirs.predict(vectors).tolist()
    assert answers.answered.all(), "no development rows, no abstention"


def test_what_is_not_known_is_no_negative() -> None:
    vectors, labels = _rows(1, 200)
    more, _ = _rows(2, 100)
    with_unknown = LinearHead.fit(np.concatenate([vectors, more]), [*labels, *[None] * 100], NOTHING, [])
    without = LinearHead.fit(vectors, labels, NOTHING, [])
    np.testing.assert_array_equal(with_unknown.weights, without.weights)
    np.testing.assert_array_equal(with_unknown.bias, without.bias)


def test_probabilities_are_calibrated_and_answers_as_precise_as_asked() -> None:
    vectors, labels = _rows(1, 150, noise=2.0)
    head = LinearHead.fit(vectors, labels, *_rows(2, 3000, noise=2.0), precision=0.9)
    fresh, truth = _rows(3, 6000, noise=2.0)
    answers = head.answer(fresh)
    right = np.array([head.values[code] == value for code, value in zip(answers.code, truth, strict=True)])
    assert answers.probability.mean() == pytest.approx(right.mean(), abs=0.02)
    assert right.mean() < 0.85, "the task is hard enough that abstaining matters"
    assert 0.2 < answers.answered.mean() < 0.9
    assert right[answers.answered].mean() == pytest.approx(0.9, abs=0.02)


def test_a_value_that_training_has_not_seen_makes_the_head_warier() -> None:
    vectors, labels = _rows(1, 300)
    development, theirs = _rows(2, 300)
    strangers = ["new" if i % 3 == 0 else value for i, value in enumerate(theirs)]
    assert LinearHead.fit(vectors, labels, development, strangers).threshold > (
        LinearHead.fit(vectors, labels, development, theirs).threshold
    )


def test_development_rows_of_unknown_values_alone_mean_that_nothing_is_answered() -> None:
    head = LinearHead.fit(*_rows(1, 100), *(_rows(2, 20)[0], ["new"] * 20))
    assert head.temperature == 1 and not head.answer(_rows(3, 50)[0]).answered.any()


@pytest.mark.parametrize("labels", [["a"] * 10, [None] * 10, ["a", None] * 5])
def test_one_value_is_no_choice(labels: list[str | None]) -> None:
    with pytest.raises(ValueError, match="at least two values"):
        LinearHead.fit(_rows(0, 10)[0], labels, NOTHING, [])


def _heads() -> AttributeHeads:
    vectors, labels = _rows(0, 200)
    two = [None if i % 5 == 0 else ("빨강" if i % 2 else 'b"/') for i in range(200)]
    development, theirs = _rows(5, 80)
    return AttributeHeads.fit(
        "fused", vectors, {"colour": labels, "크기/..": two}, development, {"colour": theirs, "크기/..": two[:80]}
    )


def test_saved_heads_answer_the_same(tmp_path: Path) -> None:
    ours = _heads()
    ours.save(tmp_path / "heads")
    theirs = AttributeHeads.load(tmp_path / "heads", "fused")
    assert sorted(path.name for path in (tmp_path / "heads").iterdir()) == ["fused.json", "fused.safetensors"]
    fresh, _ = _rows(9, 50)
    assert list(theirs.heads) == list(ours.heads)
    for key, probabilities in ours.predict_proba(fresh).items():
        np.testing.assert_array_equal(theirs.predict_proba(fresh)[key], probabilities)
        assert theirs.heads[key].values == ours.heads[key].values
        np.testing.assert_array_equal(theirs.answer(fresh)[key].answered, ours.answer(fresh)[key].answered)


def test_missing_and_damaged_heads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ShoplensError, match="holds no attribute heads for image"):
        AttributeHeads.load(tmp_path, "image")
    _heads().save(tmp_path)
    told = json.loads((tmp_path / "fused.json").read_text())
    told["heads"][0]["values"].append("d")
    (tmp_path / "fused.json").write_text(json.dumps(told))
    with pytest.raises(ShoplensError, match="damaged.*has 4 values"):
        AttributeHeads.load(tmp_path, "fused")
    weights = tmp_path / "fused.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ShoplensError, match="damaged"):
        AttributeHeads.load(tmp_path, "fused")
