"""Noise words: frequent words that say nothing about the picture, such as "주가" (share price).

Listed ones, which NAVER Search's curation names, and ones learned from image-text scores.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

LISTED = ("로또", "주가", "영수증", "코로나 확진자", "지원금", "악보")
"""NAVER Search's examples: lottery, share price, receipt, covid cases, subsidies, sheet music."""
COMPOUNDS = ("재난지원금", "정부지원금", "국민지원금", "간이영수증", "현금영수증", "피아노악보", "기타악보")
"""Words that end in one of them. The list is short because "단지 원금" also has "지원금" in it."""


def pattern(words: Iterable[str] = (*LISTED, *COMPOUNDS)) -> re.Pattern[str]:
    """A pattern that finds the words at the start of a word of the text: "주가 전망" and "주가지수", but not "맥주가".

    Without words it finds nothing.
    """
    longest_first = sorted(set(words), key=lambda word: (-len(word), word))
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})" if longest_first else "(?!)")


class Scores(NamedTuple):
    """Image-text scores by word, as sums that can be added up over parts of the data. All [words].

    pairs                 int64: pairs of an image and a text with the word
    total, squares        float64: sum of their scores, and of the squares
    shuffled              int64: such texts with an image of another pair
    shuffled_total, shuffled_squares    float64: the sums for those
    """

    pairs: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    shuffled: np.ndarray
    shuffled_total: np.ndarray
    shuffled_squares: np.ndarray

    def plus(self, other: Scores) -> Scores:
        """The sums of two parts of the data."""
        return Scores(*(a + b for a, b in zip(self, other, strict=True)))


def scores(
    word: np.ndarray, score: np.ndarray, shuffled_word: np.ndarray, shuffled_score: np.ndarray, words: int
) -> Scores:
    """The sums of one part of the data.

    word, score                      int64, float [m]: a word of a pair's text, and the score of the pair
    shuffled_word, shuffled_score    int64, float [n]: the same with an image of another pair
    words                            number of words: those of the arrays are below it

    A text with two words counts in both. Raises ValueError if a word is not in the range.
    """
    if any(len(w) and (w.min() < 0 or w.max() >= words) for w in (word, shuffled_word)):
        raise ValueError(f"a word is not in 0 .. {words - 1}")
    sums = []
    for at, values in ((word, score), (shuffled_word, shuffled_score)):
        values = np.asarray(values, np.float64)
        sums += [
            np.bincount(at, minlength=words),
            np.bincount(at, values, minlength=words),
            np.bincount(at, values**2, minlength=words),
        ]
    return Scores(*sums)


def concentrations(word: np.ndarray, vectors: np.ndarray, words: int) -> np.ndarray:
    """How alike the images of each word are, float64 [words]: mean cosine of its pairs of images minus that of all.

    word       int64 [m]: a word of an image's text
    vectors    float [m, dim]: the image's vector, of length 1

    0: as different as any images. NaN for a word with fewer than two images.
    """
    vectors = np.asarray(vectors, np.float64)
    sums = np.zeros((words, vectors.shape[1]))
    np.add.at(sums, word, vectors)
    counts = np.bincount(word, minlength=words).astype(np.float64)
    alike: np.ndarray = _mean_cosine(sums, counts) - _mean_cosine(vectors.sum(0), np.array(float(len(vectors))))
    return alike


def _mean_cosine(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Over pairs of different unit vectors, from their sum: |sum|^2 = count + the cosines of ordered pairs."""
    pairs = count * (count - 1)
    cosines = (total**2).sum(-1) - count
    mean: np.ndarray = np.divide(cosines, pairs, out=np.full(np.shape(cosines), np.nan), where=pairs > 0)
    return mean


class NoiseWord(NamedTuple):
    """A word proposed as noise, for a person to review.

    pairs            pairs with the word
    lift             mean score of its pairs minus that of its shuffled pairs, in units of the score
    error            standard error of the lift
    concentration    visual concentration, a difference of cosines; NaN if not given
    """

    word: str
    pairs: int
    lift: float
    error: float
    concentration: float


def learned(
    words: Sequence[str],
    sums: Scores,
    concentration: np.ndarray | None = None,
    *,
    least_pairs: int = 100,
    lift_share: float = 0.2,
    errors: float = 2.0,
    most_concentrated: float | None = None,
) -> list[NoiseWord]:
    """Frequent words whose lift is about 0, the most frequent first.

    words                the words that the sums belong to
    concentration        float [words], as `concentrations` returns it. Without it only the lift decides
    least_pairs          a frequent word has this many pairs, and as many shuffled ones; at least 2
    lift_share           "about 0" is below this share of the lift of all words together
    errors               the lift must be below by this many standard errors, so that chance proposes nothing
    most_concentrated    if given, a word whose images are more alike than this is not proposed; nor is one with NaN

    lift = mean score of pairs - mean score of shuffled pairs. Standard error: the square root of the sum of variance / n
    over both. No word is proposed if the lift of all words together is not positive: the scores then tell nothing.
    Raises ValueError for arrays of another length, for `least_pairs` below 2, and for `most_concentrated` without
    `concentration`. The limits are ours.
    """
    if any(len(column) != len(words) for column in sums):
        raise ValueError(f"{len(words)} words, but sums of {len(sums.pairs)}")
    if concentration is not None and len(concentration) != len(words):
        raise ValueError(f"{len(words)} words, but {len(concentration)} concentrations")
    if least_pairs < 2:
        raise ValueError("least_pairs is at least 2")
    if most_concentrated is not None and concentration is None:
        raise ValueError("most_concentrated needs concentrations")
    alike = np.full(len(words), np.nan) if concentration is None else np.asarray(concentration, np.float64)
    if not sums.pairs.sum() or not sums.shuffled.sum():
        return []
    typical = sums.total.sum() / sums.pairs.sum() - sums.shuffled_total.sum() / sums.shuffled.sum()
    if typical <= 0:
        return []
    frequent = np.flatnonzero((sums.pairs >= least_pairs) & (sums.shuffled >= least_pairs))
    of = Scores(*(column[frequent] for column in sums))
    lift = of.total / of.pairs - of.shuffled_total / of.shuffled
    error = np.sqrt(
        _variance(of.pairs, of.total, of.squares) / of.pairs
        + _variance(of.shuffled, of.shuffled_total, of.shuffled_squares) / of.shuffled
    )
    noise = lift + errors * error < lift_share * typical
    if most_concentrated is not None:
        noise &= alike[frequent] <= most_concentrated
    proposed = [
        NoiseWord(words[frequent[i]], int(of.pairs[i]), float(lift[i]), float(error[i]), float(alike[frequent[i]]))
        for i in np.flatnonzero(noise)
    ]
    return sorted(proposed, key=lambda found: (-found.pairs, found.word))


def _variance(count: np.ndarray, total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Unbiased; rounding makes none negative."""
    variance: np.ndarray = np.maximum(squares - total**2 / count, 0) / (count - 1)
    return variance
