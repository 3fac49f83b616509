from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shoplens.curation.near_duplicates import first_of_duplicates


@settings(max_examples=60, deadline=None)
@given(
    hashes=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12),
    flips=st.lists(st.tuples(st.integers(0, 11), st.sets(st.integers(0, 63), max_size=5), st.booleans()), max_size=12),
    distance=st.integers(0, 4),
)
def test_equals_the_comparison_of_all_pairs(
    hashes: list[int], flips: list[tuple[int, set[int], bool]], distance: int
) -> None:
    texts = [f"item {row}" for row in range(len(hashes))]
    for source, bits, same_words in flips:
        base = source % len(hashes)
        hashes.append(hashes[base] ^ sum(1 << bit for bit in bits))
        texts.append(f"{base} ITEM" if same_words else "other")
    kept: list[int] = []
    for row in range(len(hashes)):
        words = set(texts[row].lower().split())
        if not any(
            (hashes[row] ^ hashes[k]).bit_count() <= distance and set(texts[k].lower().split()) == words for k in kept
        ):
            kept.append(row)
    mask = first_of_duplicates(np.array(hashes, dtype=np.uint64), texts, distance)
    assert np.flatnonzero(mask).tolist() == kept
