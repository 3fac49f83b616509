"""What words ask for, from the products that they belong to."""

from __future__ import annotations

import numpy as np
import pytest

from shoplens.curation.short_queries import ANY, Facts, ShortQueriesConfig, meaning, short_queries
from shoplens.datasets.format import Dataset
from shoplens.synthetic.departments import LEAVES_OF_SHOP
from shoplens.synthetic.shop import SyntheticShop, synthesize


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    options = SyntheticShop(products=600, image_size=48, impressions_per_product=0)
    return synthesize(tmp_path_factory.mktemp("queries") / "shop", options, workers=1, progress=False)


def test_words_ask_for_what_tells_their_products_apart() -> None:
    boots, mugs, hats = np.repeat([0, 1, 2], [10, 10, 20]), np.arange(10), np.arange(20)
    thing = boots
    women = np.concatenate([np.zeros(10, int), mugs % 2, hats % 2])
    red = np.concatenate([np.arange(10) % 5, mugs % 5, hats % 5])
    codes, every = np.stack([thing, women, red], 1), np.arange(40)

    def asks(rows: np.ndarray) -> list[int]:
        return meaning(rows, codes, every, 0.8).tolist()

    assert asks(np.arange(10)) == [0, ANY, ANY], "all boots are for women: saying boots does not ask for it"
    assert asks(np.arange(20, 40)) == [2, ANY, ANY]
    assert asks(np.flatnonzero((thing == 2) & (red == 3))) == [2, ANY, 3]
    assert asks(np.flatnonzero(red == 3)) == [ANY, ANY, 3]
    assert asks(every) == [ANY, ANY, ANY], "a word of every title asks for nothing"
    noisy = np.concatenate([np.arange(20, 40), [0, 11]])
    assert asks(noisy) == [2, ANY, ANY], "two of twenty-two are something else"


def test_names_and_titles_of_a_shop_are_understood(shop: Dataset) -> None:
    facts = Facts.of(shop)
    assert facts.keys[:3] == ("category 1", "category 2", "category 3") and "colour" in facts.keys
    assert "model code" not in facts.keys, "nobody searches by it in two words"
    queries = short_queries(shop, facts, np.arange(600), ShortQueriesConfig(catalogs=3))
    asked = dict(zip(queries.texts, queries.asks, strict=True))
    colour, leaf = facts.keys.index("colour"), 2
    order_of = {node.path: node.order for node in shop.categories}
    understood = 0
    for kind in LEAVES_OF_SHOP:
        for word in (kind.words.en, kind.words.korean):
            understood += word in asked and asked[word][leaf] == order_of[kind.path]
    assert understood >= 54, "of 30 categories in two languages"
    of_colour = {code: value for value, code in facts.values[colour].items()}
    for code, category in np.unique(facts.codes[:, [colour, leaf]], axis=0).tolist():
        name = next(node.name for node in shop.categories if node.order == category)
        asks = asked[f"{of_colour[code]} {name}"]
        assert (asks[colour], asks[leaf]) == (code, category), "titles say the colour more than the accent colour"
    assert (queries.asks != ANY).any(1).all()


def test_a_drawn_query_is_right_for_the_product_and_kinds_are_even(shop: Dataset) -> None:
    facts = Facts.of(shop, ["colour"])
    queries = short_queries(shop, facts, np.arange(600), ShortQueriesConfig(attributes=("colour",)))
    rng = np.random.default_rng(0)
    own = facts.codes[17]
    drawn = np.array([queries.draw(own, rng) for _ in range(600)])
    assert all(ask in (ANY, fact) for row in drawn for ask, fact in zip(queries.asks[row], own, strict=True))
    counts = np.bincount(queries.kind[drawn])
    counts = counts[counts > 0]
    assert len(counts) > 3 and counts.min() > 0.6 * counts.mean()
    assert queries.draw(np.full(len(own), ANY), rng) == ANY, "nothing is known of such a product"


def test_other_products_do_not_teach(shop: Dataset) -> None:
    facts, few = Facts.of(shop), np.arange(40)
    queries = short_queries(shop, facts, few, ShortQueriesConfig())
    there = set(facts.codes[few, 2].tolist())
    assert set(queries.asks[:, 2].tolist()) - {ANY} <= there
