"""Interactions: clicks depend on the hidden attractiveness, and logged propensities match the logging policy."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, spearmanr

from shoplens.synthetic.appeal import appeal, click_probability
from shoplens.synthetic.catalogue import Catalogue, stream
from shoplens.synthetic.interactions import Offer, log, plant_topics
from shoplens.synthetic.sellers import seller

Row = dict[str, Any]
CATALOGUE = Catalogue(3, 600, 4, (("train", 0.8), ("val", 0.1), ("test", 0.1)))


@pytest.fixture(scope="module")
def offers() -> list[Offer]:
    shown = []
    for catalog in range(CATALOGUE.catalogs):
        design = CATALOGUE.design(catalog)
        for number in CATALOGUE.offers(catalog):
            rng = stream(3, 4, number)
            worth = appeal(design, seller(3, number % 12), rng)
            shown.append(Offer(f"P{number}", design, worth.attractiveness, worth.review_count))
    return shown


@pytest.fixture(scope="module")
def events(offers: list[Offer]) -> list[Row]:
    rng = stream(3, 5, 0)
    return list(log(offers, plant_topics(offers, 0, rng), 80, rng))


def test_click_rate_grows_with_attractiveness_and_falls_with_position(offers: list[Offer], events: list[Row]) -> None:
    worth = {offer.product_id: offer.attractiveness for offer in offers}
    shown = [row for row in events if row["kind"] == "impression" and row["topic_id"] is None]
    clicked = Counter(
        (row["time"], row["user_id"], row["position"])
        for row in events
        if row["kind"] == "click" and row["topic_id"] is None
    )
    at = np.array([row["position"] for row in shown])
    a = np.array([worth[row["product_id"]] for row in shown])
    click = np.array([clicked[(row["time"], row["user_id"], row["position"])] for row in shown])
    expected = np.array([click_probability(x, k) for x, k in zip(a.tolist(), at.tolist(), strict=True)])
    assert click.sum() == pytest.approx(expected.sum(), abs=5 * np.sqrt((expected * (1 - expected)).sum()))
    fifths = np.digitize(a, np.quantile(a, [0.2, 0.4, 0.6, 0.8]))
    assert np.all(np.diff([click[fifths == k].mean() for k in range(5)]) > 0)
    assert click[at == 0].mean() > 1.5 * click[at == 4].mean()


def test_price_and_reviews_follow_attractiveness(offers: list[Offer]) -> None:
    a, reviews = zip(*((offer.attractiveness, offer.review_count) for offer in offers), strict=True)
    assert spearmanr(a, reviews).statistic > 0.6


@pytest.mark.parametrize("noise", [0.0, 1.0, 1.5])
def test_review_counts_stray_as_far_as_asked(noise: float) -> None:
    """Counts are Poisson with a random rate, so (E[n^2] - E[n]) / E[n]^2 = exp(variance of the log rate)."""
    design, style = CATALOGUE.design(0), seller(3, 0)
    worth = [appeal(design, style, stream(3, 4, number), noise) for number in range(20_000)]
    counts = np.array([one.review_count for one in worth], dtype=np.float64)
    of_bargains = 0.9 * np.std([one.attractiveness for one in worth])
    variance = np.log((np.mean(counts**2) - counts.mean()) / counts.mean() ** 2)
    assert np.sqrt(variance) == pytest.approx(np.hypot(noise, of_bargains), abs=0.1)


def test_stated_propensities_are_those_of_the_log(events: list[Row]) -> None:
    pages = defaultdict(lambda: defaultdict(Counter))  # type: ignore[var-annotated]
    stated: dict[tuple[str, int, str], float] = {}
    for row in events:
        if row["kind"] == "impression":
            page = row["topic_id"] or row["surface"]
            pages[page][row["position"]][row["product_id"]] += 1
            key = (page, row["position"], row["product_id"])
            assert stated.setdefault(key, row["propensity"]) == row["propensity"]
    seen, drawn, share = np.array(
        [
            (count, counts.total(), stated[page, position, product])
            for page, positions in pages.items()
            for position, counts in positions.items()
            for product, count in counts.items()
        ]
    ).T
    tail = np.minimum(binom.cdf(seen, drawn, share), binom.sf(seen - 1, drawn, share))
    assert (tail < 1e-4).mean() < 1e-3
    assert seen.sum() == pytest.approx((drawn * share).sum(), rel=0.05)
    seen_everywhere = [
        sum(stated[page, position, product] for product in counts)
        for page, positions in pages.items()
        for position, counts in positions.items()
    ]
    assert max(seen_everywhere) <= 1 + 1e-9


def test_no_product_twice_on_a_page(events: list[Row]) -> None:
    shown = [row for row in events if row["kind"] == "impression"]
    for _, visit in itertools.groupby(shown, key=lambda row: (row["time"], row["user_id"])):
        products = [row["product_id"] for row in visit]
        assert len(set(products)) == len(products)
    assert [row["time"] for row in events] == sorted(row["time"] for row in events)


def test_topics_hold_all_and_only_the_products_that_fit(offers: list[Offer], events: list[Row]) -> None:
    topics = plant_topics(offers, 0, stream(3, 5, 0))
    assert len(topics) >= 5
    for topic in topics:
        fit = {
            i
            for i, offer in enumerate(offers)
            if topic.season in offer.design.seasons
            and topic.look in offer.design.looks
            and offer.design.leaf.path[0] == topic.section
        }
        assert set(topic.fitting) == fit
    named = {row["topic_id"]: set(row["product_ids"]) for row in (topic.row(offers) for topic in topics)}
    rate: dict[bool, list[int]] = {True: [0, 0], False: [0, 0]}
    for row in events:
        if row["topic_id"] is not None and row["kind"] in ("impression", "click"):
            rate[row["product_id"] in named[row["topic_id"]]][row["kind"] == "click"] += 1
    assert rate[True][1] / rate[True][0] > 1.3 * rate[False][1] / rate[False][0]
