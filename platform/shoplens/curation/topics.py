"""Topics with their candidate products, made fit to learn from: refined, split by topic, without leaks (CLIK)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product as combinations
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from shoplens.config import Config
from shoplens.curation.popularity import click_through
from shoplens.datasets.format import Dataset
from shoplens.errors import ShoplensError
from shoplens.schema import Topic

Candidates = Literal["listed", "shown"]
Liked = Literal["review_count", "click_rate", "nothing"]
SPLITS = ("train", "val", "test")


class TopicsConfig(Config):
    """Which topics there are to learn from and to be judged by, and which products are their candidates.

    made_of      topics made where the shop lists none: of the products that share the values of these attributes
                 (`category_1`, `category_2`, ...: the levels of their category)
    candidates   `listed` by the topic, or also those that the log shows on its pages
    liked        what is ranked by: log(1 + reviews), the click rate on the topic's pages, or nothing (fit alone)
    refinement   `corrected`, or with the inverted filters of the `reference`
    least, least_liked, most   products that a topic needs, of them liked at all, and keeps at most (0: all)
    stratum      the field of a topic that all splits hold in equal shares
    shares       of train, val and test
    seed         of the split, which stays the same whatever the seed of the training
    """

    made_of: tuple[str, ...] = ()
    candidates: Candidates = "listed"
    liked: Liked = "review_count"
    refinement: Literal["corrected", "reference"] = "corrected"
    least: int = Field(12, ge=2)
    least_liked: int = Field(5, ge=0)
    most: int = Field(0, ge=0)
    stratum: Literal["cat1", "cat2"] = "cat1"
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    seed: int = 0

    @model_validator(mode="after")
    def _made_topics_have_no_log(self) -> TopicsConfig:
        if self.made_of and (self.candidates == "shown" or self.liked == "click_rate"):
            raise ValueError("no log tells of topics that are made: choose candidates=listed and another `liked`")
        return self


def topics_of(dataset: Dataset, made_of: Sequence[str] = ()) -> list[Topic]:
    """The dataset's topics in the order of `topics.parquet`, or topics made of attributes, by name.

    Raises ShoplensError if there is none.
    """
    if made_of:
        topics = _made(dataset, made_of)
    else:
        rows = dataset.table("topics").rename_columns({"topic_id": "id"}).to_pylist()
        topics = [
            Topic.model_validate({name: value for name, value in row.items() if value is not None}) for row in rows
        ]
    if not topics:
        lacking = f"no product with {', '.join(made_of)}" if made_of else "no topics to rank products for"
        raise ShoplensError(f"{dataset.path} has {lacking}: topics.made_of can make topics of attributes")
    return topics


def _made(dataset: Dataset, keys: Sequence[str]) -> list[Topic]:
    members: dict[tuple[str, ...], list[str]] = defaultdict(list)
    columns = dataset.products.select(["product_id", "attributes", "category_path"]).to_pydict()
    for product_id, attributes, path in zip(*columns.values(), strict=True):
        said = {**dict(attributes or ()), **{f"category_{n}": [name] for n, name in enumerate(path or (), 1)}}
        for values in combinations(*(dict.fromkeys(said.get(key, ())) for key in keys)):
            members[values].append(product_id)
    return [
        Topic(id=" | ".join(values), name=" ".join(values), product_ids=tuple(ids))
        for values, ids in sorted(members.items())
    ]


@dataclass(frozen=True)
class TopicProducts:
    """Candidate products of topics, in order of the topics.

    topic    int64 [n]: place in `topics_of(dataset)`
    product  int64 [n]: row in `products.parquet`
    liked    float64 [n]: how much shoppers liked the product there; NaN where nothing is known of it
    counted  float64 [n]: what liking was made of, reviews or clicks per impression: 0 where nobody liked it
    listed   bool [n]: the topic names the product itself, rather than that it was shown on its pages
    """

    topic: np.ndarray
    product: np.ndarray
    liked: np.ndarray
    counted: np.ndarray
    listed: np.ndarray

    def __len__(self) -> int:
        return len(self.topic)

    @property
    def topics(self) -> np.ndarray:
        """Places in `topics_of(dataset)`, in order."""
        return np.unique(self.topic)

    def keep(self, mask: np.ndarray) -> TopicProducts:
        columns = (self.topic, self.product, self.liked, self.counted, self.listed)
        return TopicProducts(*(column[mask] for column in columns))

    def groups(self) -> list[np.ndarray]:
        """The rows of each of `topics`."""
        return np.split(np.arange(len(self)), np.flatnonzero(np.diff(self.topic)) + 1) if len(self) else []

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        topics: Sequence[Topic],
        candidates: Candidates = "listed",
        liked: Liked = "review_count",
    ) -> TopicProducts:
        """The products that topics list and, with `shown`, those that the log shows on their pages.

        liked   `review_count`: log(1 + reviews); `click_rate`: clicks per examined impression on the topic's pages
        Raises ShoplensError if the dataset has not what `liked` and `candidates` ask for.
        """
        row_of = {product: row for row, product in enumerate(dataset.products["product_id"].to_pylist())}
        topic_of = {topic.id: row for row, topic in enumerate(topics)}
        pairs = [
            (row, row_of[product], True)
            for row, topic in enumerate(topics)
            for product in dict.fromkeys(topic.product_ids)
            if product in row_of
        ]
        clicks = _click_rates(dataset, row_of, topic_of) if candidates == "shown" or liked == "click_rate" else {}
        if candidates == "shown":
            listed = {(topic, product) for topic, product, _ in pairs}
            pairs += [(*pair, False) for pair in clicks if pair not in listed]
        pairs.sort()
        if not pairs:
            raise ShoplensError(f"{dataset.path} has none of the products that its topics list")
        place, row, named = (np.array(column) for column in zip(*pairs, strict=True))
        if liked == "review_count":
            counts = dataset.products["review_count"].to_pandas().to_numpy(dtype=np.float64)
            counted = counts[row]
            values = np.log1p(counted)
        elif liked == "click_rate":
            rates = np.array([clicks.get((t, p), (np.nan, np.nan)) for t, p, _ in pairs])
            values, counted = rates[:, 0], rates[:, 1]
        else:
            values = counted = np.full(len(pairs), np.nan)
        if liked != "nothing" and np.isnan(values).all():
            raise ShoplensError(f"{dataset.path} does not say how its products were liked: choose liked=nothing")
        return cls(place, row, values, counted, named)


def _click_rates(
    dataset: Dataset, row_of: dict[str, int], topic_of: dict[str, int]
) -> dict[tuple[int, int], tuple[float, float]]:
    """Smoothed click rate, and clicks per impression as counted, of each (topic, product) that the log shows together."""
    log = dataset.table("interactions").to_pandas()
    log = log[log["topic_id"].isin(topic_of) & log["product_id"].isin(row_of) & (log["kind"] != "purchase")]
    if log.empty:
        raise ShoplensError(f"{dataset.path} has no log of what was shown with its topics: choose candidates=listed")
    shown = impressions(log, dataset.path)
    known = shown["propensity"].notna().all()
    placed = shown["position"].max()
    found = click_through(
        shown["topic_id"].map(topic_of).to_numpy(np.int64),
        shown["product_id"].map(row_of).to_numpy(np.int64),
        shown["position"].fillna(0 if np.isnan(placed) else placed + 1).to_numpy(np.int64),
        shown["clicked"].to_numpy(bool),
        shown["propensity"].to_numpy(np.float64) if known else None,
    )
    raw = found.clicks / np.maximum(found.exposure, 1e-12)
    pairs = zip(found.page.tolist(), found.product.tolist(), strict=True)
    return dict(zip(pairs, zip(found.rate.tolist(), raw.tolist(), strict=True), strict=True))


def impressions(log: pd.DataFrame, where: str) -> pd.DataFrame:
    """The impressions of a log, in order of time, and whether each was `clicked`.

    A click belongs to the last impression of its product that the shopper had on that topic's page before it, at
    its position if it tells one. Raises ShoplensError if times are none, or most clicks have no impression.
    """
    try:
        log = log.assign(when=pd.to_datetime(log["time"], utc=True, format="ISO8601"))
    except ValueError as error:
        raise ShoplensError(f"{where}: the log has a time that is none ({error}): write 2025-04-01T10:00:00") from error
    log = log.sort_values("when", kind="stable")
    shown = log[log["kind"] == "impression"].reset_index(drop=True)
    clicks = log[log["kind"] == "click"]
    by = ["user_id", "topic_id", "product_id"]
    clicked = np.zeros(len(shown), bool)
    lost = 0
    for part, keys in ((clicks["position"].notna(), [*by, "position"]), (clicks["position"].isna(), by)):
        place = shown[["when", *keys]].dropna().rename_axis("row").reset_index()
        row = pd.merge_asof(clicks[part][["when", *keys]], place, on="when", by=keys)["row"]
        lost += int(row.isna().sum())
        clicked[row.dropna().to_numpy(np.int64)] = True
    if lost > len(clicks) / 2:
        raise ShoplensError(f"{where}: {lost:,} of {len(clicks):,} clicks have no impression before them in the log")
    return shown.assign(clicked=clicked)


def topics_by_split(
    dataset: Dataset, topics: Sequence[Topic], config: TopicsConfig, catalog: np.ndarray
) -> dict[str, TopicProducts]:
    """Refined, split, and nothing of `test` in `val`, nor of either in `train`.

    topics    `topics_of(dataset, config.made_of)`; catalog int64 of every product
    Raises ShoplensError if a split is left without a topic.
    """
    table = TopicProducts.of(dataset, topics, config.candidates, config.liked)
    seed = config.seed
    names = [topic.name for topic in topics]
    table = refine(table, least=config.least, least_liked=config.least_liked, most=config.most, seed=seed)
    left = table.topics
    kept = [topics[place] for place in left.tolist()]
    stratum = [getattr(topic, config.stratum) for topic in kept]
    rows = split_topics(left, [topic.name for topic in kept], stratum, config.shares, seed)
    test, val, train = (table.keep(np.isin(table.topic, rows[name])) for name in ("test", "val", "train"))
    val = without_leaks(val, test, catalog, names)
    for held_out in (test, val):
        train = without_leaks(train, held_out, catalog, names)
    train, val = (refine(part, least=config.least, least_liked=config.least_liked) for part in (train, val))
    if config.refinement == "reference":
        train = refine_as_reference(train, names, least=config.least)
    found = {"train": train, "val": val, "test": test}
    if empty := [name for name, split in found.items() if not len(split)]:
        raise ShoplensError(
            f"{dataset.path}: of {len(left)} topics with {config.least} products or more none is left for "
            f"{', '.join(empty)}: lower topics.least, or give more topics"
        )
    return found


def refine(table: TopicProducts, *, least: int, least_liked: int = 5, most: int = 0, seed: int = 0) -> TopicProducts:
    """Topics with at least `least` products of which `least_liked` were liked at all, and not all equally.

    most   products a topic keeps, drawn at random (0: all)
    Products of which nothing is known are left out, unless nothing is known of any.
    """
    if not np.isnan(table.liked).all():
        table = table.keep(~np.isnan(table.liked))
    rng = np.random.default_rng((seed, 1))
    kept = np.zeros(len(table), bool)
    for rows in table.groups():
        liked = table.liked[rows]
        several = (table.counted[rows] > 0).sum() >= least_liked and len(np.unique(liked)) > 1
        usable = np.isnan(liked).all() or several
        if len(rows) >= least and usable:
            kept[rows[rng.permutation(len(rows))[: most or None]]] = True
    return table.keep(kept)


def refine_as_reference(table: TopicProducts, names: Sequence[str], *, least: int = 50) -> TopicProducts:
    """The reference implementation's last steps, its inverted filters included (to repeat its data, not to use).

    names   of all topics. A topic stays with fewer than five liked products or with two different values, is cut
            by the claims of topics before it, dropped with fewer than five products that nobody liked, and of more
            than a hundred products keeps the 75 most liked.
    """
    kept: list[np.ndarray] = []
    claimed: set[int] = set()
    seen: set[str] = set()
    for rows in table.groups():
        liked, name = table.counted[rows], names[int(table.topic[rows[0]])]
        if len(rows) < least or not ((liked > 0).sum() < 5 or len(np.unique(liked)) > 1) or name in seen:
            continue
        seen.add(name)
        rows = rows[np.argsort(-liked, kind="stable")]
        rows = rows[[product not in claimed for product in table.product[rows].tolist()]]
        liked = table.counted[rows]
        if len(rows) < least or len(np.unique(liked)) < 2 or (liked == 0).sum() < 5:
            continue
        claimed.update(table.product[rows].tolist())
        kept.append(rows[:75] if len(rows) > 100 else rows)
    return table.keep(np.concatenate(kept) if kept else np.zeros(0, np.int64))


def split_topics(
    topics: np.ndarray,
    names: Sequence[str],
    stratum: Sequence[str],
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Rows of topics by split: those of one name stay together, each stratum divided in the same shares as nearly
    as that allows.

    names, stratum   of each of `topics`: what it is called, and its category for instance
    """
    rng = np.random.default_rng((seed, 2))
    bounds = np.cumsum(np.array(shares) / sum(shares))
    members: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for topic, name, value in zip(topics.tolist(), names, stratum, strict=True):
        members[value][name.casefold()].append(topic)
    found: dict[str, list[int]] = {name: [] for name in SPLITS}
    for _, by_name in sorted(members.items()):
        alike = [by_name[name] for name in rng.permutation(sorted(by_name)).tolist()]
        sizes = np.array([len(group) for group in alike])
        place = (np.cumsum(sizes) - sizes + rng.random()) / sizes.sum() % 1
        for group, split in zip(alike, np.searchsorted(bounds, place, "right"), strict=True):
            found[SPLITS[min(int(split), 2)]].extend(group)
    return {name: np.array(sorted(rows), dtype=np.int64) for name, rows in found.items()}


def without_leaks(
    learnt: TopicProducts, held_out: TopicProducts, catalog: np.ndarray, names: Sequence[str]
) -> TopicProducts:
    """`learnt` without the topics that are called like one held out, and without the products of its catalogs.

    catalog   int64 of every product; names of every topic
    """
    called = {names[topic].casefold() for topic in held_out.topics.tolist()}
    same_name = np.array([names[topic].casefold() in called for topic in learnt.topic.tolist()], dtype=bool)
    same_product = np.isin(catalog[learnt.product], catalog[held_out.product])
    return learnt.keep(~(same_name | same_product))
