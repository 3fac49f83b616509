"""A shop small enough to know every list by heart."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from shoplens.datasets.format import INTERACTIONS, Dataset
from shoplens.datasets.staging import Staging
from shoplens.errors import ShoplensError
from shoplens.evaluation.results import Evaluation
from shoplens.experiments.events import EVENTS
from shoplens.search import deltas
from shoplens.search.deltas import Changes
from shoplens.search.index import Index
from shoplens.search.items import ITEMS, items
from shoplens.search.lists.evaluation import (
    ListsConfig,
    Log,
    LogConfig,
    System,
    examples,
    judge,
    log_of_events,
    log_of_sessions,
    make,
)
from shoplens.search.lists.log import CLICKS, NO_IMPRESSIONS
from shoplens.search.lists.report import differences
from shoplens.search.lists.shop import Shop
from shoplens.search.rules import Rules

PRODUCTS = [
    # id, catalog, category, perceptual hash, place on the circle in degrees
    ("a", "c1", "x/y/leaf1", 1, 0),
    ("b", "c2", "x/y/leaf1", 2, 10),
    ("c", "c2", "x/y/leaf1", 3, 20),
    ("d", "c3", "x/y/leaf2", 2, 30),
    ("e", None, "x/z/leaf3", 5, 40),
    ("f", "c4", "w", 6, 50),
]
"""Lists of 3, all the same price, the first by id of a catalog: a: b d e (rings 0 1 2); b and c: a d e; d: b a e ...
(c is never shown: b stands for c2.)"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    staging = Staging(str(tmp_path_factory.mktemp("lists") / "shop"), {})
    staging.begin()
    products, images = [], []
    out = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 20, 20)).save(out, "PNG")
    photo = {"role": "main", "split": "train", "shard": "train-000000.tar", "width": 40, "height": 30, "format": "png"}
    with staging.shard("train-000000.tar") as shard:
        for product_id, catalog, path, phash, _ in PRODUCTS:
            place = shard.add(product_id, out.getvalue(), "png", "{}")
            names = path.split("/")
            facts = {"catalog_id": catalog, "category_path": names, "category_id": path, "price": 5.0, "split": "train"}
            products.append({"product_id": product_id, "title": f"title of {product_id}", **facts})
            where = {"offset": place, "length": len(out.getvalue()), "sha256": product_id, "phash": phash}
            images.append({"image_id": f"i-{product_id}", "product_id": product_id, **photo, **where})
    staging.write_chunk("0", {"products": products, "images": images})
    return staging.finish("little", {})


def index_of(dataset: Dataset, folder: Path, without: str = "") -> Index:
    degrees = {product[0]: product[4] for product in PRODUCTS}
    ids = dataset.images["product_id"].to_pylist()
    samples = np.array([row for row, product in enumerate(ids) if product not in without])
    angle = np.radians([degrees[ids[row]] for row in samples])
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    return Index.build(folder, vectors, items(dataset, samples), dataset.categories, {})


@pytest.fixture(scope="module")
def index(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Index:
    return index_of(dataset, tmp_path_factory.mktemp("index") / "index")


def judged(
    index: Index, dataset: Dataset, log: Log | None = None, against: Index | None = None, **settings: Any
) -> tuple[Evaluation, System, Shop]:
    config = ListsConfig(k=3, **{"rules": Rules(seed_catalog=False), **settings})
    shop = Shop.of(dataset, [index, *([against] if against else [])], config.rules)
    made = make(index, shop, config)
    found = judge(made, shop, config, log, make(against, shop, config) if against else None)
    return found.evaluation({"model": "m/1"}), made, shop


def ids(made: System, shop: Shop) -> dict[str, str]:
    names = shop.ids.to_pylist()
    return {
        seed: "".join(names[code] for code in row if code >= 0)
        for seed, row in zip(made.lists.seeds, made.codes, strict=True)
    }


def clicks(*pairs: str) -> Log:
    """Each is seed, product, user, one letter each."""
    return Log(pa.table([list(column) for column in zip(*pairs, strict=True)], names=CLICKS), NO_IMPRESSIONS, "Some.")


def value(evaluation: Evaluation, name: str) -> float:
    return evaluation.metrics[f"lists/{name}"].value


def test_what_the_lists_hold(dataset: Dataset, index: Index) -> None:
    evaluation, made, shop = judged(index, dataset)
    assert ids(made, shop) == {"a": "bde", "b": "ade", "c": "ade", "d": "bae", "e": "dba", "f": ""}
    assert value(evaluation, "full@3") == pytest.approx(5 / 6)
    assert value(evaluation, "duplicates_product@3") == 0
    assert value(evaluation, "duplicates_photo@3") == pytest.approx((1 + 0 + 0 + 0 + 1) / 3 / 5), "b and d, one hash"
    assert value(evaluation, "itself_photo@3") == pytest.approx((0 + 1 + 0 + 1 + 0) / 3 / 5)
    assert value(evaluation, "itself_product@3") == 0
    assert value(evaluation, "leakage_leaf@3") == pytest.approx((2 + 2 + 2 + 3 + 3) / 3 / 5)
    assert value(evaluation, "leakage_parent@3") == pytest.approx((1 + 1 + 1 + 1 + 3) / 3 / 5)
    assert value(evaluation, "leakage_section@3") == 0
    assert value(evaluation, "violations@3") == 0
    rings = [value(evaluation, f"ring_{ring}@3") for ring in range(3)]
    assert rings == pytest.approx([3 / 15, (1 + 1 + 1 + 2 + 0) / 15, (1 + 1 + 1 + 1 + 3) / 15])
    assert value(evaluation, "catalog/coverage@3") == pytest.approx(4 / 6)
    assert evaluation.about["lengths"] == [1, 0, 0, 5]
    assert evaluation.about["seeds"] == {"seeds": 6, "of": 6, "not_in_index": 0}
    assert value(evaluation, "index_bytes_per_item") > 8
    assert not any("component" in name or "truth" in name for name in evaluation.metrics)
    assert all(name.startswith("lists/") for name in evaluation.metrics)


def test_clicks_of_a_log(dataset: Dataset, index: Index) -> None:
    log = clicks("adu", "adu", "abv", "bcv", "fav", "ghw", "ahw", "bau")
    evaluation, _, _ = judged(index, dataset, log)
    assert evaluation.about["clicks"] == {
        "events": 6, "seeds": 3, "without_list": 1, "source": "Some.", "users": 2,
        "unknown_seed": 1, "unknown_item": 1, "seed_not_asked": 0,
    }  # fmt: skip
    assert value(evaluation, "clicks/hit@3") == pytest.approx((1 + 1 + 1 + 0 + 0 + 1) / 6)
    assert value(evaluation, "clicks/mrr@3") == pytest.approx((1 / 2 + 1 / 2 + 1 + 0 + 0 + 1) / 6)
    assert value(evaluation, "clicks/hit@3_by_seed") == pytest.approx((3 / 3 + 1 / 2 + 0) / 3)
    evaluation, _, _ = judged(index, dataset, log, seeds=2)
    assert evaluation.about["clicks"]["seed_not_asked"] + evaluation.about["clicks"]["events"] == 6
    assert evaluation.about["seeds"]["seeds"] == 2


def test_a_log_of_nothing_leaves_the_rest(dataset: Dataset, index: Index) -> None:
    for log in (
        log_of_events(EVENTS.empty_table(), LogConfig()),
        log_of_sessions(INTERACTIONS.empty_table(), LogConfig()),
    ):
        evaluation, _, _ = judged(index, dataset, log)
        assert "lists/full@3" in evaluation.metrics
        assert not any("clicks" in name or "off_policy" in name for name in evaluation.metrics)
        assert evaluation.about["clicks"]["events"] == 0


def test_propensities_of_an_event_log_are_used(dataset: Dataset, index: Index) -> None:
    rows = []
    for user in range(20):
        place = {"user_id": f"u{user}", "request_id": f"r{user}", "seed_product_id": "a", "surface": "similar"}
        shown = {**place, "product_id": "be"[user % 2], "position": 0, "propensity": 0.5}
        rows += [{**shown, "kind": "impression"}, *([{**shown, "kind": "click"}] if user % 4 == 0 else [])]
    log = log_of_events(pa.Table.from_pylist(rows, schema=EVENTS), LogConfig())
    evaluation, _, _ = judged(index, dataset, log)
    assert value(evaluation, "clicks/hit@3") == 1
    assert value(evaluation, "off_policy/ips") == pytest.approx(5 * 2 / 20)
    assert value(evaluation, "off_policy/snips") == pytest.approx(0.5)
    assert evaluation.about["off_policy"]["matched"] == 10


def test_two_versions_are_compared_on_the_same_seeds(dataset: Dataset, index: Index, tmp_path: Path) -> None:
    """The other lacks d: be, ae, ae, nothing, ba, nothing."""
    other = index_of(dataset, tmp_path / "other", without="d")
    log = clicks("adu", "abv")
    ours, _, _ = judged(index, dataset, log, against=other)
    theirs, made, shop = judged(other, dataset, log, against=index)
    assert ids(made, shop)["a"] == "be" and ids(made, shop)["d"] == ""
    assert value(ours, "agreement/match@3") == value(theirs, "agreement/match@3") == pytest.approx(4 * 2 / 3 / 6)
    assert ours.about["rbo"]["both_empty"] == 1
    found = {one.name: one.value for one in differences(ours, theirs)}
    assert found["lists/full@3"] == pytest.approx(5 / 6)
    assert found["lists/clicks/hit@3"] == pytest.approx(1 / 2)
    assert found["lists/clicks/mrr@3"] == pytest.approx(1 / 4)
    assert found["lists/leakage_leaf@3"] == pytest.approx(((2 / 3 + 2 / 3 + 2 / 3 + 1) - (1 / 2 * 3 + 1)) / 4), (
        "a b c e"
    )


def test_what_left_or_came_since_the_dataset(dataset: Dataset, tmp_path: Path) -> None:
    """b is gone, so c stands for its catalog; g is new and no seed, but in lists."""
    index_of(dataset, tmp_path / "index")
    new = {"image_id": "i-g", "product_id": "g", "category_id": "x/y/leaf1", "component": 4}
    near = np.array([[np.cos(0.01), np.sin(0.01)]], np.float32)
    deltas.append(tmp_path / "index", Changes(removed=["b"], items=pa.Table.from_pylist([new], ITEMS), vectors=near))
    evaluation, made, shop = judged(deltas.load(tmp_path / "index"), dataset, clicks("bau", "agu", "abv"))
    found = ids(made, shop)
    assert "".join(found) == "abcdef"
    assert (found["a"], found["b"], found["c"]) == ("gcd", "", "gad")
    assert value(evaluation, "full@3") == pytest.approx(4 / 6)
    assert evaluation.about["seeds"]["not_in_index"] == 1
    assert evaluation.about["clicks"]["without_list"] == 1
    assert value(evaluation, "clicks/hit@3") == pytest.approx(1 / 3), "b left: its page and clicks on it are misses"
    assert "lists/duplicates_component@3" in evaluation.metrics
    shown = examples({"m/1": made}, shop, dataset, 6)
    cards = [card for one in shown for card in one.lists["m/1"] if card.title == "g"]
    assert cards and all(card.picture is None and card.price is None for card in cards)


def test_rules_of_the_settings_are_applied(dataset: Dataset, index: Index) -> None:
    evaluation, made, shop = judged(index, dataset, rules=Rules(cheapest=False))
    assert ids(made, shop)["a"] == "bcd"
    assert value(evaluation, "duplicates_product@3") > 0
    assert value(evaluation, "violations@3") == 0
    assert evaluation.about["rules"]["cheapest"] is False


def test_examples_show_photos_rings_and_repeats(dataset: Dataset, index: Index) -> None:
    _, made, shop = judged(index, dataset)
    shown = examples({"m/1": made, "m/0": made}, shop, dataset, 6)
    assert {one.seed.title[-1] for one in shown} == set("abcdef")
    of_a = next(one for one in shown if one.seed.title == "title of a")
    assert [card.title[-1] for card in of_a.lists["m/0"]] == ["b", "d", "e"]
    assert [card.ring for card in of_a.lists["m/1"]] == [0, 1, 2]
    assert [card.repeats for card in of_a.lists["m/1"]] == [False, True, False]
    assert of_a.lists["m/1"][0].rules == ("cheapest",)
    assert of_a.lists["m/1"][0].score == pytest.approx(np.cos(np.radians(10)), abs=1e-6)
    assert str(of_a.seed.picture).startswith("data:image/jpeg")


def test_an_index_of_another_shop_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    row = {"image_id": "i", "product_id": "z", "category_id": "w"}
    strange = Index.build(
        tmp_path / "index", np.ones((1, 2), np.float32), pa.Table.from_pylist([row], ITEMS), dataset.categories, {}
    )
    with pytest.raises(ShoplensError, match="none of the dataset's products"):
        judged(strange, dataset)
