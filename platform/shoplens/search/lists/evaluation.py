"""Evaluation of the lists of similar products that an index makes: by content, by logged clicks, against another index."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from shoplens.config import Config
from shoplens.datasets.format import Dataset
from shoplens.errors import ShoplensError
from shoplens.evaluation.report import thumbnail
from shoplens.evaluation.results import Findings
from shoplens.search.index import Index
from shoplens.search.lists.agreement import agreement
from shoplens.search.lists.contents import contents, counted, share_of_places
from shoplens.search.lists.item_codes import AT
from shoplens.search.lists.log import NO_IMPRESSIONS, clicks_of, consecutive_clicks, impressions_of
from shoplens.search.lists.recommendations import Recommendations, recommend, violations
from shoplens.search.lists.replay import SPLIT, Clicks, replay
from shoplens.search.lists.report import Card, Example
from shoplens.search.lists.shop import Shop
from shoplens.search.lists.value import Impressions, value_of_lists
from shoplens.search.rings import Widening
from shoplens.search.rules import NAMES, Rules

SHOWN = 7
"""Results of a list that an example shows."""


class ListsConfig(Config):
    """Settings of the lists: how they are made, and for which seeds."""

    k: int = Field(20, ge=1, le=1000, description="Places of a list.")
    seeds: int | None = Field(
        None, ge=1, description="Number of seeds, drawn at random; null: every product of the dataset."
    )
    rules: Rules = Field(Rules(), description="The shop's rules, as the endpoint applies them.")
    widening: Widening = Field(Widening(), description="How far a search widens, as in the endpoint.")


class LogConfig(Config):
    """Settings of the clicks that judge the lists, and of the report."""

    surface: str = Field(
        "similar", description="Slot of the product page that shows similar products, in an event log."
    )
    clicks: Literal["session"] | None = Field(
        None,
        description="`session`: with a dataset's log without seeds, the next click of a user stands in for a click on "
        "the list; null: the dataset's log is not used.",
    )
    session_minutes: float = Field(30.0, gt=0, description="Most minutes between two such clicks.")
    examples: int = Field(6, ge=0, le=100, description="Lists that the report shows.")


@dataclass(frozen=True)
class System:
    """A system under evaluation: an index, its lists, and these as item codes of the shop, int64 [n, k]."""

    index: Index
    lists: Recommendations
    codes: np.ndarray


@dataclass(frozen=True)
class Log:
    """`CLICKS` and `IMPRESSIONS` of `lists.log`, either may be empty; `source` describes the clicks in a sentence."""

    clicks: pa.Table
    impressions: pa.Table
    source: str


def log_of_events(events: pa.Table, config: LogConfig) -> Log:
    """Clicks and impressions of the slot, from events (`experiments.events.EVENTS`)."""
    clicks, impressions = clicks_of(events, config.surface), impressions_of(events, config.surface)
    source = f"Clicks in the slot “{config.surface}” of product pages, from the event log."
    return Log(clicks, impressions, source)


def log_of_sessions(interactions: pa.Table, config: LogConfig) -> Log:
    """Clicks that stand in for clicks on lists, from a log without seeds (`datasets.format.INTERACTIONS`)."""
    clicks = consecutive_clicks(interactions, config.session_minutes)
    source = (
        "A stand-in, not clicks on lists: the next click of the same user within "
        f"{config.session_minutes:g} minutes, anywhere in the shop."
    )
    return Log(clicks, NO_IMPRESSIONS, source)


def make(index: Index, shop: Shop, config: ListsConfig, done: Callable[[int], object] = lambda n: None) -> System:
    """Makes the list of every seed. Raises ShoplensError if no seed is in the index."""
    seeds = shop.seeds(config.seeds)
    lists = recommend(index, seeds, config.k, rules=config.rules, widening=config.widening, done=done)
    if not (lists.seed >= 0).any():
        raise ShoplensError("the index holds none of the dataset's products: build it from this dataset")
    code_of_place = shop.codes(index.products.all_ids)
    return System(index, lists, np.where(lists.place >= 0, code_of_place[lists.place], -1))


def judge(
    system: System, shop: Shop, config: ListsConfig, log: Log | None = None, against: System | None = None
) -> Findings:
    """Every metric of the lists, named `lists/...`; `about` holds the other facts of the report."""
    lists, codes = system.lists, system.codes
    seed_item = shop.codes(pa.array(lists.seeds, pa.string()))
    findings = contents(
        codes,
        len(shop),
        seed_item=seed_item,
        categories=shop.categories,
        products=shop.products,
        at=[config.k],
    )
    length = (codes >= 0).sum(axis=1)
    wrong = violations(system.index, lists, config.rules)
    share_of_places(findings, f"violations@{config.k}", wrong.sum(axis=1), length)
    for ring in range(int(lists.ring.max(initial=0)) + 1):
        share = (lists.ring == ring).sum(axis=1)
        share_of_places(findings, f"ring_{ring}@{config.k}", share, length, lower_is_better=False)
    findings.about["spread"] = _lorenz(codes, len(shop))
    findings.about["lengths"] = np.bincount(length, minlength=config.k + 1).tolist()
    milliseconds = lists.seconds[~np.isnan(lists.seconds)] * 1e3
    for name, value, n in (
        ("latency_ms_p50", float(np.percentile(milliseconds, 50)), len(milliseconds)),
        ("latency_ms_p99", float(np.percentile(milliseconds, 99)), len(milliseconds)),
        ("index_bytes_per_item", index_bytes(system.index) / len(system.index), len(system.index)),
    ):
        findings.add_statistic(name, counted(value, n))
        findings.lower_is_better.add(name)
    if log is not None:
        findings.include(judge_by_log(codes, seed_item, shop, config, log))
    if against is not None:
        findings.include(agreement(codes, against.codes, len(shop), at=[config.k]))
    named = _named(findings)
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
    """`clicks/...` of `replay`, and `off_policy/...` if propensities are known.

    codes [n, k] are the lists of the seeds `seed_item` [n]. Events of unknown products, and of seeds without a list here,
    are left out and counted. A seed or an item that has left the index is known; clicks on it are misses.
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
    findings = replay(clicks, codes, len(shop), at=at)
    counts = findings.about.setdefault("clicks", {"events": 0, "seeds": 0, "without_list": 0})
    counts["without_list"] += int((codes[clicks.seed] < 0).all(axis=1).sum())
    counts |= {
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
    findings.include(value_of_lists(impressions.keep(kept), codes, len(shop)))
    return findings


def index_bytes(index: Index) -> int:
    """Bytes of the stored vectors and of the items table, those of deltas included."""
    vectors = sum(part.nbytes for stored in index.vectors.parts for part in stored if part is not None)
    return vectors + index.items.nbytes


def examples(systems: Mapping[str, System], shop: Shop, dataset: Dataset, n: int) -> list[Example]:
    """Lists of n seeds as cards with photos, drawn at random; up to a quarter each repeat a product or are short.

    `systems` by their name in the report, the evaluated one first.
    """
    first = next(iter(systems.values()))
    drawn = np.random.default_rng(0).permutation(len(first.lists))
    drawn = drawn[first.lists.seed[drawn] >= 0]
    repeated = _repeats(shop, first.codes[drawn])
    length = (first.codes[drawn] >= 0).sum(axis=1)
    repeating, short = (drawn[chosen][: max(1, n // 4)] for chosen in (repeated.any(axis=1), length < first.lists.k))
    chosen = list(dict.fromkeys(np.concatenate([repeating, short, drawn]).tolist()))[:n]
    chosen.sort(key=lambda row: row in repeating or row in short)
    titles, prices = dataset.products["title"], dataset.products["price"]

    def card(code: int, sample: int, **facts: Any) -> Card:
        listed = code < shop.n_listed
        title = titles[code].as_py() if listed else shop.ids[code].as_py()
        price = prices[code].as_py() if listed else None
        picture = None if sample < 0 else thumbnail(dataset.read_image(sample))
        return Card(title, picture, price, **facts)

    def results(system: System, row: int) -> list[Card]:
        samples, lists = system.index.items["sample"], system.lists
        codes = system.codes[row]
        codes = codes[codes >= 0][:SHOWN]
        repeats = _repeats(shop, codes[None])[0]
        return [
            card(
                code,
                samples[int(lists.row[row, at])].as_py() if code < shop.n_listed else -1,
                ring=int(lists.ring[row, at]),
                rules=tuple(name for bit, name in enumerate(NAMES) if lists.applied[row, at] >> bit & 1),
                score=float(lists.score[row, at]),
                repeats=bool(repeats[at]),
            )
            for at, code in enumerate(codes.tolist())
        ]

    seed_item = shop.codes(pa.array(first.lists.seeds, pa.string()))
    return [
        Example(
            card(int(seed_item[row]), int(shop.sample[seed_item[row]])),
            {name: results(system, row) for name, system in systems.items()},
            int((first.codes[row] >= 0).sum()),
        )
        for row in chosen
    ]


def _repeats(shop: Shop, codes: np.ndarray) -> np.ndarray:
    """bool [n, k]: results of a product that stands earlier in the list, by any of `Shop.products`."""
    repeats = np.zeros(codes.shape, dtype=bool)
    for group_of_item in shop.products.values():
        group = np.where(codes >= 0, group_of_item[codes], np.iinfo(np.int64).min)
        for at in range(1, codes.shape[1]):
            repeats[:, at] |= ((group[:, :at] == group[:, at, None]) & (codes[:, at, None] >= 0)).any(axis=1)
    return repeats


def _named(findings: Findings) -> Findings:
    """The same findings with every name below `lists/`."""

    def below(name: str) -> str:
        return name if name.startswith(f"{SPLIT}/") else f"{SPLIT}/{name}"

    named: dict[str, Any] = {}
    for column in fields(findings):
        values = getattr(findings, column.name)
        by_name = isinstance(values, dict)
        named[column.name] = {below(n): value for n, value in values.items()} if by_name else {below(n) for n in values}
    kept = {"about": findings.about, "titles": findings.titles, "notes": findings.notes}
    return Findings(**{**named, **kept})


def _lorenz(codes: np.ndarray, n_items: int, points: int = 100) -> list[float]:
    """The share of all places that go to the most recommended 0/points, 1/points, ... of the items (Lorenz curve)."""
    counts = np.sort(np.bincount(codes[codes >= 0], minlength=n_items))[::-1]
    shares = np.concatenate([[0.0], np.cumsum(counts) / max(1, counts.sum())])
    return np.interp(np.linspace(0, n_items, points + 1), np.arange(n_items + 1), shares).round(5).tolist()
