"""What lists would earn where others were served, from a log with propensities (`off_policy`).

A list is a policy that shows one item at each place of its page with probability 1. An impression is an item at a place;
those that lie behind the end of the lists, or on pages without one, say nothing of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from shoplens.errors import ShoplensError
from shoplens.evaluation.results import Findings
from shoplens.search.lists.off_policy import (
    Log,
    cross_fitted,
    doubly_robust,
    folds,
    inverse_propensity,
    self_normalised,
)
from shoplens.statistics.bootstrap import ratio

FOLDS = 5
SMOOTHING = 10.0
"""Impressions at the overall rate that an item and a place are given beside their own."""


@dataclass(frozen=True)
class Impressions:
    """Arrays [n]: the row of the lists, the item's code, its place from 0, the reward, its propensity, and the user's code."""

    row: np.ndarray
    item: np.ndarray
    place: np.ndarray
    reward: np.ndarray
    propensity: np.ndarray
    user: np.ndarray

    def keep(self, chosen: np.ndarray) -> Impressions:
        return Impressions(*(values[chosen] for values in vars(self).values()))


def value_of_lists(shown: Impressions, lists: np.ndarray, n_items: int) -> Findings:
    """`off_policy/ips, snips, dr`: clicks an impression of the lists [rows, K], drawn anew by user.

    Weights are clipped at sqrt(n), as `off_policy` has it. `about["off_policy"]` holds each estimate with its
    diagnostics, `logged`, the rate of what was shown, and `matched`, the impressions that the lists would show too; or
    `not_known`, which says why there is no estimate. Without impressions nothing is found.
    """
    found = Findings()
    shown = shown.keep(shown.place < lists.shape[1])
    n = len(shown.row)
    if not n:
        return found
    listed = lists[shown.row, shown.place]
    matches = listed == shown.item
    about: dict[str, Any] = {"impressions": n, "matched": int(matches.sum()), "logged": float(shown.reward.mean())}
    found.about["off_policy"] = about
    try:
        log = Log(shown.reward, shown.propensity, matches.astype(np.float64), shown.user)
        fold = folds(n, FOLDS, shown.user)
    except ShoplensError as error:
        about["not_known"] = str(error)
        return found

    def learn(learnt_from: np.ndarray, asked: np.ndarray) -> np.ndarray:
        rate = _reward_model(shown.keep(learnt_from), n_items, lists.shape[1])
        items = np.stack([shown.item[asked], listed[asked]], axis=1)
        return np.where(items >= 0, rate(np.maximum(items, 0), shown.place[asked][:, None]), 0.0)

    predicted, expected = cross_fitted(learn, fold).T
    clip = math.sqrt(n)
    weight = np.minimum(log.weight, clip)
    estimates = {
        "ips": inverse_propensity(log, clip=clip),
        "snips": self_normalised(log, clip=clip),
        "dr": doubly_robust(log, predicted, expected, clip=clip),
    }
    users = np.unique(shown.user, return_inverse=True)[1]
    found.add("off_policy/ips", weight * log.reward, users)
    found.add_statistic("off_policy/snips", ratio(weight * log.reward, weight, users, users))
    found.add("off_policy/dr", expected + weight * (log.reward - predicted), users)
    about["clip"] = clip
    about["estimates"] = {name: asdict(one) for name, one in estimates.items()}
    return found


def _reward_model(shown: Impressions, n_items: int, places: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """(items, places) -> click probabilities: the rate of the place times how the item does among its places."""
    overall = shown.reward.mean()
    clicks = np.bincount(shown.place, shown.reward, minlength=places)
    at_place = (clicks + SMOOTHING * overall) / (np.bincount(shown.place, minlength=places) + SMOOTHING)
    usual = np.bincount(shown.item, at_place[shown.place], minlength=n_items)
    prior = max(SMOOTHING * overall, 1e-12)
    relative = (np.bincount(shown.item, shown.reward, minlength=n_items) + prior) / (usual + prior)
    return lambda item, place: np.minimum(relative[item] * at_place[place], 1.0)
