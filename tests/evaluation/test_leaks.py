from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shoplens.datasets.samples import Samples
from shoplens.evaluation.leaks import NEAR, leaks, warning

hashes = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12)


def _samples(catalog: list[int], phash: list[int], first: int = 0) -> Samples:
    n = len(catalog)
    rows = first + np.arange(n)
    return Samples(rows, rows, np.array(catalog), np.full((n, 1), -1), np.array(phash, dtype=np.uint64))


@settings(deadline=None)
@given(ours=hashes, theirs=hashes, flips=st.lists(st.integers(0, 63), max_size=4, unique=True))
def test_near_photos_are_those_of_a_plain_loop(ours: list[int], theirs: list[int], flips: list[int]) -> None:
    near_one = theirs[0]
    for bit in flips:
        near_one ^= 1 << bit
    ours = [*ours, near_one]
    found = leaks(_samples([0] * len(ours), ours), _samples([1] * len(theirs), theirs, first=100))
    distance = {i: min((a ^ b).bit_count() for b in theirs) for i, a in enumerate(ours)}
    assert sorted(found.near[:, 0].tolist()) == [i for i, bits in distance.items() if bits <= NEAR]
    shown = [(ours[i] ^ theirs[j - 100]).bit_count() for i, j in found.near.tolist()]
    assert shown == sorted(distance[i] for i in found.near[:, 0].tolist()), "nearest first, each with its nearest"


def test_shared_catalogs_are_counted_and_named() -> None:
    far = [0, 2**64 - 1, 2**32 - 1]
    found = leaks(_samples([5, 5, 6], far), _samples([7, 5], [0xAAAA_AAAA_AAAA_AAAA] * 2, first=10))
    assert found.catalogs.tolist() == [5] and found.products.tolist() == [0, 1]
    assert not found.every and len(found.near) == 0
    assert leaks(_samples([5, 5], far[:2]), _samples([5], far[2:], first=10)).every


def test_the_warning_says_what_became_of_them() -> None:
    told = {"with": ["train", "val"], "catalogs": 2, "of": 9, "products": 3, "left_out": True, "by_photo": False}
    assert "2 of 9 catalogs of this split are also in train or val; their 3 products are left out" in warning(
        {**told, "near_duplicates": 0}
    )
    assert "flatter" in warning({**told, "left_out": False, "near_duplicates": 0})
    by_photo = warning({**told, "catalogs": 9, "by_photo": True, "near_duplicates": 4, "same_words": 1})
    assert "every one of the 9" in by_photo and "4 photos look like one" in by_photo
    assert "1 of them under a title of the same words" in by_photo
    assert warning({**told, "catalogs": 0, "near_duplicates": 0}) == "" == warning(None)
