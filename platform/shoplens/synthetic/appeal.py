"""The hidden attractiveness of an offer, and the price, reviews, clicks and purchases that depend on it.

    design  d = 0.60 TASTE[colour] + 0.50 TASTE[pattern] + 0.30 fame(brand) + 0.40 charm
    bargain b ~ N(0, 1)                                   discount of the offer from its usual price
    offer   a = d + 0.35 SETTING[backdrop] + 0.20 b

    price         = category price * exp(0.35 premium(material) + 0.20 fame + 0.12 d - 0.10 b), to 100 won
    review count  ~ Poisson(exp(2.2 + 0.9 a + n g)),  g ~ N(0, 1), n = review noise
    P(click | shown at position k) = (1 + k)^-0.6 * sigmoid(-1.6 + 1.1 a + 1.2 [fits the topic])
    P(purchase | click)            = sigmoid(-2.5 + 0.5 a)

TASTE and SETTING are the constants below. Fame falls linearly from +1.5 for the first brand to -1.5 for the last.
Charm ~ N(0, 1) belongs to the design. The photo shows all terms except charm, bargain and fame. `truth.parquet`
stores `a` as `attractiveness`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from shoplens.synthetic.catalogue import Design
from shoplens.synthetic.sellers import Seller
from shoplens.synthetic.vocabulary import BRANDS, MATERIALS

TASTE = {
    "black": 0.9, "white": 0.8, "grey": 0.2, "red": -0.3, "pink": 0.5, "orange": -1.3, "yellow": -0.7,
    "beige": 1.2, "brown": -0.2, "green": -0.6, "khaki": -0.1, "mint": 0.3, "sky blue": 0.9,
    "blue": 0.0, "navy": 1.0, "purple": -1.6,
    "plain": 0.8, "polka dot": -0.1, "striped": 0.9, "checked": 0.4, "floral": 0.6, "star": -1.0,
    "heart": -0.6, "leaf print": -1.2,
}  # fmt: skip
SETTING = {
    "white": 0.8, "sweep": 1.1, "paper": 0.7, "room": 1.2, "planks": 0.0, "marble": 0.6, "concrete": -0.5,
    "bokeh": -1.4, "linen": 0.2, "tiles": -0.6, "dark": -1.1, "duo": 0.5,
}  # fmt: skip
POSITION_DECAY = 0.6


@dataclass(frozen=True)
class Appeal:
    """Attractiveness `a`, price in won and number of reviews of an offer."""

    attractiveness: float
    price: float
    review_count: int


def fame(design: Design) -> float:
    """Fame of the brand, +1.5 for the first and -1.5 for the last."""
    return 1.5 - 3.0 * BRANDS.index(design.brand) / (len(BRANDS) - 1)


def design_appeal(design: Design) -> float:
    """The term d, equal for all offers of a design."""
    return 0.60 * TASTE[design.colour] + 0.50 * TASTE[design.pattern] + 0.30 * fame(design) + 0.40 * design.charm


def appeal(design: Design, style: Seller, rng: np.random.Generator, review_noise: float = 0.5) -> Appeal:
    """Appeal of an offer of `design` whose photos have the style of the seller `style`."""
    d, bargain = design_appeal(design), float(rng.normal())
    a = d + 0.35 * SETTING[style.photo.backdrop.kind] + 0.20 * bargain
    premium = 0.35 * MATERIALS[design.material].premium + 0.20 * fame(design)
    price = design.leaf.price * math.exp(premium + 0.12 * d - 0.10 * bargain)
    reviews = int(rng.poisson(math.exp(2.2 + 0.9 * a + review_noise * float(rng.normal()))))
    return Appeal(attractiveness=a, price=float(round(price / 100) * 100), review_count=reviews)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def click_probability(attractiveness: float, position: int = 0, fits: bool = False) -> float:
    """P(click | impression at `position`, counted from 0); `fits`: the product fits the topic of the page."""
    return (1 + position) ** -POSITION_DECAY * sigmoid(-1.6 + 1.1 * attractiveness + 1.2 * fits)


def purchase_probability(attractiveness: float) -> float:
    """P(purchase | click)."""
    return sigmoid(-2.5 + 0.5 * attractiveness)
