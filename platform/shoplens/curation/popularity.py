"""Popularity: click-through rates of products on pages, from impression and click logs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class ClickThrough(NamedTuple):
    """Click-through of every (page, product) pair with an impression, [n].

    page, product   int64 [n]
    rate            float64 [n]: smoothed clicks per examined impression
    exposure        float64 [n]: examined impressions
    clicks          int64 [n]
    examination     float64 [positions]: probability that a shopper looks at a position, relative to the first
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
    """Click-through rates from m impressions by the position-based click model.

    page, product, position   int64 [m]; positions count from 0
    clicked                   bool [m]
    propensity                float64 [m]: probability that the product was shown at that position. Without it, all
                              positions are assumed to hold equally attractive products: the effect of the position
                              is then confounded with popularity

    P(click) = P(the position is examined) * P(the product is attractive). The examination of a position is its click
    rate with every impression weighted by 1 / propensity, which gives all positions the same mix of products.
    An impression at position i counts as `examination[i]` impressions. Rates are smoothed towards the overall rate
    (beta-binomial prior, method of moments).
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
    """Beta(a, b): its mean is the overall rate, its variance that of the rates minus the binomial noise."""
    mean = float(clicks.sum() / max(exposure.sum(), 1e-12))
    mean = min(max(mean, 1e-6), 1 - 1e-6)
    noise = mean * (1 - mean) * len(clicks)
    spread = float((exposure * (clicks / np.maximum(exposure, 1e-12) - mean) ** 2).sum())
    between = (spread - noise) / max(float(exposure.sum() - (exposure**2).sum() / max(exposure.sum(), 1e-12)), 1e-12)
    strength = mean * (1 - mean) / max(between, 1e-4 * mean * (1 - mean)) - 1
    strength = min(max(strength, 1.0), 1e4)
    return mean * strength, (1 - mean) * strength
