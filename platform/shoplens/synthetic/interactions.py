"""Exhibitions (topics), and a log of impressions, clicks and purchases with exact propensities.

The logging policy of a page with K positions:

1. Sort the candidates by review count and split them into K tiers.
2. Draw a cyclic shift s: s = 0 with probability `SHIFT_NONE`, the other shifts with equal probabilities.
3. Position k shows one product of the tier (k - s) mod K, drawn in proportion to sqrt(1 + review count n).

    propensity(product, position k) = P(s = (k - tier) mod K) * sqrt(1 + n) / sum of sqrt(1 + n) over the tier

The policy favours popular products and the top positions. Every product can appear at every position, and no
product appears twice on a page.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoplens.synthetic.appeal import click_probability, purchase_probability
from shoplens.synthetic.catalogue import LOOKS, Design
from shoplens.synthetic.vocabulary import Word

POSITIONS = 8
SHIFT_NONE = 0.3
TOPICS_PER_CHUNK = 12
SMALLEST_TOPIC = 6

SEASONS = {
    "spring": (Word("spring", ("봄",)), "2025-03"),
    "summer": (Word("summer", ("여름",)), "2025-06"),
    "autumn": (Word("autumn", ("가을",)), "2025-09"),
    "winter": (Word("winter", ("겨울",)), "2025-12"),
}
LOOK_WORDS = {
    "romantic": Word("romantic", ("로맨틱", "러블리")),
    "minimal": Word("minimal", ("미니멀", "모던")),
    "vintage": Word("vintage", ("빈티지", "클래식")),
    "cute": Word("cute", ("큐트", "귀여운")),
    "marine": Word("marine", ("마린룩", "시원한")),
    "nature": Word("nature", ("내추럴", "자연")),
}
SECTIONS = {
    "Clothing": "의류",
    "Shoes": "신발",
    "Bags": "가방",
    "Accessories": "잡화",
    "Furniture": "가구",
    "Kitchen": "주방",
}


@dataclass(frozen=True)
class Offer:
    """The properties of an offer that the log depends on."""

    product_id: str
    design: Design
    attractiveness: float
    review_count: int


@dataclass(frozen=True)
class PlantedTopic:
    """An exhibition of a season, a look and a section of the shop. A product fits if it has all three.

    fitting   positions of the fitting offers in the list of offers
    """

    topic_id: str
    season: str
    look: str
    section: str
    date: str
    fitting: tuple[int, ...]

    def row(self, offers: Sequence[Offer]) -> dict[str, Any]:
        """The topic as a row of `topics.parquet`."""
        season, look = SEASONS[self.season][0], LOOK_WORDS[self.look]
        leaves = sorted({offers[i].design.leaf.path for i in self.fitting})
        return {
            "topic_id": self.topic_id,
            "name": f"{season.korean} {look.korean} {SECTIONS[self.section]} 기획전",
            "desc": f"{season.en.capitalize()} exhibition: {look.en} {self.section.lower()}",
            "date": self.date,
            "cat1": self.section,
            "cat2": leaves[0][1],
            "cat3": leaves[0][2],
            "cat4": "",
            "kwds": [season.korean, *look.ko, SECTIONS[self.section]],
            "product_ids": [offers[i].product_id for i in self.fitting],
        }


def plant_topics(offers: Sequence[Offer], chunk: int, rng: np.random.Generator) -> list[PlantedTopic]:
    """Draws at most `TOPICS_PER_CHUNK` exhibitions, each with at least `SMALLEST_TOPIC` fitting offers."""
    fits: dict[tuple[str, str, str], list[int]] = {}
    for i, offer in enumerate(offers):
        section = offer.design.leaf.path[0]
        for season, look in itertools.product(offer.design.seasons, offer.design.looks):
            fits.setdefault((season, look, section), []).append(i)
    order = {name: i for i, name in enumerate([*SEASONS, *LOOKS, *SECTIONS])}
    large = sorted(
        (key for key, fitting in fits.items() if len(fitting) >= SMALLEST_TOPIC),
        key=lambda key: [order[k] for k in key],
    )
    chosen = rng.permutation(len(large))[:TOPICS_PER_CHUNK]
    return [
        PlantedTopic(
            topic_id=f"T{chunk:06d}-{number:02d}",
            season=large[k][0],
            look=large[k][1],
            section=large[k][2],
            date=f"{SEASONS[large[k][0]][1]}-{int(rng.integers(1, 29)):02d}",
            fitting=tuple(fits[large[k]]),
        )
        for number, k in enumerate(sorted(chosen.tolist()))
    ]


@dataclass(frozen=True)
class _Page:
    """Candidates (positions in the list of offers) in tiers by falling review count, and their `shares` in the tier."""

    surface: str
    topic_id: str | None
    tiers: tuple[np.ndarray, ...]
    shares: tuple[np.ndarray, ...]
    fitting: frozenset[int]


def log(
    offers: Sequence[Offer],
    topics: Sequence[PlantedTopic],
    impressions_per_product: float,
    rng: np.random.Generator,
) -> Iterator[dict[str, Any]]:
    """Yields rows of `interactions.parquet` in order of time.

    If there are topics, half of the page views show a topic and half a category; else all show a category.
    """
    by_leaf: dict[str, list[int]] = {}
    for i, offer in enumerate(offers):
        by_leaf.setdefault(offer.design.leaf.id, []).append(i)
    lists = [_page(offers, f"category/{leaf}", None, by_leaf[leaf], ()) for leaf in sorted(by_leaf)]
    exhibitions = []
    for topic in topics:
        fitting = set(topic.fitting)
        section = [
            i for i, offer in enumerate(offers) if offer.design.leaf.path[0] == topic.section and i not in fitting
        ]
        others = rng.permutation(section)[: len(fitting)].tolist()
        exhibitions.append(_page(offers, "topic", topic.topic_id, sorted([*fitting, *others]), topic.fitting))
    weight = np.array([sum(map(len, page.tiers)) for page in lists], dtype=np.float64)
    visits = round(len(offers) * impressions_per_product / POSITIONS)
    start = datetime.datetime(2025, 1, 1, tzinfo=datetime.timezone.utc)
    minutes = np.sort(rng.uniform(0, 365 * 24 * 60, visits))
    for minute in minutes.tolist():
        if exhibitions and rng.random() < 0.5:
            page = exhibitions[int(rng.integers(len(exhibitions)))]
        else:
            page = lists[int(rng.choice(len(lists), p=weight / weight.sum()))]
        yield from _visit(offers, page, start + datetime.timedelta(minutes=minute), rng)


def _page(
    offers: Sequence[Offer],
    surface: str,
    topic_id: str | None,
    candidates: Sequence[int],
    fitting: Sequence[int],
) -> _Page:
    ranked = sorted(candidates, key=lambda i: (-offers[i].review_count, offers[i].product_id))
    tiers = tuple(np.array_split(np.array(ranked), min(POSITIONS, len(ranked))))
    weights = [np.sqrt([1.0 + offers[i].review_count for i in tier]) for tier in tiers]
    return _Page(surface, topic_id, tiers, tuple(w / w.sum() for w in weights), frozenset(fitting))


def _visit(
    offers: Sequence[Offer], page: _Page, when: datetime.datetime, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    positions = len(page.tiers)
    usual = SHIFT_NONE if positions > 1 else 1.0
    shift = 0 if rng.random() < usual else int(rng.integers(1, positions))
    likely = usual if shift == 0 else (1 - usual) / (positions - 1)
    user = f"U{rng.integers(10**7):07d}"
    for position in range(positions):
        tier = (position - shift) % positions
        pick = int(np.searchsorted(np.cumsum(page.shares[tier]), rng.random(), side="right"))
        pick = min(pick, len(page.tiers[tier]) - 1)
        number = int(page.tiers[tier][pick])
        offer = offers[number]
        row = {
            "time": when.isoformat(timespec="seconds"),
            "user_id": user,
            "product_id": offer.product_id,
            "kind": "impression",
            "surface": page.surface,
            "topic_id": page.topic_id,
            "position": position,
            "propensity": float(likely * page.shares[tier][pick]),
        }
        yield row
        if rng.random() < click_probability(offer.attractiveness, position, number in page.fitting):
            yield {**row, "kind": "click"}
            if rng.random() < purchase_probability(offer.attractiveness):
                yield {**row, "kind": "purchase"}
