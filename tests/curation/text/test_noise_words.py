"""Noise words, listed and learned, against a plain reference."""

from __future__ import annotations

import statistics
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoplens.curation.text.noise_words import LISTED, Lifts, NoiseWord, learned, pattern

WORDS = ("원피스", "주가", "드물다", "악보")
DEVIATION = 0.03
Pairs = list[tuple[int, int, float]]
"""Photo, word and lift of each pair."""


def data(seed: int, of_words: tuple[float, ...] = (0.2, 0.0, 0.0, 0.01), photos: int = 900) -> Pairs:
    """Scores of one photo resemble each other."""
    rng = np.random.default_rng(seed)
    pairs = []
    for photo in range(photos):
        own = rng.normal(0, 0.03)
        for word in rng.choice(4, int(rng.integers(1, 5)), p=[0.5, 0.3, 0.01, 0.19]):
            pairs.append((photo, int(word), float(rng.normal(of_words[word] + own, 0.02))))
    return pairs


def sums(pairs: Pairs) -> Lifts:
    found = np.zeros((7, len(WORDS)))
    by_photo: dict[tuple[int, int], list[float]] = defaultdict(list)
    for photo, word, lift in pairs:
        by_photo[photo, word].append(lift)
    for (_, word), of in by_photo.items():
        n, s = len(of), sum(of)
        found[:, word] += (1, n, s, s * s, s * n, n * n, n * DEVIATION)
    return Lifts(*found)


def usual(pairs: Pairs) -> float:
    return statistics.fmean(lift for *_, lift in pairs)


def reference(pairs: Pairs, background: int, least: int) -> list[NoiseWord]:
    found = []
    for i, name in enumerate(WORDS):
        by_photo = defaultdict(list)
        for photo, word, lift in pairs:
            if word == i:
                by_photo[photo].append(lift)
        if len(by_photo) < least or usual(pairs) <= 0:
            continue
        n = sum(map(len, by_photo.values()))
        mean = sum(map(sum, by_photo.values())) / n
        residuals = [sum(of) - mean * len(of) for of in by_photo.values()]
        variance = len(by_photo) * sum(r * r for r in residuals) / (len(by_photo) - 1) / n**2
        error = (variance + DEVIATION**2 / (background - 1)) ** 0.5
        if mean + 2 * error < 0.2 * usual(pairs):
            found.append(NoiseWord(name, len(by_photo), n, mean, error))
    return sorted(found, key=lambda one: (-one.photos, one.word))


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 10**6),
    st.tuples(*[st.sampled_from([-0.05, 0.0, 0.02, 0.2])] * 4),
    st.sampled_from([2, 30, 100]),
    st.sampled_from([16, 256]),
)
def test_learned_words_agree_with_the_reference(
    seed: int, lifts: tuple[float, ...], least: int, background: int
) -> None:
    pairs = data(seed, lifts, 300)
    found = learned(WORDS, sums(pairs), usual(pairs), background, least_photos=least)
    expected = reference(pairs, background, least)
    assert [one[:3] for one in found] == [one[:3] for one in expected]
    assert [one[3:] for one in found] == [pytest.approx(one[3:], abs=1e-9) for one in expected]


def test_frequent_words_without_lift_are_learned() -> None:
    pairs = data(0)
    assert [one.word for one in learned(WORDS, sums(pairs), usual(pairs), 256)] == ["주가", "악보"]


def test_the_error_is_that_of_lifts_drawn_anew() -> None:
    """Photos and background are drawn 300 times; the background moves all texts alike."""
    background, lifts, errors = 64, [], []
    for seed in range(300):
        shift = np.random.default_rng(10**6 + seed).normal(0, DEVIATION / background**0.5)
        pairs = [(photo, word, lift - shift) for photo, word, lift in data(seed, photos=300)]
        (found,) = learned(WORDS[1:2], Lifts(*(column[1:2] for column in sums(pairs))), 9.0, background)
        lifts.append(found.lift)
        errors.append(found.error)
    assert statistics.fmean(errors) == pytest.approx(statistics.stdev(lifts), rel=0.12)
    assert statistics.fmean(lifts) == pytest.approx(0, abs=0.001)


def test_scores_that_tell_nothing_propose_nothing() -> None:
    pairs = data(3, (0.0, 0.0, 0.0, -0.2))
    assert learned(WORDS, sums(pairs), usual(pairs), 256) == []
    assert learned(WORDS, sums(pairs), 1.0, 1) == []
    assert learned(WORDS, Lifts(*np.zeros((7, 4))), 1.0, 256) == []
    assert learned((), Lifts(*np.zeros((7, 0))), 1.0, 256) == []


def test_errors() -> None:
    found = sums(data(0, photos=20))
    with pytest.raises(ValueError, match="2 words"):
        learned(WORDS[:2], found, 1.0, 256)
    with pytest.raises(ValueError, match="least_photos"):
        learned(WORDS, found, 1.0, 256, least_photos=1)


@pytest.mark.parametrize("text", ["로또 번호", "오늘 주가 전망", "주가지수", "(영수증)", "코로나 확진자 수", *LISTED])
def test_listed_words_are_found(text: str) -> None:
    assert pattern().search(text)


@pytest.mark.parametrize("text", ["맥주가 맛있는 집", "원피스", "코로나 마스크", "전자영수증", ""])
def test_other_texts_have_none(text: str) -> None:
    assert not pattern().search(text)


def test_longer_words_first_and_no_words() -> None:
    found = pattern(["a", "a+b"]).search("A+b")
    assert found is not None
    assert found[0] == "A+b"
    assert not pattern([]).search("주가")
