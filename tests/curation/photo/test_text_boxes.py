"""Text boxes: the shares that quads cover, the two detectors on drawn text, and photos without their text."""

from __future__ import annotations

import os
import sys
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from shoplens.curation.photo.text_boxes import Detector, Morphology, RapidOcr, filled, measured
from shoplens.datasets.contact_sheet import FONTS
from shoplens.errors import ShoplensError

LINES = ("오늘만 특가", "무료배송", "국내산 사과", "FREE SHIPPING", "새벽 도착")
NAMES = ("rapidocr", "morphology")


@cache
def detector(name: str) -> Detector:
    if name == "morphology":
        return Morphology()
    pytest.importorskip("rapidocr")
    return RapidOcr()


def font(size: int) -> ImageFont.FreeTypeFont:
    for name in FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    pytest.skip("no font with Korean letters is installed")


def photo(width: int = 400, height: int = 400, seed: int = 0) -> Image.Image:
    """A picture of soft colours."""
    small = np.random.default_rng(seed).integers(60, 160, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def lettered(n: int) -> tuple[Image.Image, np.ndarray]:
    """The picture with `n` lines of text, and the box [n, 4] (left, top, right, bottom) of each."""
    image, letters = photo(), font(34)
    pen, boxes = ImageDraw.Draw(image), []
    for number, text in enumerate(LINES[:n]):
        pen.text((30, 25 + 75 * number), text, font=letters, fill="white")
        boxes.append(pen.textbbox((30, 25 + 75 * number), text, font=letters))
    return image, np.array(boxes, dtype=np.float64).reshape(-1, 4)


def corners(boxes: np.ndarray) -> np.ndarray:
    return boxes[:, [(0, 1), (2, 1), (2, 3), (0, 3)]]


def raster(quads: np.ndarray, size: tuple[int, int], fine: int = 10) -> tuple[float, float]:
    """Union and sum of the shares, by testing `fine` x `fine` points in each pixel against every side of each quad."""
    x, y = ((np.arange(n * fine) + 0.5) / fine for n in size)
    inside = []
    for quad in quads:
        (x0, y0), (x1, y1) = quad.T, np.roll(quad, -1, axis=0).T
        turns = [(b - a) * (y[:, None] - c) - (d - c) * (x - a) for a, b, c, d in zip(x0, x1, y0, y1, strict=True)]
        inside.append((np.array(turns) >= 0).all(0) | (np.array(turns) <= 0).all(0))
    return float(np.any(inside, axis=0).mean()), float(np.sum([part.mean() for part in inside]))


def turned(middle: tuple[float, float], width: float, height: float, degrees: float) -> np.ndarray:
    t = np.radians(degrees)
    box = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (width / 2, height / 2)
    return box @ np.array([(np.cos(t), np.sin(t)), (-np.sin(t), np.cos(t))]) + middle


@pytest.mark.parametrize("seed", range(5))
def test_shares_of_quads_that_overlap_and_reach_out_of_the_photo(seed: int) -> None:
    rng = np.random.default_rng(seed)
    quads = np.array(
        [
            turned(tuple(rng.uniform(-10, 90, 2)), *rng.uniform(3, 60, 2), rng.uniform(-180, 180))
            for _ in range(1 + 3 * seed)
        ]
    )
    found = measured(quads, (80, 60))
    union, total = raster(quads, (80, 60))
    assert found.boxes == len(quads) and found.quads.dtype == np.float32
    assert found.union == pytest.approx(union, abs=2e-3)
    assert found.total == pytest.approx(total, abs=2e-3)


def test_shares_of_upright_boxes_are_exact() -> None:
    boxes = np.array([(10, 10, 30, 20), (20, 15, 40, 25), (-10, -10, 5, 5), (90, 40, 200, 45), (10, 10, 10, 30)])
    found = measured(corners(boxes), (100, 50))
    assert found.union == pytest.approx((200 + 200 - 50 + 25 + 50) / 5000, rel=1e-6)
    assert found.total == pytest.approx((200 + 200 + 25 + 50) / 5000, rel=1e-6)
    everywhere = measured(np.array([[(-5, -5), (105, -5), (105, 55), (-5, 55)]] * 2), (100, 50))
    assert (everywhere.union, everywhere.total) == (1, 2)
    assert measured(np.empty((0, 4, 2)), (100, 50))[:3] == (0, 0, 0)


def test_many_boxes_are_measured_in_parts() -> None:
    place = np.stack(np.meshgrid(np.arange(30), np.arange(30)), axis=-1).reshape(-1, 2) * 10.0
    place += np.random.default_rng(0).uniform(0, 4, place.shape)
    found = measured(corners(np.concatenate([place, place + 5], axis=1)), (300, 300))
    assert found.union == pytest.approx(900 * 25 / 90000, rel=1e-4) and found.total == pytest.approx(found.union)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("image", [photo(), *(Image.new("RGB", (320, 240), c) for c in ("white", "black", "#7f7f7f"))])
def test_a_photo_without_text_has_no_box(name: str, image: Image.Image) -> None:
    found = detector(name).detect(image)
    assert found[:3] == (0, 0, 0) and found.quads.shape == (0, 4, 2) and found.quads.dtype == np.float32


@pytest.mark.parametrize("name", NAMES)
def test_drawn_lines_are_found_where_they_are(name: str) -> None:
    image, boxes = lettered(4)
    found = detector(name).detect(image)
    middles = found.quads.mean(axis=1)
    for left, top, right, bottom in boxes:
        x, y = middles.T
        assert ((x > left) & (x < right) & (y > top) & (y < bottom)).any()
        one = measured(np.concatenate([corners(np.array([[left, top, right, bottom]])), found.quads]), image.size)
        assert one.union < found.union + 0.5 * (right - left) * (bottom - top) / 160000, "half of the line is covered"
    drawn = measured(corners(boxes), image.size).union
    assert 0.6 * drawn < found.union < 2 * drawn


@pytest.mark.parametrize("name", NAMES)
def test_boxes_scale_with_the_photo(name: str) -> None:
    image, _ = lettered(3)
    small = detector(name).detect(image)
    large = detector(name).detect(image.resize((1200, 1200), Image.Resampling.BICUBIC))
    assert large.union == pytest.approx(small.union, rel=0.35)
    assert large.quads.max() > 500


@pytest.mark.parametrize("name", NAMES)
def test_more_lines_are_more_boxes_and_more_area(name: str) -> None:
    found = [detector(name).detect(lettered(n)[0]) for n in range(len(LINES) + 1)]
    assert all(a.boxes < b.boxes and a.union < b.union for a, b in zip(found, found[1:], strict=False))


@pytest.mark.parametrize("name", NAMES)
def test_a_photo_gives_the_same_boxes_again(name: str) -> None:
    image = lettered(5)[0].filter(ImageFilter.GaussianBlur(0.6))
    first, second = detector(name).detect(image), detector(name).detect(image)
    assert first[:3] == second[:3]
    np.testing.assert_array_equal(first.quads, second.quads)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 2), (9, 9), (8, 900), (901, 9), (33, 31), (257, 511)])
def test_photos_of_any_size(name: str, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    for image in (Image.fromarray(noise), Image.new("RGB", size, "white")):
        found = detector(name).detect(image)
        assert 0 <= found.union <= 1 and found.union <= found.total + 1e-9 and found.boxes == len(found.quads)


def test_one_huge_line_of_the_network_is_dropped() -> None:
    ocr = RapidOcr() if detector("rapidocr") else None
    assert ocr is not None

    class Engine:
        def __call__(self, image: np.ndarray) -> object:
            height, width = image.shape[:2]
            return type("Found", (), {"boxes": corners(np.array([(0, 0, width, height), (0, 0, width, height // 4)]))})

    ocr._engine = Engine()
    found = ocr.detect(photo(256, 256))
    assert found.boxes == 1 and found.union == pytest.approx(0.25)


@pytest.mark.parametrize("name", NAMES)
def test_a_filled_photo_has_no_text(name: str) -> None:
    image, _ = lettered(4)
    before, boxes = image.copy(), detector(name).detect(image)
    without = filled(image, boxes)
    assert np.array_equal(image, before), "the photo itself is left alone"
    assert detector(name).detect(without).boxes == 0
    if name == "rapidocr":
        assert np.abs(np.asarray(without, float) - np.asarray(photo(), float)).mean() < 8


def test_the_fill_is_the_mean_colour_around() -> None:
    image = Image.new("RGB", (100, 100), (10, 20, 30))
    image.paste((250, 0, 0), (50, 0, 100, 100))
    image.paste("white", (20, 40, 30, 50))
    image.paste("white", (70, 40, 80, 50))
    boxes = measured(corners(np.array([(20, 40, 30, 50), (70, 40, 80, 50)])), image.size)
    clean = np.asarray(filled(image, boxes))
    assert (clean[:, :50] == (10, 20, 30)).all() and (clean[:, 51:] == (250, 0, 0)).all()


def test_a_box_of_the_whole_photo_becomes_its_mean_colour() -> None:
    image = Image.new("RGB", (40, 40), "black")
    image.paste("white", (0, 0, 40, 20))
    clean = np.asarray(filled(image, measured(corners(np.array([(-1, -1, 41, 41)])), image.size)))
    assert (clean == 128).all()
    assert np.array_equal(filled(image, measured(np.empty((0, 4, 2)), image.size)), image)


def test_names_hold_versions() -> None:
    assert Morphology().name == "morphology 1"
    assert detector("rapidocr").name.startswith("rapidocr 3.")


def test_more_threads_than_cores_are_all_cores() -> None:
    detector("rapidocr")
    image = lettered(2)[0]
    with_many = RapidOcr(threads=64 + (os.cpu_count() or 1)).detect(image)
    assert with_many.boxes == detector("rapidocr").detect(image).boxes


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(ShoplensError, match=r'pip install "shoplens\[curation\]"'):
        RapidOcr()
