"""Lists as arrays of item codes: int64 [rows, K], codes from 0, best first, padded with -1.

A row is the list of one *seed*, the product on whose page it is served, or of a seed in one snapshot of the model
(`replay.rows_valid_at`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shoplens.errors import ShoplensError

AT = (5, 10, 20)
"""Default K of metrics @K."""


def check_lists(lists: np.ndarray, n_items: int, at: Sequence[int]) -> None:
    """Raises ShoplensError if `lists` are not in this form, or if a K of `at` is outside 1 to their width."""
    if lists.ndim != 2 or lists.dtype.kind not in "iu":
        raise ShoplensError(
            f"lists are {lists.dtype} {lists.shape}: give integer item codes [rows, K], -1 after the last"
        )
    if lists.size and not -1 <= lists.min() <= lists.max() < n_items:
        raise ShoplensError(
            f"lists hold codes {lists.min()} to {lists.max()}: items are 0 to {n_items - 1}, and -1 ends a list"
        )
    if ((lists[:, :-1] < 0) & (lists[:, 1:] >= 0)).any():
        raise ShoplensError("a list goes on after -1: move its items to the front")
    if not at or min(at) < 1 or max(at) > lists.shape[1]:
        raise ShoplensError(
            f"K {list(at)} does not fit lists of {lists.shape[1]} places: choose from 1 to {lists.shape[1]}"
        )
