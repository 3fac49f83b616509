"""The importers of the real catalogues, against the counts that the catalogues' own notes state."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from shoplens.datasets.importing.clothing import Clothing
from shoplens.datasets.importing.fashion import Fashion
from shoplens.datasets.importing.grocery import Grocery
from shoplens.datasets.importing.luma import Luma
from shoplens.datasets.importing.plan import plan_import, planned_photos
from shoplens.datasets.importing.shards import write_shard
from shoplens.datasets.importing.source import PhotoRef, Source, SourceProduct, Told
from shoplens.datasets.photo_files import PhotoRules
from shoplens.datasets.staging import Staging


def read(source: Source) -> list[SourceProduct]:
    items = [item for item in source if not isinstance(item, Told)]
    assert all(isinstance(item, SourceProduct) for item in items)
    return [item for item in items if isinstance(item, SourceProduct)]


def splits(items: list[SourceProduct]) -> Counter[str]:
    photos = [(item, photo) for item in items for photo in item.photos]
    assert all(isinstance(photo, PhotoRef) for _, photo in photos)
    return Counter(photo.split or item.product.split for item, photo in photos if isinstance(photo, PhotoRef))


def test_grocery(shop_data: Path) -> None:
    items = read(Grocery(str(shop_data / "grocery")))
    assert len(items) == 72
    assert splits(items) == {"train": 2379, "val": 266, "test": 2008, "iconic": 72}
    assert Counter(item.product.attributes["class_split"] for item in items) == {
        ("base",): 60,
        ("novel",): 12,
    }
    assert all(item.product.texts.keys() <= {"retail_title", "description_sv", "information"} for item in items)
    assert sum("retail_title" not in item.product.texts for item in items) == 1


def test_fashion_with_its_low_resolution_part(shop_data: Path, tmp_path: Path) -> None:
    source = Fashion(str(shop_data / "fashion"), str(shop_data / "fashion_lowres"))
    assert len(read(Fashion(str(shop_data / "fashion")))) == 2542
    items = read(source)
    assert splits(items) == {
        "train": 1921 + 7733,
        "test": 255 + 974,
        "val": 241 + 930,
        "test_unseen_category": 125 + 363,
    }

    staging = Staging(str(tmp_path / "out"), {})
    staging.begin()
    plan_import(source, staging, 150)
    chunk = "test_unseen_category-000001"  # from the tar
    assert write_shard(staging, chunk, PhotoRules()) == (150, 0)
    planned = [photo for photo in planned_photos(staging, chunk) if photo["offset"] is not None]
    assert len(planned) == 150
    assert {(row["width"], row["height"]) for row in staging.chunk_rows(chunk, "images", ["width", "height"])} == {
        (60, 80)
    }


def test_luma(shop_data: Path) -> None:
    items = read(Luma(str(shop_data / "luma")))
    assert len(items) == 399
    assert len({item.product.catalog_id for item in items}) == 167
    roles = Counter(photo.role for item in items for photo in item.photos if isinstance(photo, PhotoRef))
    assert roles == {"main": 407, "alt": 92, "back": 131}
    assert items[0].product.title == "Chaz Kangeroo Hoodie Black"
    assert items[0].product.attributes["also_in"] == ("Collections/Eco Friendly",)
    assert {item.product.currency for item in items} == {"USD"}
    assert not [item.product.title for item in items if "&" in item.product.title and ";" in item.product.title]


def test_clothing(shop_data: Path) -> None:
    items = read(Clothing(str(shop_data / "clothing_photos")))
    assert splits(items) == {"train": 901, "val": 122, "test": 128}
    assert len({item.product.category_path for item in items}) == 10
    assert items[0].product.title == "dress"


def test_luma_photos_are_all_taken(shop_data: Path, tmp_path: Path) -> None:
    staging = Staging(str(tmp_path / "out"), {})
    staging.begin()
    source = Luma(str(shop_data / "luma"))
    for chunk in plan_import(source, staging, 50):
        write_shard(staging, chunk, PhotoRules())
    dataset = staging.finish(source.name, {})
    assert dataset.manifest.counts["images"] == 407 + 92 + 131
    assert dataset.manifest.rejects_by_reason == {}
