"""The whole synthetic shop: reproducible, readable, and consistent with its truth table."""

from __future__ import annotations

import io
import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image
from pydantic import ValidationError

from shoplens.datasets.format import Dataset
from shoplens.datasets.staging import Staging
from shoplens.errors import ShoplensError
from shoplens.synthetic import SyntheticShop, synthesize
from shoplens.synthetic.flaws import FLAWS

Row = dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A shop of 1,700 offers in three chunks, with noise and flaws, made by two processes."""
    shop = SyntheticShop(
        products=1700,
        sellers=12,
        image_size=48,
        catalog_noise=0.1,
        missing_catalog=0.05,
        flaws=0.2,
        impressions_per_product=20,
    )
    return synthesize(tmp_path_factory.mktemp("shop") / "shop", shop, workers=2, progress=False)


@pytest.fixture(scope="module")
def rows(made: Dataset) -> list[Row]:
    """Products joined with the truth table."""
    truth = {row["product_id"]: row for row in made.table("truth").to_pylist()}
    return [{**row, **truth[row["product_id"]]} for row in made.products.to_pylist()]


@pytest.mark.slow
def test_interrupted_and_continued_by_one_process_it_is_the_same_shop(
    made: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, chunks = Staging.write_chunk, []

    def stop_in_the_second(self: Staging, chunk: str, *args: Any, **kwargs: Any) -> None:
        if chunk == "000001" and chunk not in chunks:
            chunks.append(chunk)
            raise KeyboardInterrupt
        chunks.append(chunk)
        write(self, chunk, *args, **kwargs)

    monkeypatch.setattr(Staging, "write_chunk", stop_in_the_second)
    shop = SyntheticShop(**made.manifest.provenance["options"])
    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path / "shop", shop, workers=1, progress=False)
    assert not (tmp_path / "shop").exists()
    again = synthesize(tmp_path / "shop", shop, workers=1, progress=False)
    assert chunks == ["000000", "000001", "000001", "000002"]
    assert again.manifest.files == made.manifest.files and again.digest == made.digest


def test_another_seed_is_another_shop(tmp_path: Path) -> None:
    digests = {
        synthesize(
            tmp_path / str(seed), SyntheticShop(products=8, seed=seed, image_size=48), workers=1, progress=False
        ).digest
        for seed in (7, 8)
    }
    assert len(digests) == 2


def test_tree_has_three_levels_and_every_leaf_is_sold(made: Dataset) -> None:
    nodes = list(made.categories)
    leaves = {node.id for node in nodes if not node.children}
    assert {node.level for node in nodes} == {1, 2, 3}
    assert len(leaves) >= 24 and all(made.categories[leaf].level == 3 for leaf in leaves)
    assert set(made.products["category_id"].to_pylist()) == leaves


def test_catalogs_stay_in_one_split_and_come_from_different_sellers(rows: list[Row]) -> None:
    offers = defaultdict(list)
    for row in rows:
        offers[row["true_catalog_id"]].append(row)
    for catalog in offers.values():
        assert len({row["split"] for row in catalog}) == 1
        assert len({row["category_id"] for row in catalog}) == 1
        assert len({row["seller"] for row in catalog}) == len(catalog)
        assert len({row["title"] for row in catalog}) == len(catalog)
        assert len({str(row["attributes"]) for row in catalog}) == 1
    sizes = Counter(map(len, offers.values()))
    assert set(sizes) == set(range(1, 8))
    assert len(rows) / len(offers) == pytest.approx(4, abs=0.05)
    splits = Counter(catalog[0]["split"] for catalog in offers.values())
    assert splits["train"] / len(offers) == pytest.approx(0.8, abs=0.02)
    assert splits["val"] / len(offers) == pytest.approx(0.1, abs=0.02)


def test_wrong_and_missing_catalog_ids_come_at_their_rates_within_split_and_leaf(rows: list[Row]) -> None:
    home = {row["true_catalog_id"]: (row["split"], row["category_id"]) for row in rows}
    wrong = [row for row in rows if row["catalog_id"] not in (None, row["true_catalog_id"])]
    missing = [row for row in rows if row["catalog_id"] is None]
    deviation = 4 * np.sqrt(0.1 * 0.9 / len(rows))
    assert len(wrong) / len(rows) == pytest.approx(0.1, abs=deviation)
    assert len(missing) / len(rows) == pytest.approx(0.05, abs=deviation)
    assert {row["listed_catalog"] for row in wrong} == {"wrong"}
    assert {row["listed_catalog"] for row in missing} == {"missing"}
    assert all(home[row["catalog_id"]][0] == row["split"] for row in wrong)
    assert np.mean([home[row["catalog_id"]][1] == row["category_id"] for row in wrong]) > 0.9


def test_a_model_code_left_out_changes_nothing_else(tmp_path: Path) -> None:
    whole, lacking = (
        synthesize(
            tmp_path / str(missing),
            SyntheticShop(products=120, image_size=48, missing_model_code=missing),
            workers=1,
            progress=False,
        ).products.to_pylist()
        for missing in (0.0, 0.3)
    )
    without = 0
    for one, other in zip(whole, lacking, strict=True):
        attributes, said = dict(one.pop("attributes")), dict(other.pop("attributes"))
        without += "model code" not in said
        assert attributes == {**said, "model code": attributes["model code"]}
        assert one == other
    assert without / len(whole) == pytest.approx(0.3, abs=4 * np.sqrt(0.3 * 0.7 / len(whole)))


def test_stock_hangs_on_nothing_else(rows: list[Row]) -> None:
    stock = [row["stock"] for row in rows]
    for share, found in ((0.06, stock.count(0)), (0.1, stock.count(None))):
        assert found / len(rows) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / len(rows)))
    pieces = np.array([pieces for pieces in stock if pieces])
    assert pieces.min() >= 1
    assert pieces.mean() == pytest.approx(20, abs=4 * 20 / np.sqrt(len(pieces)))
    of_known = np.array([(row["stock"], row["price"], row["attractiveness"]) for row in rows if row["stock"]])
    assert abs(np.corrcoef(of_known.T)[0, 1:]).max() < 4 / np.sqrt(len(of_known))


def test_titles_are_in_both_scripts_and_clean_ones_name_the_attributes(rows: list[Row]) -> None:
    hangul = np.array([bool(re.search("[가-힣]", row["title"])) for row in rows])
    latin = np.array([bool(re.search("[A-Za-z]{3}", row["title"])) for row in rows])
    assert hangul.mean() > 0.5 and latin.mean() > 0.2 and (hangul & latin).mean() > 0.1
    for row in rows:
        attributes, clean = dict(row["attributes"]), dict(row["texts"])
        assert attributes["colour"][0] in clean["title_en"] and attributes["material"][0] in clean["title_en"]
        assert re.search("[가-힣]", clean["title_ko"])
    said = [dict(row["attributes"])["model code"][0] in row["title"] for row in rows]
    assert 0.1 < np.mean(said) < 0.9


def test_shards_are_what_the_webdataset_library_reads(made: Dataset) -> None:
    images = made.images.to_pylist()
    for split in ("train", "val", "test"):
        shards = sorted({row["shard"] for row in images if row["split"] == split})
        urls = [f"{made.path}/shards/{shard}" for shard in shards]
        samples = list(webdataset.WebDataset(urls, shardshuffle=False))
        expected = [(n, row) for n, row in enumerate(images) if row["split"] == split]
        assert [sample["__key__"] for sample in samples] == [row["image_id"] for _, row in expected]
        for sample, (number, row) in list(zip(samples, expected, strict=True))[::50]:
            assert sample["jpg"] == made.read_image(number)
            assert json.loads(sample["json"])["id"] == row["product_id"]
            assert Image.open(io.BytesIO(sample["jpg"])).size == (row["width"], row["height"])


def test_flaws_are_recorded_and_there(made: Dataset, rows: list[Row]) -> None:
    flawed = [row for row in rows if row["flaws"]]
    assert len(flawed) / len(rows) == pytest.approx(0.2, abs=4 * np.sqrt(0.2 * 0.8 / len(rows)))
    assert {flaw for row in flawed for flaw in row["flaws"]} == set(FLAWS)
    of = {row["product_id"]: (row["flaws"] or [None])[0] for row in rows}
    for sample, row in enumerate(made.images.to_pylist()):
        flaw, size = of[row["product_id"]], (row["width"], row["height"])
        assert (max(size) < 20) == (flaw == "tiny_image")
        assert (size[0] != size[1]) == (flaw == "white_margin")
        if flaw == "white_margin":
            pixels = np.asarray(Image.open(io.BytesIO(made.read_image(sample))))
            assert pixels[0, 0].min() > 245 and pixels[-1, -1].min() > 245
    contact = re.compile(r"010-0000-\d{4}|seller\d{4}@example\.com")
    assert all(bool(contact.search(row["title"])) == ("personal_data" in row["flaws"]) for row in rows)


def test_what_cannot_be_made_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"up to 7 offers need as many sellers, not 3"):
        SyntheticShop(sellers=3)
    with pytest.raises(ValidationError, match="catalog_noise"):
        SyntheticShop(catalog_noise=1.5)
    with pytest.raises(ValidationError, match="leave nothing to train on"):
        SyntheticShop(val=0.5, test=0.5)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(ShoplensError, match="exists already"):
        synthesize(tmp_path / "taken", SyntheticShop(products=4, image_size=48), workers=1, progress=False)


def test_duplicates_repeat_an_offer_under_another_id(tmp_path: Path) -> None:
    shop = SyntheticShop(products=240, image_size=48, duplicates=0.4, impressions_per_product=0)
    dataset = synthesize(tmp_path / "relisted", shop, workers=1, progress=False)
    truth = {row["product_id"]: row for row in dataset.table("truth").to_pylist()}
    title = dict(zip(dataset.products["product_id"].to_pylist(), dataset.products["title"].to_pylist(), strict=True))
    photo = dict(zip(dataset.images["product_id"].to_pylist(), dataset.images["sha256"].to_pylist(), strict=True))
    relisted = {product: row["relist_of"] for product, row in truth.items() if row["relist_of"]}
    of_catalogs = len({row["true_catalog_id"] for row in truth.values()})
    assert len(relisted) / (len(truth) - of_catalogs) == pytest.approx(0.4, abs=0.1)
    for copy, original in relisted.items():
        assert truth[original]["relist_of"] is None
        assert truth[copy]["true_catalog_id"] == truth[original]["true_catalog_id"]
        assert (title[copy], photo[copy]) == (title[original], photo[original])
    assert len(set(photo.values())) == len(photo) - len(relisted)
