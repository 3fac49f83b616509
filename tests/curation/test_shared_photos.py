"""Components of products that show one photo, against a graph that is walked pair by pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoplens.config import ConfigError, validate
from shoplens.curation.shared_photos import ALONE, ComponentsConfig, components, same_photo
from shoplens.errors import ShoplensError

UNKNOWN = np.full(9, -1)


def walked(product: list[int], catalog: list[int], phash: list[int], bits: int, most: int) -> list[int]:
    """The definition, one pair of photos after the other."""
    own = [code if code >= 0 else -1 - p for p, code in enumerate(catalog)]
    shown_by = {value: {own[p] for p, other in zip(product, phash, strict=True) if other == value} for value in phash}
    photos = [(p, value) for p, value in zip(product, phash, strict=True) if len(shown_by[value]) <= most]
    group = list(range(len(catalog)))
    for distance in range(bits + 1):
        merged = list(group)
        for p, value in photos:
            for q, other in photos:
                if (value ^ other).bit_count() <= distance:
                    old, new = merged[p], merged[q]
                    merged = [new if one == old else one for one in merged]
        for one in set(merged):
            members = [p for p in range(len(catalog)) if merged[p] == one]
            if len({own[p] for p in members}) <= most:
                for p in members:
                    group[p] = len(catalog) * (distance + 1) + members[0]
    numbers: dict[int, int] = {}
    return [
        numbers.setdefault(one, len(numbers))
        if len({own[q] for q in range(len(catalog)) if group[q] == one}) > 1
        else ALONE
        for one in group
    ]


def partition(numbers: list[int]) -> list[int]:
    """The numbers by first appearance."""
    seen: dict[int, int] = {}
    return [one if one == ALONE else seen.setdefault(one, len(seen)) for one in numbers]


@settings(max_examples=150, deadline=None)
@given(
    photos=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 63)), max_size=25),
    catalog=st.lists(st.integers(-1, 3), min_size=9, max_size=9),
    bits=st.integers(0, 3),
    most=st.integers(2, 5),
)
def test_components_are_those_of_the_definition(
    photos: list[tuple[int, int]], catalog: list[int], bits: int, most: int
) -> None:
    """Hashes are spread over the 64 bits, so that the bands of a comparison all count."""
    product = [p for p, _ in photos]
    phash = [sum(1 << (11 * bit) for bit in range(6) if value >> bit & 1) for _, value in photos]
    config = ComponentsConfig(duplicate_bits=bits, most=most)
    found = components(np.array(product, np.int64), np.array(catalog), np.array(phash, np.uint64), config)
    assert partition(found.tolist()) == partition(walked(product, catalog, phash, bits, most))
    assert set(found.tolist()) <= set(range(ALONE, 9))


def test_listings_of_one_catalog_are_no_component_and_count_once() -> None:
    same = np.zeros(9, np.uint64)
    every = np.arange(9)
    assert (components(every, np.zeros(9, np.int64), same) == ALONE).all()
    catalog = np.array([0, 0, 0, 0, 0, 0, 0, 1, -1])
    assert (components(every, catalog, same, ComponentsConfig(most=3)) == 0).all()
    assert (components(every, catalog, same, ComponentsConfig(most=2)) == ALONE).all(), "it is a placeholder"


def test_a_placeholder_takes_no_other_photo_with_it() -> None:
    product, phash = np.array([0, 1, 2, 3, 0, 1]), np.array([5, 5, 5, 5, 9 << 40, 9 << 40], np.uint64)
    assert components(product, UNKNOWN[:4], phash, ComponentsConfig(most=3)).tolist() == [0, 0, ALONE, ALONE]


def test_vectors_tell_photos_of_one_hash_apart() -> None:
    """The first photo of the hash is a stranger to the two that are the same."""
    vectors = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0.6, 0.8]], np.float32)
    same = np.zeros(4, np.uint64)
    assert same_photo(same, vectors).tolist() == [0, 1, 1, 3]
    assert same_photo(same, vectors, 0.5).tolist() == [0, 1, 1, 1]
    assert same_photo(same).tolist() == [0, 0, 0, 0]
    product = np.arange(4)
    assert components(product, UNKNOWN[:4], same, vectors=vectors).tolist() == [ALONE, 0, 0, ALONE]
    by_hash = ComponentsConfig(cosine=None)
    assert components(product, UNKNOWN[:4], same, by_hash, vectors=vectors).tolist() == [0, 0, 0, 0]
    near = np.array([0, 1, 3, 7], np.uint64)
    config = ComponentsConfig(duplicate_bits=2, cosine=0.5)
    assert components(product, UNKNOWN[:4], near, config, vectors=vectors).tolist() == [ALONE, 0, 0, 0]
    config = ComponentsConfig(duplicate_bits=1, cosine=0.7)
    assert components(product, UNKNOWN[:4], near, config, vectors=vectors).tolist() == [ALONE, 0, 0, ALONE]


def test_many_looks_of_one_hash_end() -> None:
    vectors = np.eye(200, dtype=np.float32)[np.repeat(np.arange(200), 2)]
    found = components(np.arange(400), np.full(400, -1), np.zeros(400, np.uint64), vectors=vectors)
    assert found[:100].tolist() == np.repeat(np.arange(50), 2).tolist()


def test_nothing_and_wrong_settings() -> None:
    none = np.empty(0, np.int64)
    assert components(none, none, none.astype(np.uint64)).tolist() == []
    apart = ComponentsConfig(duplicate_bits=None)
    assert (components(np.arange(9), UNKNOWN, np.zeros(9, np.uint64), apart) == ALONE).all()
    assert components(none, UNKNOWN, none.astype(np.uint64)).tolist() == [ALONE] * 9
    with pytest.raises(ShoplensError, match="2 vectors for 3 photos"):
        components(np.arange(3), UNKNOWN[:3], np.zeros(3, np.uint64), vectors=np.eye(2, dtype=np.float32))
    with pytest.raises(ConfigError, match="did you mean duplicate_bits"):
        validate(ComponentsConfig, {"duplicates_bits": 2}, "components")
