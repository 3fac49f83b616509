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

    Capital and small letters are the same. Without words it finds nothing.
    """
    longest_first = map(re.escape, sorted(set(words), key=lambda word: (-len(word), word)))
    # What stands before a word is looked at behind it: a pattern that begins with letters is searched three times faster.
    found = "|".join(rf"{word}(?<!\w{word})" for word in longest_first)
    return re.compile(found or "(?!)", re.IGNORECASE)


class Lifts(NamedTuple):
    """How much better photos fit texts with a word than other photos do, as sums over photos. All float64 [words].

    The lift of a pair of photo and text is its score minus the mean score of the text with background photos.

    photos           photos that have a text with the word
    pairs            pairs of a photo and such a text: n of a photo, summed
    total            sum of the lifts of the pairs: s of a photo, summed
    squares          sum of s * s over the photos
    products         sum of s * n
    pairs_squares    sum of n * n
    deviations       sum over the pairs of the standard deviation of the text's scores with background photos
    """

    photos: np.ndarray
    pairs: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    products: np.ndarray
    pairs_squares: np.ndarray
    deviations: np.ndarray


class NoiseWord(NamedTuple):
    """A word proposed as noise, for a person to review.

    photos    photos that have a text with the word
    pairs     pairs of a photo and such a text
    lift      mean lift of the pairs, in units of the score
    error     standard error of the lift
    """

    word: str
    photos: int
    pairs: int
    lift: float
    error: float


def learned(
    words: Sequence[str],
    lifts: Lifts,
    usual: float,
    background: int,
    *,
    least_photos: int = 100,
    lift_share: float = 0.2,
    errors: float = 2.0,
) -> list[NoiseWord]:
    """Frequent words whose lift is about 0, the most frequent first.

    words           the words that the sums belong to
    usual           mean lift of all pairs. If it is not positive no word is proposed: the scores then tell nothing
    background      number of background photos
    least_photos    a frequent word has this many photos; at least 2
    lift_share      "about 0" is below this share of `usual`
    errors          the lift must be below by this many standard errors, so that chance proposes nothing

    The standard error has two parts, whose squares are added:

    - The pairs: that of a ratio of sums over photos (linearised, Cochran, Sampling Techniques, 1977, section 6.4). A photo
      is one observation, however many texts with the word it has, because scores of one photo resemble each other.
    - The background: every text is compared with the same photos, so the errors of the texts' means do not average out.
      The error of their mean is at most the mean of their errors, deviation / sqrt(background - 1), and this is used.

    Raises ValueError for sums of another length and for `least_photos` below 2. The limits are ours.
    """
    if any(len(column) != len(words) for column in lifts):
        raise ValueError(f"{len(words)} words, but sums of {len(lifts.photos)}")
    if least_photos < 2:
        raise ValueError("least_photos is at least 2")
    if background < 2 or not usual > 0:
        return []
    frequent = np.flatnonzero(lifts.photos >= least_photos)
    of = Lifts(*(column[frequent] for column in lifts))
    lift = of.total / of.pairs
    residuals = np.maximum(of.squares - 2 * lift * of.products + lift**2 * of.pairs_squares, 0)
    variance = residuals / of.pairs**2 * of.photos / (of.photos - 1)
    error = np.sqrt(variance + (of.deviations / of.pairs) ** 2 / (background - 1))
    proposed = [
        NoiseWord(words[frequent[i]], int(of.photos[i]), int(of.pairs[i]), float(lift[i]), float(error[i]))
        for i in np.flatnonzero(lift + errors * error < lift_share * usual)
    ]
    return sorted(proposed, key=lambda found: (-found.photos, found.word))
