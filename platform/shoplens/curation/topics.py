"""Topics with their candidate products for training a ranker: refined, split by topic, free of leaks (CLIK)."""

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
    """Topics to train and evaluate on, and their candidate products."""

    made_of: tuple[str, ...] = Field(
        (),
        description="make topics from these product attributes: one topic for the products that share their values. "
        "`category_1`, `category_2`, ... are the levels of the category. Empty: the topics of the dataset",
    )
    candidates: Candidates = Field(
        "listed", description="`listed`: the products of the topic; `shown`: also products logged on its pages"
    )
    liked: Liked = Field(
        "review_count",
        description="ranking target: `review_count` is log(1 + reviews), `click_rate` the click rate on the topic's "
        "pages, `nothing` trains the fit to the topic alone",
    )
    refinement: Literal["corrected", "reference"] = Field(
        "corrected", description="`reference` repeats the inverted filters of the reference implementation"
    )
    least: int = Field(12, ge=2, description="least number of products of a topic")
    least_liked: int = Field(5, ge=0, description="least number of products of a topic with a review or click")
    most: int = Field(0, ge=0, description="most products of a topic, drawn at random; 0: all")
    stratum: Literal["cat1", "cat2"] = Field(
        "cat1", description="topic field by which the split is stratified: each value has the same shares"
    )
    shares: tuple[float, float, float] = Field((0.7, 0.1, 0.2), description="shares of train, val and test")
    seed: int = Field(0, description="seed of the split; it does not depend on the seed of the training")

    @model_validator(mode="after")
    def _made_topics_have_no_log(self) -> TopicsConfig:
        if self.made_of and (self.candidates == "shown" or self.liked == "click_rate"):
            raise ValueError("made topics have no log: choose candidates=listed, and liked=review_count or nothing")
        return self


def topics_of(dataset: Dataset, made_of: Sequence[str] = ()) -> list[Topic]:
    """The dataset's topics in the order of `topics.parquet`, or topics made of attributes, sorted by their values.

    Raises ShoplensError if there are no topics.
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
        raise ShoplensError(f"{dataset.path} has {lacking}: topics.made_of must name attributes that products have")
    return topics


def _made(dataset: Dataset, keys: Sequence[str]) -> list[Topic]:
    members: dict[tuple[str, ...], list[str]] = defaultdict(list)
    columns = dataset.products.select(["product_id", "attributes", "category_path"]).to_pydict()
    for product_id, attributes, path in zip(*columns.values(), strict=True):
        values_of = {**dict(attributes or ()), **{f"category_{n}": [name] for n, name in enumerate(path or (), 1)}}
        for values in combinations(*(dict.fromkeys(values_of.get(key, ())) for key in keys)):
            members[values].append(product_id)
    return [
        Topic(id=" | ".join(values), name=" ".join(values), product_ids=tuple(ids))
        for values, ids in sorted(members.items())
    ]


@dataclass(frozen=True)
class TopicProducts:
    """Candidate products of topics: n (topic, product) pairs, sorted by topic.

    topic    int64 [n]: row in `topics_of(dataset)`
    product  int64 [n]: row in `products.parquet`
    liked    float64 [n]: ranking target, how much shoppers liked the product; NaN if unknown
    counted  float64 [n]: the raw figure behind `liked`: reviews, or clicks per impression
    listed   bool [n]: true if the topic lists the product, false if it was only shown on the topic's pages
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
        """int64: the distinct topics, as sorted rows in `topics_of(dataset)`."""
        return np.unique(self.topic)

    def keep(self, mask: np.ndarray) -> TopicProducts:
        """The rows selected by a bool mask [n] or by int64 indices."""
        columns = (self.topic, self.product, self.liked, self.counted, self.listed)
        return TopicProducts(*(column[mask] for column in columns))

    def groups(self) -> list[np.ndarray]:
        """For each of `topics`, its rows of this table, int64."""
        return np.split(np.arange(len(self)), np.flatnonzero(np.diff(self.topic)) + 1) if len(self) else []

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        topics: Sequence[Topic],
        candidates: Candidates = "listed",
        liked: Liked = "review_count",
    ) -> TopicProducts:
        """The products that topics list and, with `candidates="shown"`, the products logged on their pages.

        liked   `review_count`: log(1 + reviews); `click_rate`: clicks per examined impression on the topic's pages
        Raises ShoplensError if the dataset lacks the log or the figures that `candidates` and `liked` need.
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
            raise ShoplensError(
                f"{dataset.path} has none of the products that its topics list: import topics and products together"
            )
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
            raise ShoplensError(f"{dataset.path} does not say how its products were liked: set topics.liked=nothing")
        return cls(place, row, values, counted, named)


def _click_rates(
    dataset: Dataset, row_of: dict[str, int], topic_of: dict[str, int]
) -> dict[tuple[int, int], tuple[float, float]]:
    """(smoothed click rate, raw clicks per examined impression) of each logged (topic, product) pair."""
    log = dataset.table("interactions").to_pandas()
    log = log[log["topic_id"].isin(topic_of) & log["product_id"].isin(row_of) & (log["kind"] != "purchase")]
    if log.empty:
        raise ShoplensError(
            f"{dataset.path} has no log of what was shown with its topics: choose candidates=listed and another `liked`"
        )
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
    """The impressions of a log in order of time, with a bool column `clicked`.

    A click belongs to the last earlier impression with the same shopper, topic and product, and with the same position
    if the click has one. Raises ShoplensError if a time cannot be parsed, or if most clicks have no impression.
    """
    try:
        log = log.assign(when=pd.to_datetime(log["time"], utc=True, format="ISO8601"))
    except ValueError as error:
        raise ShoplensError(f"{where}: a time in the log is not valid ({error}): write 2025-04-01T10:00:00") from error
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
        raise ShoplensError(
            f"{where}: {lost:,} of {len(clicks):,} clicks have no impression before them in the log: import the "
            f"impressions too"
        )
    return shown.assign(clicked=clicked)


def topics_by_split(
    dataset: Dataset, topics: Sequence[Topic], config: TopicsConfig, catalog: np.ndarray
) -> dict[str, TopicProducts]:
    """train, val and test: refined, split by topic, and free of leaks.

    Nothing of `test` is in `val`, and nothing of either is in `train` (`without_leaks`).

    topics    `topics_of(dataset, config.made_of)`
    catalog   int64 [products]
    Raises ShoplensError if a split has no topic left.
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
            f"{dataset.path}: of {len(left)} topics with {config.least} products or more, none is left for "
            f"{', '.join(empty)}: lower topics.least, or give more topics"
        )
    return found


def refine(table: TopicProducts, *, least: int, least_liked: int = 5, most: int = 0, seed: int = 0) -> TopicProducts:
    """Keeps topics with at least `least` products, `least_liked` of them liked, and at least two values of `liked`.

    most   products that a topic keeps, drawn at random (0: all)
    Products with unknown `liked` are left out, unless it is unknown for all products.
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
    """The last filters of the reference implementation, inverted ones included. Only for repeating its data.

    names   of all topics

    Of each name, the first topic is taken that has `least` products, and either fewer than five liked ones or two values
    of `counted`. Products of topics kept before are removed. The topic is then kept if it still has `least` products,
    two values of `counted`, and five products that nobody liked. Of more than 100 products, the 75 most liked stay.
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
        rows = rows[:75] if len(rows) > 100 else rows
        claimed.update(table.product[rows].tolist())
        kept.append(rows)
    return table.keep(np.concatenate(kept) if kept else np.zeros(0, np.int64))


def split_topics(
    topics: np.ndarray,
    names: Sequence[str],
    stratum: Sequence[str],
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """The topics of each split, int64. Topics of one name stay together, so shares are met only approximately.

    names     [n] name of each of `topics`
    stratum   [n] for example its category: every stratum is divided in the same shares
    """
    rng = np.random.default_rng((seed, 2))
    bounds = np.cumsum(np.array(shares) / sum(shares))
    members: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for topic, name, value in zip(topics.tolist(), names, stratum, strict=True):
        members[value][name.casefold()].append(topic)
    found: dict[str, list[int]] = {name: [] for name in SPLITS}
    for _, by_name in sorted(members.items()):
        same_name = [by_name[name] for name in rng.permutation(sorted(by_name)).tolist()]
        sizes = np.array([len(group) for group in same_name])
        place = (np.cumsum(sizes) - sizes + rng.random()) / sizes.sum() % 1
        for group, split in zip(same_name, np.searchsorted(bounds, place, "right"), strict=True):
            found[SPLITS[min(int(split), 2)]].extend(group)
    return {name: np.array(sorted(rows), dtype=np.int64) for name, rows in found.items()}


def without_leaks(
    learnt: TopicProducts, held_out: TopicProducts, catalog: np.ndarray, names: Sequence[str]
) -> TopicProducts:
    """`learnt` without topics that have the name of a held-out topic, and without products of held-out catalogs.

    catalog   int64 [products]
    names     of all topics; case is ignored
    """
    called = {names[topic].casefold() for topic in held_out.topics.tolist()}
    same_name = np.array([names[topic].casefold() in called for topic in learnt.topic.tolist()], dtype=bool)
    same_product = np.isin(catalog[learnt.product], catalog[held_out.product])
    return learnt.keep(~(same_name | same_product))
