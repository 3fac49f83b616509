"""Estimated value of lists from a log of other lists, with propensities (`off_policy`).

A list is a policy that shows one item at each place with probability 1. An impression is an item at a place. Impressions
behind the end of the lists, or on pages without a list, say nothing about them and are left out.
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
"""Pseudo-impressions at the overall click rate, added to those of each item and each place."""


@dataclass(frozen=True)
class Impressions:
    """Arrays [n]: row of the lists, item code, place from 0, reward, propensity, and user code of each impression."""

    row: np.ndarray
    item: np.ndarray
    place: np.ndarray
    reward: np.ndarray
    propensity: np.ndarray
    user: np.ndarray

    def keep(self, chosen: np.ndarray) -> Impressions:
        return Impressions(*(values[chosen] for values in vars(self).values()))


def value_of_lists(shown: Impressions, lists: np.ndarray, n_items: int) -> Findings:
    """`off_policy/ips, snips, dr`: clicks an impression of the lists [rows, K], with a bootstrap over users.

    Weights are clipped at sqrt(n) (`off_policy.inverse_propensity`). `about["off_policy"]` holds each estimate with its
    diagnostics; `logged`, the click rate of the log; and `matched`, the impressions that the lists would show too. If there
    is no estimate, `not_known` gives the reason. Without impressions the result is empty.
    """
    findings = Findings()
    shown = shown.keep(shown.place < lists.shape[1])
    n = len(shown.row)
    if not n:
        return findings
    listed = lists[shown.row, shown.place]
    matches = listed == shown.item
    about: dict[str, Any] = {"impressions": n, "matched": int(matches.sum()), "logged": float(shown.reward.mean())}
    findings.about["off_policy"] = about
    try:
        log = Log(shown.reward, shown.propensity, matches.astype(np.float64), shown.user)
        fold = folds(n, FOLDS, shown.user)
    except ShoplensError as error:
        about["not_known"] = str(error)
        return findings

    def learn(training: np.ndarray, held_out: np.ndarray) -> np.ndarray:
        rate = _reward_model(shown.keep(training), n_items, lists.shape[1])
        items = np.stack([shown.item[held_out], listed[held_out]], axis=1)
        return np.where(items >= 0, rate(np.maximum(items, 0), shown.place[held_out][:, None]), 0.0)

    predicted, expected = cross_fitted(learn, fold).T
    clip = math.sqrt(n)
    weight = np.minimum(log.weight, clip)
    estimates = {
        "ips": inverse_propensity(log, clip=clip),
        "snips": self_normalised(log, clip=clip),
        "dr": doubly_robust(log, predicted, expected, clip=clip),
    }
    users = np.unique(shown.user, return_inverse=True)[1]
    findings.add("off_policy/ips", weight * log.reward, users)
    findings.add_statistic("off_policy/snips", ratio(weight * log.reward, weight, users, users))
    findings.add("off_policy/dr", expected + weight * (log.reward - predicted), users)
    about["clip"] = clip
    about["estimates"] = {name: asdict(one) for name, one in estimates.items()}
    return findings


def _reward_model(shown: Impressions, n_items: int, places: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A function (items, places) -> click probabilities: rate of the place times relative rate of the item."""
    overall = shown.reward.mean()
    clicks = np.bincount(shown.place, shown.reward, minlength=places)
    at_place = (clicks + SMOOTHING * overall) / (np.bincount(shown.place, minlength=places) + SMOOTHING)
    expected = np.bincount(shown.item, at_place[shown.place], minlength=n_items)
    prior = max(SMOOTHING * overall, 1e-12)
    relative = (np.bincount(shown.item, shown.reward, minlength=n_items) + prior) / (expected + prior)
    return lambda item, place: np.minimum(relative[item] * at_place[place], 1.0)
