"""The lists of similar products that an index makes, judged: by what they hold, by logged clicks, against another index's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from shoplens.config import Config
from shoplens.datasets.format import Dataset
from shoplens.errors import ShoplensError
from shoplens.evaluation.report import thumbnail
from shoplens.evaluation.results import Findings
from shoplens.search.index import Index
from shoplens.search.lists.log import NO_IMPRESSIONS, clicks_of, consecutive_clicks, impressions_of
from shoplens.search.lists.made import Lists, broken, lists_of
from shoplens.search.lists.replay import AT, SPLIT, Clicks, agreement, contents, counted, replay, share_of_places
from shoplens.search.lists.report import Card, Example
from shoplens.search.lists.value import Impressions, value_of_lists
from shoplens.search.product_identity import products_of
from shoplens.search.rings import Widening
from shoplens.search.rules import NAMES, Rules

LEVELS = ("leaf", "parent", "section")
SHOWN = 7
"""Results of a list that an example shows."""


class ListsConfig(Config):
    """How lists are made, and which are made.

    k        places of a list
    seeds    so many products, drawn at random, stand for all as seeds; null: all of the dataset
    rules    `retrieval.rules.Rules`, as the shop applies them
    widening `retrieval.rings.Widening`
    """

    k: int = Field(20, ge=1, le=1000)
    seeds: int | None = Field(None, ge=1)
    rules: Rules = Rules()
    widening: Widening = Widening()


class LogConfig(Config):
    """Which clicks judge the lists, and how many lists the report shows.

    surface          the slot of the page that similar products stand in, of an event log
    clicks           session: of a dataset's log without seeds, what a user clicks next stands in for a click on the list
    session_minutes  between two such clicks at most
    examples         lists in the report
    """

    surface: str = "similar"
    clicks: Literal["session"] | None = None
    session_minutes: float = Field(30.0, gt=0)
    examples: int = Field(6, ge=0, le=100)


@dataclass(frozen=True)
class Shop:
    """The products that lists are about, as codes 0 to n-1: those of the dataset, then those that only indexes hold.

    ids         string [n]
    n_listed    so many of them are in the dataset
    products    by what makes listings one product, int64 [n]: `product` (catalog and identifiers, as the rules have
                it), `component` (of the first index), `photo` (a perceptual hash in common), and where a synthetic shop
                tells it `truth`
    categories  the category at each of `LEVELS`, int64 [n], -1 where unknown: the own one, the one above, the root
    sample      int64 [n]: the first photo, a row of `Dataset.images`, -1 where there is none
    """

    ids: pa.Array
    n_listed: int
    products: Mapping[str, np.ndarray]
    categories: Mapping[str, np.ndarray]
    sample: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, dataset: Dataset, indexes: Sequence[Index], rules: Rules = Rules()) -> Shop:
        listed = dataset.products.select(["product_id", "catalog_id", "category_id", "attributes"])
        tables, known = [listed], listed["product_id"].combine_chunks()
        paths = {node.id: node.path for tree in (dataset.categories, *(i.tree for i in indexes)) for node in tree}
        for index in indexes:
            live = _live(index)
            new = live.filter(pc.invert(pc.is_in(live["product_id"], value_set=known)))
            tables.append(new.select(listed.column_names).cast(listed.schema))
            known = pa.concat_arrays([known, new["product_id"].combine_chunks()])
        whole = pa.concat_tables(tables).combine_chunks()
        catalog = _numbered(whole["catalog_id"])
        product = products_of(catalog, whole["attributes"].combine_chunks(), rules.identifiers)
        products = {"product": np.where(product >= 0, product, catalog)}
        components = _live(indexes[0]).select(["product_id", "component"])
        at = pc.index_in(known, value_set=components["product_id"].combine_chunks())
        component = components["component"].combine_chunks().take(at)
        if component.null_count < len(component):
            products["component"] = _numbered(component)
        products["photo"] = _sharing_a_photo(dataset, len(known))
        truth = _truth(dataset)
        if truth is not None:
            true_catalog = truth["true_catalog_id"].combine_chunks()
            place = pc.index_in(known, value_set=truth["product_id"].combine_chunks())
            products["truth"] = _numbered(true_catalog.take(place))
        sample = np.full(len(known), -1, dtype=np.int64)
        photos = np.arange(len(dataset.product_row))[::-1]
        sample[dataset.product_row[photos]] = photos
        return cls(known, listed.num_rows, products, _categories(whole["category_id"], paths), sample)

    def codes(self, ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """int64 [m]; -1 of an id that is unknown."""
        return pc.fill_null(pc.index_in(ids, value_set=self.ids), -1).to_numpy(zero_copy_only=False).astype(np.int64)

    def seeds(self, config: ListsConfig) -> list[str]:
        """Ids of the products that lists are made for, in the order of the dataset: the same for every index."""
        rows = np.arange(self.n_listed)
        if config.seeds is not None and config.seeds < len(rows):
            rows = np.sort(np.random.default_rng(0).permutation(len(rows))[: config.seeds])
        return self.ids.take(pa.array(rows)).to_pylist()


@dataclass(frozen=True)
class Made:
    """An index, its lists, and these as codes of the shop's products, int64 [n, k]."""

    index: Index
    lists: Lists
    codes: np.ndarray


@dataclass(frozen=True)
class Log:
    """Tables of `evaluation.list_log`, either may be empty; `source` says in a sentence what the clicks are."""

    clicks: pa.Table
    impressions: pa.Table
    source: str


def log_of_events(events: pa.Table, config: LogConfig) -> Log:
    """The slot's clicks and impressions, of `experiments.events.EVENTS`."""
    clicks, impressions = clicks_of(events, config.surface), impressions_of(events, config.surface)
    return Log(
        clicks, impressions, f"What was clicked in the slot “{config.surface}” of product pages, from the event log."
    )


def log_of_sessions(interactions: pa.Table, config: LogConfig) -> Log:
    """Clicks that stand in for those of a log without seeds, of `datasets.format.INTERACTIONS`."""
    clicks = consecutive_clicks(interactions, config.session_minutes)
    source = (
        f"A stand-in, not clicks on lists: what a user clicked next within {config.session_minutes:g} minutes, anywhere in "
        "the shop."
    )
    return Log(clicks, NO_IMPRESSIONS, source)


def make(index: Index, shop: Shop, config: ListsConfig, done: Callable[[int], object] = lambda n: None) -> Made:
    """The list of every seed. Raises ShoplensError if not one of the seeds is in the index."""
    lists = lists_of(index, shop.seeds(config), config.k, rules=config.rules, widening=config.widening, done=done)
    if not (lists.seed >= 0).any():
        raise ShoplensError("the index holds none of the dataset's products: build it from this dataset")
    of_place = shop.codes(index.products.all_ids)
    return Made(index, lists, np.where(lists.place >= 0, of_place[lists.place], -1))


def judge(made: Made, shop: Shop, config: ListsConfig, log: Log | None = None, against: Made | None = None) -> Findings:
    """Every figure of the lists, named `lists/...`; `about` holds what the report tells beside them."""
    lists, codes = made.lists, made.codes
    seed_item = shop.codes(pa.array(lists.seeds, pa.string()))
    found = contents(
        codes,
        len(shop),
        seed_item=seed_item,
        categories=shop.categories,
        products=shop.products,
        at=[config.k],
    )
    length = (codes >= 0).sum(axis=1)
    wrong = broken(made.index, lists, config.rules)
    share_of_places(found, f"violations@{config.k}", wrong.sum(axis=1), length)
    for ring in range(int(lists.ring.max(initial=0)) + 1):
        share = (lists.ring == ring).sum(axis=1)
        share_of_places(found, f"ring_{ring}@{config.k}", share, length, lower_is_better=False)
    found.about["spread"] = _lorenz(codes, len(shop))
    found.about["lengths"] = np.bincount(length, minlength=config.k + 1).tolist()
    took = lists.seconds[~np.isnan(lists.seconds)] * 1e3
    for name, value, n in (
        ("latency_ms_p50", float(np.percentile(took, 50)), len(took)),
        ("latency_ms_p99", float(np.percentile(took, 99)), len(took)),
        ("index_bytes_per_item", index_bytes(made.index) / len(made.index), len(made.index)),
    ):
        found.add_statistic(name, counted(value, n))
        found.lower_is_better.add(name)
    if log is not None:
        found.include(judge_by_log(codes, seed_item, shop, config, log))
    if against is not None:
        at = [config.k]
        found.include(agreement(codes, against.codes, len(shop), at=at))
    named = _named(found)
    named.about |= {
        "seeds": {
            "seeds": len(lists),
            "of": shop.n_listed,
            "not_in_index": int((lists.seed < 0).sum()),
        },
        "snapshot": lists.snapshot,
        "k": config.k,
        "rules": config.rules.model_dump(mode="json"),
        "widening": config.widening.model_dump(mode="json"),
    }
    return named


def judge_by_log(codes: np.ndarray, seed_item: np.ndarray, shop: Shop, config: ListsConfig, log: Log) -> Findings:
    """`clicks/...` of `replay`, and `off_policy/...` where propensities are known.

    codes [n, k] of the seeds `seed_item` [n]. Events of products that are unknown, or of seeds that lists were not made for,
    are left out and counted; a seed or an item that has left the index is known: its clicks are misses.
    """
    row_of = np.full(len(shop) + 1, -1, dtype=np.int64)
    row_of[seed_item] = np.arange(len(seed_item))
    user_ids = pa.concat_arrays(
        [table["user"].combine_chunks().cast(pa.string()) for table in (log.clicks, log.impressions)]
    )
    users = user_ids.dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    seed, item = (shop.codes(log.clicks[name]) for name in ("seed", "product"))
    known = (seed >= 0) & (item >= 0)
    kept = known & (row_of[seed] >= 0)
    clicks = Clicks(row_of[seed][kept], item[kept], users[: len(seed)][kept])
    at = sorted({*(k for k in AT if k < config.k), config.k})
    found = replay(clicks, codes, len(shop), at=at)
    told = found.about.setdefault("clicks", {"events": 0, "seeds": 0, "without_list": 0})
    told["without_list"] += int((codes[clicks.seed] < 0).all(axis=1).sum())
    told |= {
        "source": log.source,
        "users": len(np.unique(clicks.user)),
        "unknown_seed": int((seed < 0).sum()),
        "unknown_item": int(((seed >= 0) & (item < 0)).sum()),
        "seed_not_asked": int((known & ~kept).sum()),
    }
    shown = log.impressions
    seed, item = (shop.codes(shown[name]) for name in ("seed", "product"))
    kept = (item >= 0) & (seed >= 0) & (row_of[seed] >= 0)
    impressions = Impressions(
        row_of[seed],
        item,
        shown["position"].to_numpy().astype(np.int64),
        shown["clicked"].to_numpy().astype(np.float64),
        shown["propensity"].to_numpy(),
        users[len(log.clicks) :],
    )
    found.include(value_of_lists(impressions.keep(kept), codes, len(shop)))
    return found


def index_bytes(index: Index) -> int:
    """Bytes of the vectors as they are stored and of the columns beside them, photos and products of deltas included."""
    vectors = sum(part.nbytes for stored in index.vectors.parts for part in stored if part is not None)
    return vectors + index.items.nbytes


def examples(made: Mapping[str, Made], shop: Shop, dataset: Dataset, n: int) -> list[Example]:
    """Lists of n seeds as cards with photos, drawn at random: of those that repeat a product, that are short, and others.

    `made`: by the name that the page gives each system, the judged one first.
    """
    first = next(iter(made.values()))
    drawn = np.random.default_rng(0).permutation(len(first.lists))
    drawn = drawn[first.lists.seed[drawn] >= 0]
    most = _repeats(shop, first.codes[drawn])
    length = (first.codes[drawn] >= 0).sum(axis=1)
    repeating, short = (drawn[chosen][: max(1, n // 4)] for chosen in (most.any(axis=1), length < first.lists.k))
    chosen = list(dict.fromkeys(np.concatenate([repeating, short, drawn]).tolist()))[:n]
    chosen.sort(key=lambda row: row in repeating or row in short)
    titles, prices = dataset.products["title"], dataset.products["price"]

    def card(code: int, sample: int, **facts: Any) -> Card:
        listed = code < shop.n_listed
        title = titles[code].as_py() if listed else shop.ids[code].as_py()
        price = prices[code].as_py() if listed else None
        picture = None if sample < 0 else thumbnail(dataset.read_image(sample))
        return Card(title, picture, price, **facts)

    def results(one: Made, row: int) -> list[Card]:
        samples = one.index.items["sample"]
        codes = one.codes[row]
        codes = codes[codes >= 0][:SHOWN]
        repeats = _repeats(shop, codes[None])[0]
        return [
            card(
                code,
                samples[int(one.lists.row[row, at])].as_py() if code < shop.n_listed else -1,
                ring=int(one.lists.ring[row, at]),
                rules=tuple(name for bit, name in enumerate(NAMES) if one.lists.applied[row, at] >> bit & 1),
                score=float(one.lists.score[row, at]),
                repeats=bool(repeats[at]),
            )
            for at, code in enumerate(codes.tolist())
        ]

    seed_item = shop.codes(pa.array(first.lists.seeds, pa.string()))
    return [
        Example(
            card(int(seed_item[row]), int(shop.sample[seed_item[row]])),
            {name: results(one, row) for name, one in made.items()},
            int((first.codes[row] >= 0).sum()),
        )
        for row in chosen
    ]


def _repeats(shop: Shop, codes: np.ndarray) -> np.ndarray:
    """bool [n, k]: results that are a product which stands before them, by any of `Shop.products`."""
    found = np.zeros(codes.shape, dtype=bool)
    for of_item in shop.products.values():
        product = np.where(codes >= 0, of_item[codes], np.iinfo(np.int64).min)
        for at in range(1, codes.shape[1]):
            found[:, at] |= ((product[:, :at] == product[:, at, None]) & (codes[:, at, None] >= 0)).any(axis=1)
    return found


def _named(found: Findings) -> Findings:
    """The same, every name below `lists/`."""

    def below(name: str) -> str:
        return name if name.startswith(f"{SPLIT}/") else f"{SPLIT}/{name}"

    columns = ("outcomes", "groups", "statistics", "chance")
    parts = {part: {below(name): value for name, value in getattr(found, part).items()} for part in columns}
    return Findings(**parts, lower_is_better={below(name) for name in found.lower_is_better}, about=found.about)


def _live(index: Index) -> pa.Table:
    """The first photo's row of each product that can be found."""
    first = index.products.start[:-1]
    return index.items.take(pa.array(first if index.products.gone is None else first[~index.products.gone]))


def _numbered(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A number for each value, int64 [n]; of null a number of its own, below 0."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    codes = whole.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.where(codes >= 0, codes, -1 - np.arange(len(codes)))


def _sharing_a_photo(dataset: Dataset, n: int) -> np.ndarray:
    """A number for each of n products, int64 [n]: equal where photos of one perceptual hash link them."""
    phash = dataset.images["phash"].to_numpy()
    hashes, code = np.unique(phash, return_inverse=True)
    links = (np.ones(len(code), bool), (dataset.product_row, n + code))
    graph = sparse.coo_array(links, shape=(n + len(hashes), n + len(hashes)))
    return connected_components(graph, directed=False)[1][:n].astype(np.int64)


def _truth(dataset: Dataset) -> pa.Table | None:
    """What a synthetic shop knows of its products."""
    try:
        return dataset.table("truth", ["product_id", "true_catalog_id"])
    except FileNotFoundError:
        return None


def _categories(category: pa.ChunkedArray, paths: Mapping[str, tuple[str, ...]]) -> dict[str, np.ndarray]:
    encoded = category.combine_chunks().dictionary_encode()
    of_code = [paths.get(name, ()) for name in encoded.dictionary.to_pylist()]
    numbers = {path[:end]: 0 for path in of_code for end in range(1, len(path) + 1)}
    numbers = {path: number for number, path in enumerate(numbers)}
    held = encoded.indices.fill_null(len(of_code)).to_numpy(zero_copy_only=False)
    ends = {"leaf": lambda path: path, "parent": lambda path: path[:-1] or path, "section": lambda path: path[:1]}
    return {
        level: np.array([*(numbers.get(ends[level](path), -1) for path in of_code), -1], dtype=np.int64)[held]
        for level in LEVELS
    }


def _lorenz(codes: np.ndarray, n_items: int, points: int = 100) -> list[float]:
    """The share of all places that the most recommended 0/points, 1/points, ... of the catalog take."""
    counts = np.sort(np.bincount(codes[codes >= 0], minlength=n_items))[::-1]
    shares = np.concatenate([[0.0], np.cumsum(counts) / max(1, counts.sum())])
    return np.interp(np.linspace(0, n_items, points + 1), np.arange(n_items + 1), shares).round(5).tolist()
