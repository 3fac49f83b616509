"""Noise words, listed and learned, against a plain reference."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoplens.curation.text.noise_words import LISTED, Scores, concentrations, learned, pattern, scores

WORDS = ("원피스", "주가", "드물다", "악보")


def data(seed: int, lifts: tuple[float, ...] = (0.2, 0.0, 0.0, 0.01), rows: int = 2000) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    word = rng.choice(4, rows, p=[0.5, 0.3, 0.01, 0.19])
    other = rng.choice(4, rows, p=[0.5, 0.3, 0.01, 0.19])
    return word, rng.normal(0.1 + np.array(lifts)[word], 0.03), other, rng.normal(0.1, 0.03, rows)


def reference(
    word: np.ndarray, score: np.ndarray, other: np.ndarray, shuffled: np.ndarray, least: int = 100
) -> list[tuple[str, int, float, float]]:
    typical = statistics.fmean(score) - statistics.fmean(shuffled)
    found = []
    for i, name in enumerate(WORDS):
        a = [float(s) for w, s in zip(word, score, strict=True) if w == i]
        b = [float(s) for w, s in zip(other, shuffled, strict=True) if w == i]
        if typical <= 0 or min(len(a), len(b)) < least:
            continue
        lift = statistics.fmean(a) - statistics.fmean(b)
        error = (statistics.variance(a) / len(a) + statistics.variance(b) / len(b)) ** 0.5
        if lift + 2 * error < 0.2 * typical:
            found.append((name, len(a), lift, error))
    return sorted(found, key=lambda f: (-f[1], f[0]))


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.tuples(*[st.sampled_from([-0.05, 0.0, 0.02, 0.2])] * 4), st.sampled_from([2, 30, 100]))
def test_learned_words_agree_with_the_reference(seed: int, lifts: tuple[float, ...], least: int) -> None:
    columns = data(seed, lifts)
    found = learned(WORDS, scores(*columns, words=4), least_pairs=least)
    expected = reference(*columns, least=least)
    assert [(f.word, f.pairs) for f in found] == [e[:2] for e in expected]
    assert [(f.lift, f.error) for f in found] == [pytest.approx(e[2:], abs=1e-9) for e in expected]
    assert all(np.isnan(f.concentration) for f in found)


def test_frequent_words_without_lift_are_learned() -> None:
    found = learned(WORDS, scores(*data(0), words=4))
    assert [f.word for f in found] == ["주가", "악보"]


def test_sums_of_parts_are_the_sums_of_all() -> None:
    word, score, other, shuffled = data(1)
    parts = [scores(word[p], score[p], other[p], shuffled[p], words=4) for p in (slice(0, 700), slice(700, None))]
    for a, b in zip(parts[0].plus(parts[1]), scores(word, score, other, shuffled, words=4), strict=True):
        np.testing.assert_allclose(a, b)


def test_concentration_spares_words_whose_images_are_alike() -> None:
    sums = scores(*data(0), words=4)
    alike = np.array([0.5, 0.0, np.nan, 0.4])
    assert [f.word for f in learned(WORDS, sums, alike)] == ["주가", "악보"]
    assert [f.word for f in learned(WORDS, sums, alike, most_concentrated=0.1)] == ["주가"]
    assert [f.concentration for f in learned(WORDS, sums, alike)] == [0.0, 0.4]


def test_concentration_agrees_with_all_pairs() -> None:
    rng = np.random.default_rng(2)
    word = np.array([0, 0, 0, 1, 1, 2])
    vectors = rng.normal(size=(6, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def mean_cosine(rows: np.ndarray) -> float:
        return statistics.fmean(float(a @ b) for i, a in enumerate(rows) for b in rows[:i])

    found = concentrations(word, vectors, words=4)
    expected = [mean_cosine(vectors[word == w]) - mean_cosine(vectors) for w in (0, 1)]
    np.testing.assert_allclose(found, [*expected, np.nan, np.nan])


def test_scores_that_tell_nothing_propose_nothing() -> None:
    word, score, other, shuffled = data(3)
    assert learned(WORDS, scores(word, shuffled, other, score, words=4)) == []
    assert learned(WORDS, Scores(*np.zeros((6, 4)))) == []
    assert learned((), Scores(*np.zeros((6, 0)))) == []


def test_errors() -> None:
    sums = scores(*data(0), words=4)
    for call in (
        lambda: scores(*data(0), words=3),
        lambda: learned(WORDS[:2], sums),
        lambda: learned(WORDS, sums, np.zeros(3)),
        lambda: learned(WORDS, sums, least_pairs=1),
        lambda: learned(WORDS, sums, most_concentrated=0.1),
    ):
        with pytest.raises(ValueError):
            call()


@pytest.mark.parametrize("text", ["로또 번호", "오늘 주가 전망", "주가지수", "(영수증)", "코로나 확진자 수", *LISTED])
def test_listed_words_are_found(text: str) -> None:
    assert pattern().search(text)


@pytest.mark.parametrize("text", ["맥주가 맛있는 집", "원피스", "코로나 마스크", "전자영수증", ""])
def test_other_texts_have_none(text: str) -> None:
    assert not pattern().search(text)


def test_longer_words_first_and_no_words() -> None:
    found = pattern(["a", "a+b"]).search("a+b")
    assert found is not None
    assert found[0] == "a+b"
    assert not pattern([]).search("주가")
