"""Refinement, split and de-leaking of topics, on made groups whose fate the specification tells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shoplens.curation.topics import (
    TopicProducts,
    TopicsConfig,
    impressions,
    refine,
    refine_as_reference,
    split_topics,
    topics_by_split,
    topics_of,
    without_leaks,
)
from shoplens.datasets.format import Dataset
from shoplens.errors import ShoplensError
from shoplens.synthetic import SyntheticShop, synthesize


def table(*groups: np.ndarray) -> TopicProducts:
    """Groups of liking, each of products of its own."""
    topic = np.repeat(np.arange(len(groups)), [len(g) for g in groups])
    liked = np.concatenate(groups)
    return TopicProducts(topic, np.arange(len(topic)), liked, liked, np.ones(len(topic), bool))


ALL_LIKED = np.arange(1.0, 61)
THREE_LIKED = np.r_[1.0, 2, 3, np.zeros(57)]
LARGE = np.r_[np.arange(1.0, 81), np.zeros(40)]
EQUAL = np.ones(60)
SMALL = np.arange(20.0)


def test_the_reference_keeps_and_drops_what_it_does() -> None:
    groups = table(ALL_LIKED, THREE_LIKED, LARGE, EQUAL, SMALL)
    found = refine_as_reference(groups, [f"t{i}" for i in range(5)])
    assert found.topics.tolist() == [1, 2]
    large = found.liked[found.topic == 2]
    assert (len(large), (large == 0).sum(), large.min()) == (75, 0, 6)


def test_the_reference_gives_a_shared_product_to_the_first_topic_and_a_name_once() -> None:
    groups = table(THREE_LIKED, LARGE, LARGE)
    shared = replace(groups, product=np.r_[0:60, 0:120, 300:420])
    found = refine_as_reference(shared, ["a", "b", "a"])
    assert found.topics.tolist() == [0, 1]
    assert not set(found.product[found.topic == 0]) & set(found.product[found.topic == 1])


def test_the_reference_claims_only_what_it_keeps() -> None:
    """Of more than 100 products 75 stay; the others are free for later topics."""
    first, second = np.r_[np.arange(75, 0, -1.0), np.zeros(45)], np.r_[np.arange(50, 0, -1.0), np.zeros(10)]
    shared = replace(table(first, second), product=np.r_[0:120, 1000:1050, 75:85])
    found = refine_as_reference(shared, ["a", "b"])
    assert np.bincount(found.topic).tolist() == [75, 60]


def test_refinement_with_its_filters_the_right_way_round() -> None:
    groups = table(ALL_LIKED, THREE_LIKED, LARGE, EQUAL, SMALL)
    found = refine(groups, least=50, most=100, seed=3)
    assert found.topics.tolist() == [0, 2]
    assert (found.topic == 2).sum() == 100
    assert (found.liked[found.topic == 2] == 0).any()
    np.testing.assert_array_equal(found.product, refine(groups, least=50, most=100, seed=3).product)


def test_where_nothing_is_known_of_liking_size_alone_counts() -> None:
    groups = table(np.full(60, np.nan), np.full(20, np.nan))
    assert refine(groups, least=50).topics.tolist() == [0]


def test_a_split_holds_every_topic_once_in_the_shares_of_each_stratum() -> None:
    topics = np.arange(1000, 1400)
    stratum = ["a" if row % 4 else "b" for row in range(400)]
    names = [
        f"Topic {row}" if row < 1300 else f"TOPIC {row % 40}" if row % 2 else f"Topic {row % 40}" for row in topics
    ]
    found = split_topics(topics, names, stratum, (0.7, 0.1, 0.2), seed=1)
    assert sorted(np.concatenate(list(found.values())).tolist()) == topics.tolist()
    of_b = {topic for topic, s in zip(topics.tolist(), stratum, strict=True) if s == "b"}
    for name, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        assert len(found[name]) == pytest.approx(400 * share, abs=5)
        assert len(of_b & set(found[name].tolist())) == pytest.approx(100 * share, abs=4)
    called = [{names[topic - 1000].casefold() for topic in rows.tolist()} for rows in found.values()]
    assert not (called[0] & called[1] or called[0] & called[2] or called[1] & called[2])


def test_nothing_of_what_is_held_out_is_learnt_from() -> None:
    groups = table(ALL_LIKED, THREE_LIKED, LARGE)
    held_out, learnt = groups.keep(groups.topic == 2), groups.keep(groups.topic < 2)
    catalog = np.arange(len(groups))
    catalog[5] = catalog[200]
    found = without_leaks(learnt, held_out, catalog, ["Spring", "Winter", "SPRING"])
    assert found.topics.tolist() == [1]
    found = without_leaks(learnt, held_out, catalog, ["Spring", "Winter", "Autumn"])
    assert sorted(set(learnt.product) - set(found.product)) == [5]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("shop") / "shop"
    settings = {"products": 150, "seed": 3, "image_size": 48, "impressions_per_product": 60.0}
    return synthesize(out, SyntheticShop(**settings), name="topics")


def test_candidates_of_a_shop(shop: Dataset) -> None:
    ids, topics = shop.products["product_id"].to_pylist(), topics_of(shop)
    listed = TopicProducts.of(shop, topics)
    for rows in listed.groups():
        assert {ids[row] for row in listed.product[rows]} == set(topics[listed.topic[rows[0]]].product_ids)
    reviews = np.array(shop.products["review_count"].to_pylist())
    np.testing.assert_allclose(listed.liked, np.log1p(reviews[listed.product]))
    shown = TopicProducts.of(shop, topics, "shown", "click_rate")
    assert len(shown) > 1.5 * len(listed)
    assert shown.listed.sum() == len(listed)
    log = shop.table("interactions").to_pandas()
    log = log[log["topic_id"].notna()]
    assert impressions(log, "here")["clicked"].sum() == (log["kind"] == "click").sum()
    known = ~np.isnan(shown.liked)
    assert (shown.counted[known] == 0).any()
    assert (shown.liked[known] > 0).all()
    assert known.mean() > 0.9
    assert shown.liked[known & shown.listed].mean() > shown.liked[known & ~shown.listed].mean()


def test_a_click_belongs_to_the_impression_before_it() -> None:
    columns = ["time", "user_id", "topic_id", "product_id", "kind", "position", "propensity"]
    rows = [
        ("2025-04-01T10:00:00", "u", "t", "a", "impression", 0, None),
        ("2025-04-01T10:00:00Z", "u", "t", "b", "impression", 1, None),
        ("2025-04-01T10:00:07", "u", "t", "b", "click", None, None),
        ("2025-04-01T10:00:09", "u", "t", "b", "click", 1, None),
        ("2025-04-01T11:00:00", "u", "t", "b", "impression", 4, None),
        ("2025-04-01T11:00:03", "u", "t", "b", "click", 1, None),
        ("2025-04-01T09:00:00", "u", "t", "a", "click", 0, None),
    ]
    log = pd.DataFrame(rows, columns=columns).astype({"position": "float64"})
    shown = impressions(log, "here")
    assert shown[["product_id", "position", "clicked"]].to_numpy().tolist() == [
        ["a", 0, False],
        ["b", 1, True],
        ["b", 4, False],
    ]
    with pytest.raises(ShoplensError, match="1 of 1 clicks have no impression before them"):
        impressions(log[log["product_id"] == "a"], "here")
    with pytest.raises(ShoplensError, match="a time in the log is not valid"):
        impressions(log.assign(time="yesterday"), "here")


def test_topics_made_of_attributes(shop: Dataset) -> None:
    topics = topics_of(shop, ["colour", "category_1"])
    rows = shop.products.select(["product_id", "attributes", "category_path"]).to_pylist()
    for topic in topics:
        colour, category = topic.id.split(" | ")
        assert topic.name == f"{colour} {category}"
        assert set(topic.product_ids) == {
            row["product_id"]
            for row in rows
            if colour in dict(row["attributes"]).get("colour", ()) and row["category_path"][0] == category
        }
    assert len(topics) > 20
    config = TopicsConfig(made_of=("colour",), liked="nothing", least=3)
    topics = topics_of(shop, config.made_of)
    catalog = np.arange(shop.products.num_rows)
    splits = topics_by_split(shop, topics, config, catalog)
    assert not set(splits["train"].product) & set(splits["test"].product)
    assert all(np.isnan(split.liked).all() and split.listed.all() for split in splits.values())


@pytest.mark.parametrize("setting", [{"candidates": "shown"}, {"liked": "click_rate"}])
def test_made_topics_have_no_log(setting: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="made topics have no log"):
        TopicsConfig(made_of=("colour",), **setting)


def test_a_shop_without_topics_says_so(tmp_path: Path) -> None:
    settings = {"products": 1, "seed": 3, "image_size": 48}
    shop = synthesize(tmp_path / "shop", SyntheticShop(**settings), name="none")
    with pytest.raises(ShoplensError, match="no topics to rank products for: topics.made_of"):
        topics_of(shop)
    with pytest.raises(ShoplensError, match="no product with no_such_key"):
        topics_of(shop, ["no_such_key"])
