"""The index of a synthetic shop, whose truth is known, with vectors that stand for those of a model."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from shoplens.config import ConfigError, override, validate
from shoplens.datasets.format import Dataset
from shoplens.search.build import Built, IndexConfig, build
from shoplens.search.index import Index
from shoplens.search.rings import similar
from shoplens.synthetic import SyntheticShop, synthesize


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Offers are repeated, and a third is listed under no catalog: there a photo is all that tells."""
    made = SyntheticShop(products=200, seed=3, image_size=48, duplicates=0.4, missing_catalog=0.3, photos_per_product=2)
    return synthesize(tmp_path_factory.mktemp("shop") / "shop", made, workers=1, progress=False)


@pytest.fixture(scope="module")
def vectors(shop: Dataset) -> np.ndarray:
    """Equal photos have equal vectors; those of a category are like each other."""
    table, products = shop.images.to_pydict(), shop.products["category_id"].to_pylist()
    rows = []
    for sha256, row in zip(table["sha256"], shop.product_row.tolist(), strict=True):
        own = np.random.default_rng(int(sha256[:8], 16)).normal(size=16)
        rows.append(own + 2 * np.random.default_rng(shop.categories[products[row]].order).normal(size=16))
    found = np.array(rows) / np.linalg.norm(rows, axis=1, keepdims=True)
    return found.astype(np.float32)


@pytest.fixture(scope="module")
def built(shop: Dataset, vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Built:
    samples = np.arange(len(shop.images))
    return build(tmp_path_factory.mktemp("built") / "index", shop, samples, vectors, {"model": "similar"})


def test_stock_is_the_datasets(shop: Dataset, built: Built) -> None:
    stock = dict(zip(shop.products["product_id"].to_pylist(), shop.products["stock"].to_pylist(), strict=True))
    items = built.index.items
    assert items["stock"].to_pylist() == [stock[product_id] for product_id in items["product_id"].to_pylist()]
    assert built.counts["sold_out"] == list(stock.values()).count(0) > 0
    assert built.counts["stock_unknown"] == list(stock.values()).count(None) > 0


def test_products_that_show_a_photo_of_another_catalog_share_a_component(shop: Dataset, built: Built) -> None:
    """Photos are bytewise equal where an offer is repeated, and nowhere else."""
    catalog = dict(zip(shop.products["product_id"].to_pylist(), shop.products["catalog_id"].to_pylist(), strict=True))
    showing = defaultdict(set)
    for row in shop.images.to_pylist():
        showing[row["sha256"]].add(row["product_id"])
    groups = {
        frozenset(products)
        for products in showing.values()
        if len({catalog[product] or product for product in products}) > 1
    }
    components = defaultdict(set)
    for row in built.index.items.to_pylist():
        if row["component"] is not None:
            components[row["component"]].add(row["product_id"])
    assert {frozenset(products) for products in components.values()} == groups
    assert len(groups) == built.counts["components"] > 3
    assert sum(map(len, groups)) == built.counts["in_components"]


def test_rings_are_learned_of_every_category(shop: Dataset, built: Built) -> None:
    tree = shop.categories
    leaves = set(shop.products["category_id"].to_pylist())
    for node in tree:
        order = built.index.ring_order(node.id)
        assert order[0] == node.id
        learned = set(built.index.similar_categories[node.id])
        assert len(learned) == min(20, len([leaf for leaf in leaves if tree[leaf].path[: node.level] != node.path]))
        assert learned <= leaves
        assert {tuple(tree[up].path) for up in order[1 + len(learned) :]} == {
            node.path[:up] for up in range(1, node.level)
        }
    assert built.counts["sessions"] > 100


def test_every_seed_gets_its_results(shop: Dataset, built: Built) -> None:
    for product_id in shop.products["product_id"].to_pylist()[::9]:
        assert len(similar(built.index, product_id, 20).results) == 20


def test_the_index_says_how_it_was_built(shop: Dataset, vectors: np.ndarray, built: Built, tmp_path: Path) -> None:
    samples = np.flatnonzero(np.array(shop.images["split"].to_pylist()) == "test")
    given = ["storage=float16", "components.duplicate_bits=null", "rings=tree"]
    config = validate(IndexConfig, override({}, given), "the command line")
    small = build(tmp_path / "index", shop, samples, vectors[samples], {"model": "similar"}, config)
    assert small.index.storage == "float16"
    assert not small.index.similar_categories
    assert small.counts["in_components"] == 0
    assert small.counts["photos"] == len(samples) == small.index.items.num_rows
    assert str(small).endswith("0 show a photo of another, in 0 components; rings by the category tree")
    assert f"learned from the photos and {built.counts['sessions']} sessions" in str(built)
    about = Index.load(tmp_path / "index").about
    assert about["model"] == "similar"
    assert IndexConfig.model_validate(about["built_with"]) == config
    assert built.index.about["built_with"]["rings"] == {"alpha": 1.0, "beta": 1.0, "gamma": 1.0, "nearest": 20}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("storage=float64", "storage: Input should be 'float32', 'float16' or 'int8'"),
        ("rings={alpah: 2}", "rings.alpah: unknown key; did you mean alpha?"),
        ("rings=leaf", "rings: "),
        ("components.duplicate_bits=7", "components.duplicate_bits: Input should be less than or equal to 6"),
        ("component.most=7", "component: unknown key; did you mean components?"),
    ],
)
def test_wrong_settings_are_told_in_one_line(given: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        validate(IndexConfig, override({}, [given]), "the command line")
    _, line = str(error.value).splitlines()
    assert line.strip().startswith(told)
