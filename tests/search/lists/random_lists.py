"""Random lists, short, empty and full, with clicks on them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from shoplens.search.lists.replay import Clicks

AT = (1, 3, 6)


class Shop(NamedTuple):
    lists: np.ndarray
    others: np.ndarray
    clicks: Clicks
    n_items: int
    seed_item: np.ndarray
    category: np.ndarray
    product: np.ndarray


def some_lists(rng: np.random.Generator, n_seeds: int, n_items: int, width: int) -> np.ndarray:
    """Short, empty and full lists, in which items repeat."""
    lists = rng.integers(n_items, size=(n_seeds, width))
    return np.where(np.arange(width) < rng.integers(width + 1, size=n_seeds)[:, None], lists, -1)


@st.composite
def shops(draw: st.DrawFn) -> Shop:
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    n_seeds, n_items, n_events = draw(st.integers(1, 8)), draw(st.integers(1, 12)), draw(st.integers(1, 40))
    user = rng.integers(-3, 4, n_events)
    clicks = Clicks(rng.integers(n_seeds, size=n_events), rng.integers(n_items + 2, size=n_events), user)
    return Shop(
        some_lists(rng, n_seeds, n_items, 6),
        some_lists(rng, n_seeds, n_items, 7),
        clicks,
        n_items,
        rng.integers(n_items, size=n_seeds),
        rng.integers(-1, 3, size=n_items),
        rng.integers(4, size=n_items),
    )


def listed(row: np.ndarray) -> list[int]:
    return [int(item) for item in row if item >= 0]
