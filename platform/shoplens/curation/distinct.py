"""Distinct values of large integer arrays."""

from __future__ import annotations

import numpy as np


def distinct(values: np.ndarray) -> np.ndarray:
    """The sorted distinct values of int [n].

    Equals `np.unique(values)`, which hashes since numpy 2.3: 4 to 20 times slower than a sort if most values differ.
    """
    values = np.sort(values)
    return values[np.diff(values, prepend=values[:1] - 1) != 0]
