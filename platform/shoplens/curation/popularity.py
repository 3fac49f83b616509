"""How much a product was liked where it was shown: click-through rates from impression and click logs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class ClickThrough(NamedTuple):
    """Of each pair of a page and a product that was shown on it.

    page, product   int64 [n]
    rate            float64 [n]: smoothed clicks per examined impression
    exposure        float64 [n]: examined impressions
    clicks          int64 [n]
    examination     float64 [positions]: how likely a shopper looks at a position, relative to the first
    """

    page: np.ndarray
    product: np.ndarray
    rate: np.ndarray
    exposure: np.ndarray
    clicks: np.ndarray
    examination: np.ndarray


def click_through(
    page: np.ndarray,
    product: np.ndarray,
    position: np.ndarray,
    clicked: np.ndarray,
    propensity: np.ndarray | None = None,
) -> ClickThrough:
    """One entry an impression [m]: where, what, at which place (from 0), and whether it was clicked.

    propensity   the probability with which that product was shown at that place; without it places are taken to
                 hold equally attractive products, so that popularity and place are not told apart

    Position-based click model: P(click) = P(looks at the place) * P(likes the product). What a place does is the
    click rate there, every impression weighted by 1 / propensity, which makes all places hold the same mix of
    products. An impression counts as `examination[position]` of one. Rates are smoothed towards the overall rate
    (beta-binomial, by the method of moments).
    """
    weight = np.ones(len(page)) if propensity is None else 1 / propensity
    looked = np.bincount(position, weight * clicked)
    shown = np.bincount(position, weight)
    rates = np.divide(looked, shown, out=np.zeros_like(shown), where=shown > 0)
    examination = rates / rates[0] if len(rates) and rates[0] > 0 else np.ones_like(rates)
    examination = np.clip(examination, 1e-3, None)
    pairs, of_pair = np.unique(np.stack([page, product]), axis=1, return_inverse=True)
    exposure = np.bincount(of_pair, examination[position])
    clicks = np.bincount(of_pair, clicked).astype(np.int64)
    a, b = _prior(clicks, exposure)
    return ClickThrough(pairs[0], pairs[1], (clicks + a) / (exposure + a + b), exposure, clicks, examination)


def _prior(clicks: np.ndarray, exposure: np.ndarray) -> tuple[float, float]:
    """Beta(a, b) whose mean is the overall rate and whose variance is what the rates vary beyond their noise."""
    mean = float(clicks.sum() / max(exposure.sum(), 1e-12))
    mean = min(max(mean, 1e-6), 1 - 1e-6)
    noise = mean * (1 - mean) * len(clicks)
    spread = float((exposure * (clicks / np.maximum(exposure, 1e-12) - mean) ** 2).sum())
    between = (spread - noise) / max(float(exposure.sum() - (exposure**2).sum() / max(exposure.sum(), 1e-12)), 1e-12)
    strength = mean * (1 - mean) / max(between, 1e-4 * mean * (1 - mean)) - 1
    strength = min(max(strength, 1.0), 1e4)
    return mean * strength, (1 - mean) * strength
