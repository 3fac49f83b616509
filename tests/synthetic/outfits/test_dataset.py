"""The dataset of outfits: reproducible, read like any other, with masks of every product."""

from __future__ import annotations

import hashlib
import inspect
import io
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from shoplens.cli import dataset as commands
from shoplens.datasets.contact_sheet import contact_sheet
from shoplens.datasets.format import Dataset
from shoplens.datasets.garments import decode_mask, encode_mask, mask_box
from shoplens.datasets.samples import Samples
from shoplens.datasets.staging import Staging
from shoplens.synthetic.departments import LEAVES_OF_SHOP
from shoplens.synthetic.outfits import Outfits, job, synthesize_outfits

Row = dict[str, Any]
SETTINGS = Outfits(outfits=job.OUTFITS_PER_CHUNK + 2, image_size=96, rare=0.1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return synthesize_outfits(tmp_path_factory.mktemp("outfits") / "out", SETTINGS, workers=2, progress=False)


@pytest.fixture(scope="module")
def shown(made: Dataset) -> dict[str, list[Row]]:
    """Rows of `garments` by photo."""
    rows = defaultdict(list)
    for row in made.table("garments").to_pylist():
        rows[row["image_id"]].append(row)
    return rows


def test_interrupted_and_continued_by_one_process_it_is_the_same_dataset(
    made: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, chunks = Staging.write_chunk, []

    def stop_in_the_second(self: Staging, chunk: str, *args: Any, **kwargs: Any) -> None:
        chunks.append(chunk)
        if chunks.count("000001") == 1 and chunk == "000001":
            raise KeyboardInterrupt
        write(self, chunk, *args, **kwargs)

    monkeypatch.setattr(Staging, "write_chunk", stop_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        synthesize_outfits(tmp_path / "out", SETTINGS, workers=1, progress=False)
    again = synthesize_outfits(tmp_path / "out", SETTINGS, workers=1, progress=False)
    assert chunks == ["000000", "000001", "000001"]
    assert again.manifest.files == made.manifest.files and again.digest == made.digest


def test_masks_are_disjoint_and_boxes_and_areas_are_theirs(made: Dataset, shown: dict[str, list[Row]]) -> None:
    images = made.images.to_pylist()
    assert shown.keys() == {image["image_id"] for image in images}
    for image in images:
        masks = [decode_mask(row["mask"]) for row in shown[image["image_id"]]]
        assert {mask.shape for mask in masks} == {(image["height"], image["width"])}
        assert np.sum(masks, axis=0).max() == 1
        for row, mask in zip(shown[image["image_id"]], masks, strict=True):
            left, top, right, bottom = row["box"]
            inside = np.zeros_like(mask)
            inside[top:bottom, left:right] = True
            assert not (mask & ~inside).any() and mask_box(mask) == row["box"]
            assert row["area"] == pytest.approx(mask.mean()) and 0 < row["visible"] <= 1


def test_every_garment_is_a_product_with_a_photo_of_its_own_and_one_of_the_outfit(
    made: Dataset, shown: dict[str, list[Row]]
) -> None:
    role = {image["image_id"]: image["role"] for image in made.images.to_pylist()}
    split = {product["product_id"]: product["split"] for product in made.products.to_pylist()}
    seen = defaultdict(list)
    for image, rows in shown.items():
        assert (role[image] == "outfit") == (len(rows) > 1)
        assert len({split[row["product_id"]] for row in rows}) == 1
        assert [row["layer"] for row in rows] == sorted({row["layer"] for row in rows})
        for row in rows:
            seen[row["product_id"]].append(role[image])
    assert seen.keys() == split.keys()
    assert all(sorted(roles) == ["main", "outfit"] for roles in seen.values())
    assert sum(role == "outfit" for role in role.values()) == SETTINGS.outfits
    assert set(split.values()) == {"train", "val", "test"}


def test_it_is_read_like_any_dataset(made: Dataset) -> None:
    samples = Samples.of(made, ["train"], ["outfit"])
    assert 0.7 * SETTINGS.outfits < len(samples.sample) < 0.9 * SETTINGS.outfits
    image = made.images.slice(int(samples.sample[0]), 1).to_pylist()[0]
    data = made.read_image(int(samples.sample[0]))
    assert hashlib.sha256(data).hexdigest() == image["sha256"]
    assert Image.open(io.BytesIO(data)).size == (SETTINGS.image_size, SETTINGS.image_size)
    known = {leaf.path for leaf in LEAVES_OF_SHOP}
    assert {tuple(path) for path in made.products["category_path"].to_pylist()} <= known
    assert all(made.texts(["title_ko"]))
    assert contact_sheet(made, columns=4, rows=2, side=48).size == (4 * 56 + 8, 2 * 90 + 8)


def test_attributes_are_words_of_the_table_in_either_language(made: Dataset, tmp_path: Path) -> None:
    words = made.table("attribute_words").to_pylist()
    english = {(*row["category"], row["key"]): set() for row in words}
    for row in words:
        english[(*row["category"], row["key"])].add(row["value"])
    for product in made.products.to_pylist():
        attributes = dict(product["attributes"])
        judged = {key[-1]: values for key, values in english.items() if list(key[:-1]) == product["category_path"]}
        assert all(set(attributes[key]) <= values for key, values in judged.items())
    korean = synthesize_outfits(
        tmp_path / "ko", Outfits(outfits=2, image_size=96, language="ko"), workers=1, progress=False
    )
    translated = {(row["key_ko"], row["value_ko"]) for row in words}
    judged_ko = {row["key_ko"] for row in words}
    for product in korean.products.to_pylist():
        pairs = {(key, values[0]) for key, values in product["attributes"] if key in judged_ko}
        assert pairs <= translated and {"색상", "패턴"} < {key for key, _ in pairs}


def test_masks_keep_every_pixel() -> None:
    mask = np.random.default_rng(0).random((37, 53)) < 0.5
    assert np.array_equal(decode_mask(encode_mask(mask)), mask)
    assert Image.open(io.BytesIO(encode_mask(mask))).mode == "1"


def test_command_line(tmp_path: Path) -> None:
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(commands.outfits).parameters.items()
        if name not in ("out", "name", "workers", "overwrite", "held_out")
    }
    assert defaults == Outfits().model_dump(exclude={"held_out"})
    options = ["--outfits", "2", "--image-size", "96", "--held-out", "tiered", "--workers", "1"]
    result = CliRunner().invoke(commands.app, ["outfits", str(tmp_path / "out"), *options])
    assert result.exit_code == 0, result.output
    made = Dataset(tmp_path / "out")
    assert made.manifest.provenance["options"]["held_out"] == ["tiered"]
    held_out = [row["value"] for row in made.table("attribute_words").to_pylist() if row["held_out"]]
    assert held_out == ["tiered"]
