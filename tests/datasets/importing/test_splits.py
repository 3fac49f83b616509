"""Splits that are drawn if a source names none, and the names that other tools give to splits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoplens.datasets.importing.plan import plan_import, told
from shoplens.datasets.importing.source import PhotoRef, SourceProduct
from shoplens.datasets.importing.splits import SMALL, draw_splits
from shoplens.datasets.importing.table import Table
from shoplens.datasets.staging import Staging
from shoplens.schema import Product
from tests.datasets.importing.shops import jpeg, run_here, write_table


def products(catalogs: list[int]) -> list[SourceProduct]:
    photo = PhotoRef("", "a.jpg")
    return [
        SourceProduct(Product(id=f"p{n}", title="x", catalog_id=f"c{catalog}" if catalog else None), [photo], "here")
        for n, catalog in enumerate(catalogs)
    ]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40))
def test_every_catalog_has_one_split_and_every_split_a_catalog(catalogs: list[int]) -> None:
    split = draw_splits(products(catalogs))
    assert split is not None
    assert len(split) == catalogs.count(0) + len({*catalogs} - {0})
    assert {*split.values()} == {*["train", "val", "test"][: len(split)]}
    assert Counter(split.values()).most_common(1)[0][0] == "train" or len(split) < 4
    assert draw_splits(products(catalogs)[::-1]) == split, "the order of the rows decides nothing"


def test_a_shop_that_grows_keeps_its_splits() -> None:
    before, after = draw_splits(products([0] * 500)), draw_splits(products([0] * 2000))
    assert before and after
    assert before.items() <= after.items()
    shares = {name: n / len(after) for name, n in Counter(after.values()).items()}
    assert shares == {
        "train": pytest.approx(0.8, abs=0.03),
        "val": pytest.approx(0.1, abs=0.02),
        "test": pytest.approx(0.1, abs=0.02),
    }
    assert len(before) > SMALL


@pytest.mark.parametrize("n", [4, 60])
def test_a_shop_without_splits_gets_them_and_is_told_so(tmp_path: Path, n: int) -> None:
    for k in range(2):
        (tmp_path / f"{k}.jpg").write_bytes(jpeg(k))
    rows = [{"id": f"M{k}", "title": f"item {k}", "images": ["0.jpg", "1.jpg"]} for k in range(n)]
    source = Table(write_table(tmp_path, rows))
    dataset = run_here(source, tmp_path / "out")
    assert set(dataset.manifest.photos_by_split) == {"train", "val", "test"}
    of_product: dict[str, set[str]] = {}
    for row in dataset.images.to_pylist():
        of_product.setdefault(row["product_id"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in of_product.values())
    assert dict(zip(*(dataset.products[c].to_pylist() for c in ("product_id", "split")), strict=True)) == {
        product: split for product, (split,) in of_product.items()
    }
    staging = Staging(str(tmp_path / "again"), {})
    staging.begin()
    plan_import(source, staging, 10)
    assert [sentence for sentence in told(staging) if "names none" in sentence]


def test_one_split_that_is_named_is_enough_to_draw_none(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    names = [None, "", "Validation", "valid", "dev", "TEST ", "training"]
    rows = [{"id": f"p{k}", "title": "x", "images": "a.jpg", "split": name} for k, name in enumerate(names)]
    rows.append({"id": "q", "title": "x", "images": [{"path": "a.jpg", "split": "validation"}]})
    dataset = run_here(Table(write_table(tmp_path, rows)), tmp_path / "out")
    assert dataset.products["split"].to_pylist() == ["train", "train", "val", "val", "val", "test", "train", "train"]
    assert dataset.manifest.photos_by_split == {"train": 3, "val": 4, "test": 1}
