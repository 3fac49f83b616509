"""Classes of photos against a plain walk over all pairs, by properties, and on a small synthetic shop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoplens.config import ConfigError, validate
from shoplens.curation.product_clusters import (
    LEFT_OUT,
    ClassesConfig,
    SplitsConfig,
    clusters_of,
    drawn_splits,
    product_clusters,
    splits_of,
    whole_splits,
)
from shoplens.datasets.format import Dataset
from shoplens.errors import ShoplensError
from shoplens.synthetic import SyntheticShop, synthesize

BITS = 2


@st.composite
def shops(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """product, catalog, phash and whether a user took it, of some photos; many are near-duplicates of others."""
    products = draw(st.integers(1, 12))
    catalogs = draw(st.lists(st.integers(-1, 4), min_size=products, max_size=products))
    photos = draw(st.lists(st.integers(0, products - 1), min_size=1, max_size=24))
    pictures = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5))
    phash = [
        draw(st.sampled_from(pictures)) ^ sum(1 << bit for bit in draw(st.sets(st.integers(0, 63), max_size=3)))
        for _ in photos
    ]
    user = draw(st.lists(st.booleans(), min_size=len(photos), max_size=len(photos)))
    product = np.array(photos, dtype=np.int64)
    return product, np.array(catalogs)[product], np.array(phash, dtype=np.uint64), np.array(user)


def near(phash: np.ndarray) -> np.ndarray:
    return np.bitwise_count(phash[:, None] ^ phash[None, :]) <= BITS


@settings(max_examples=60, deadline=None)
@given(shop=shops(), most=st.integers(2, 4), seed=st.integers(0, 2**31))
def test_what_holds_of_every_shop(
    shop: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], most: int, seed: int
) -> None:
    product, catalog, phash, user = shop
    found = product_clusters(product, catalog, phash, ClassesConfig(most=most, duplicate_bits=BITS), user=user)
    label, component = found.label, found.component
    known = label >= 0
    assert (np.bincount(label[known]) >= 2).all(), "two photos at least"
    assert sorted(set(label[known].tolist())) == list(range(found.classes))
    for one in range(found.classes):
        members = label == one
        assert len(set(catalog[members & (catalog >= 0)].tolist())) <= 1, "no two catalogs"
        assert len({(c if c >= 0 else -1 - p) for c, p in zip(catalog[members], product[members], strict=True)}) <= most
        assert len(set(component[members].tolist())) == 1, "a class lies in one component"
    same_product = product[:, None] == product[None, :]
    same_catalog = (catalog[:, None] == catalog[None, :]) & (catalog >= 0)
    both = known[:, None] & known[None, :]
    assert (label[:, None] == label[None, :])[both & (same_product | same_catalog)].all()
    placed = (component >= 0)[:, None] & (component >= 0)[None, :]
    together = component[:, None] == component[None, :]
    assert together[placed & (near(phash) | same_product | same_catalog)].all(), "nothing alike is parted"

    order = np.random.default_rng(seed).permutation(len(product))
    shuffled = product_clusters(
        product[order], catalog[order], phash[order], ClassesConfig(most=most, duplicate_bits=BITS), user=user[order]
    )
    assert ((shuffled.label[:, None] == shuffled.label) == (label[order][:, None] == label[order])).all(), (
        "whatever the order of the photos"
    )
    assert shuffled.counts == found.counts


@settings(max_examples=40, deadline=None)
@given(shop=shops(), seed=st.integers(0, 2**31), shares=st.tuples(*[st.floats(0.1, 1)] * 3))
def test_no_component_straddles_two_splits(
    shop: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], seed: int, shares: tuple[float, float, float]
) -> None:
    product, catalog, phash, user = shop
    found = product_clusters(product, catalog, phash, ClassesConfig(duplicate_bits=BITS), user=user)
    given_splits = np.array(["train", "val", "test", "extra"])[
        np.random.default_rng(seed).integers(4, size=len(product))
    ]
    kept = whole_splits(found.component, given_splits, ("train", "extra"))
    assert ((kept == given_splits) | (kept == LEFT_OUT)).all()
    for splits in (kept, drawn_splits(found.component, shares, seed)):
        learnt, held = np.isin(splits, ("train", "extra")), np.isin(splits, ("val", "test"))
        assert not near(phash)[np.ix_(learnt, held)].any()
        assert not set(product[learnt]) & set(product[held])
        assert not set(catalog[learnt & (catalog >= 0)]) & set(catalog[held])
        assert not set(found.label[learnt & (found.label >= 0)]) & set(found.label[held])
        assert not near(phash)[np.ix_(splits == "val", splits == "test")].any()
    assert (
        not found.component[kept == LEFT_OUT].size
        or (
            (found.component[kept == LEFT_OUT] < 0)
            | np.isin(found.component[kept == LEFT_OUT], found.component[np.isin(kept, ("val", "test"))])
        ).all()
    ), "only what a held-out split shares is left out"


def test_the_nearest_photos_join_first_and_a_chain_of_two_catalogs_joins_nothing() -> None:
    """A and B of two catalogs, X and Y of none: X is A's photo, Y lies between A's and B's."""
    catalog = np.array([0, 1, -1, -1])
    config = ClassesConfig(duplicate_bits=2)
    alike = product_clusters(np.arange(4), catalog, np.array([0, 0b1111, 0, 0b11], np.uint64), config)
    assert alike.label.tolist() == [0, -1, 0, -1]
    assert alike.component.tolist() == [0] * 4
    assert (alike.counts["by_photo"], alike.counts["vetoed"], alike.counts["alone"]) == (1, 4, 2)


def test_a_photo_of_many_products_is_a_placeholder() -> None:
    product = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    phash = np.array([7, 15 << 40, 7, 15 << 50, 7, 15 << 20, 7, 15 << 30], np.uint64)
    unknown = np.full(8, -1)
    found = product_clusters(product, unknown, phash, ClassesConfig(most=3))
    assert found.component.tolist()[::2] == [-1] * 4
    assert (found.label == -1).all() and len(set(found.component[1::2].tolist())) == 4
    assert found.counts["placeholders"] == 4
    one_catalog = product_clusters(product, np.zeros(8, np.int64), phash, ClassesConfig(most=3))
    assert one_catalog.counts["placeholders"] == 0 and one_catalog.classes == 1
    joined = product_clusters(product, unknown, phash, ClassesConfig(most=4))
    assert (joined.label == 0).all()


def test_a_chain_longer_than_the_cap_is_not_cut_at_random() -> None:
    phash = np.array([(1 << k) - 1 for k in range(0, 12, 2)], np.uint64)
    found = product_clusters(np.arange(6), np.full(6, -1), phash, ClassesConfig(most=5, duplicate_bits=2))
    assert found.classes == 0 and found.counts["over_cap"] == 6
    assert (found.component == 0).all()
    assert product_clusters(np.arange(6), np.full(6, -1), phash, ClassesConfig(most=6, duplicate_bits=2)).classes == 1


def test_users_photos_come_by_their_product_and_join_none() -> None:
    """Products 0 and 1 share a photo that users took of both, and one that is of 0 alone."""
    product, user = np.array([0, 0, 1, 1, 0]), np.array([False, True, False, True, True])
    phash = np.array([15 << 10, 5, 15 << 30, 5, 15 << 55], np.uint64)
    found = product_clusters(product, np.full(5, -1), phash, ClassesConfig(), user=user)
    assert found.label.tolist() == [0, -1, -1, -1, 0]
    assert found.component[[1, 3]].tolist() == [-1, -1]
    assert found.component[0] == found.component[2], "but splits keep them together"
    assert found.counts["ambiguous"] == 2
    of_shop = product_clusters(product, np.full(5, -1), phash, ClassesConfig())
    assert of_shop.label.tolist() == [0] * 5


def test_a_cosine_that_is_too_low_undoes_a_hash() -> None:
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    same = np.zeros(3, np.uint64)
    found = product_clusters(np.arange(3), np.full(3, -1), same, ClassesConfig(cosine=0.7), vectors=vectors)
    assert found.label.tolist() == [0, 0, -1]
    assert found.component[0] != found.component[2]
    with pytest.raises(ShoplensError, match="2 vectors for 3 photos"):
        product_clusters(np.arange(3), np.full(3, -1), same, ClassesConfig(), vectors=vectors[:2])


def test_nothing_and_photos_that_join_nothing() -> None:
    none = np.empty(0, np.int64)
    assert product_clusters(none, none, none.astype(np.uint64), ClassesConfig()).classes == 0
    apart = ClassesConfig(duplicate_bits=None, catalogs=False)
    found = product_clusters(np.array([0, 0, 1]), np.zeros(3, np.int64), np.zeros(3, np.uint64), apart)
    assert found.label.tolist() == [0, 0, -1] and found.component[0] != found.component[2]


def test_drawn_splits_have_about_their_shares() -> None:
    component = np.random.default_rng(1).integers(400, size=3000)
    splits = drawn_splits(component, (7, 1, 2), 0)
    assert [round(float((splits == name).mean()), 1) for name in ("train", "val", "test")] == [0.7, 0.1, 0.2]
    assert (drawn_splits(component, (7, 1, 2), 1) != splits).any()


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        ({"attribute": "x"}, "go together"),
        ({"attribute": "x", "values": {"a": "train"}, "shares": (1, 1, 1)}, "either an attribute"),
        ({"shares": (0, 0, 0)}, "more than 0"),
    ],
)
def test_splits_are_said_in_one_way(tree: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        validate(SplitsConfig, tree, "classes.splits")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    options = {"products": 160, "seed": 3, "image_size": 48, "photos_per_product": 2, "duplicates": 0.3}
    made = SyntheticShop(**options, missing_catalog=0.3, catalog_noise=0.05, impressions_per_product=0.0)
    return synthesize(tmp_path_factory.mktemp("shop") / "shop", made, workers=1, progress=False)


def test_a_shops_relisted_products_are_found_by_their_photos(shop: Dataset) -> None:
    truth = shop.table("products").select(["product_id", "catalog_id"]).to_pydict()
    of = dict(zip(truth["product_id"], truth["catalog_id"], strict=True))
    found = clusters_of(shop, ClassesConfig())
    alone = clusters_of(shop, ClassesConfig(duplicate_bits=None))
    assert found.counts["by_photo"] > 0 and found.counts["by_catalog"] == alone.counts["by_catalog"] > 0
    for one in range(found.classes):
        members = shop.images.filter(pa.array(found.label == one))["product_id"].to_pylist()
        assert len({of[product] for product in members} - {None}) <= 1
    splits = splits_of(shop, found.component, SplitsConfig())
    assert {"train", "val", "test"} <= set(splits.tolist())
    assert str(found).startswith(f"{found.classes:,} classes of {found.counts['photos']:,} photos")


def test_roles_and_attributes_choose_photos(shop: Dataset, tmp_path: Path) -> None:
    main = clusters_of(shop, ClassesConfig(roles=("main",)))
    other = shop.images["role"].to_numpy(zero_copy_only=False) != "main"
    assert (main.label[other] == -1).all() and (main.component[other] == -1).all()
    config = SplitsConfig(attribute="colour", values={"black": "test", "white": "train"})
    splits = splits_of(shop, clusters_of(shop, ClassesConfig()).component, config)
    colour = [dict(given)["colour"][0] for given in shop.products["attributes"].to_pylist()]
    of_photo = np.array(colour)[shop.product_row]
    assert set(of_photo[splits == "test"]) == {"black"} and set(of_photo[splits == "train"]) == {"white"}
    with pytest.raises(ShoplensError, match="no product of .* has colour octarine"):
        splits_of(shop, main.component, SplitsConfig(attribute="colour", values={"octarine": "test"}))
