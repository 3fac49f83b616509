"""Drawn marks: each kind is seen, the draws decide the pixels, and print of products is no mark."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from shoplens.curation.photo import overlays
from shoplens.curation.photo.overlays import KINDS, marked, reencoded, unmarked, visible


def plain(grey: int, width: int = 240, height: int = 200) -> Image.Image:
    return Image.new("RGB", (width, height), (grey, grey, grey))


def changed(before: Image.Image, after: Image.Image) -> np.ndarray:
    """bool [h, w]."""
    return (np.asarray(before, int) != np.asarray(after, int)).any(2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_mark_is_seen_and_the_photo_stays(kind: str, grey: int) -> None:
    for seed in range(8):
        photo = plain(grey)
        drawn = marked(photo, np.random.default_rng(seed), kind)
        assert drawn.kind == kind and drawn.image.size == photo.size and drawn.image.mode == "RGB"
        assert visible(photo, drawn.image)
        assert (np.asarray(photo) == grey).all(), "the photo itself is left alone"
        assert changed(photo, drawn.image).mean() < 0.75


@pytest.mark.parametrize("kind", KINDS)
def test_the_draws_decide_the_pixels(kind: str) -> None:
    first, again, other = (marked(plain(200), np.random.default_rng(seed), kind).image for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert changed(first, other).any()


@pytest.mark.parametrize("kind", ["corner_text", "corner_logo", "date_stamp", "line"])
def test_a_mark_of_a_corner_lies_near_an_edge(kind: str) -> None:
    for seed in range(20):
        rows = np.flatnonzero(changed(plain(128), marked(plain(128), np.random.default_rng(seed), kind).image).any(1))
        assert rows.min() <= 20 or rows.max() >= 200 - 20


def test_marks_of_every_kind_come_and_some_are_transparent() -> None:
    rng = np.random.default_rng(0)
    drawn = [marked(plain(128), rng) for _ in range(120)]
    assert {one.kind for one in drawn} == set(KINDS)
    least, greatest = overlays.OPACITY
    tiled = np.asarray(marked(plain(0), np.random.default_rng(1), "tiled_text").image).max() / 255
    assert tiled <= greatest + 0.01, "white ink at an opacity of at most 0.6 on black"
    assert least > 0


def test_print_of_a_product_is_opaque_and_in_the_middle() -> None:
    for seed in range(20):
        there = changed(plain(128), unmarked(plain(128), np.random.default_rng(seed)))
        assert there.any()
        assert not there[:8].any() and not there[-8:].any(), "the border is where marks are"


def test_a_photo_without_room_for_letters_is_drawn_on_too() -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        assert marked(plain(255, 24, 16), rng).image.size == unmarked(plain(255, 16, 24), rng).size[::-1]


def test_no_font_with_korean_letters_leaves_the_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlays, "KOREAN_FONTS", ("no such font.ttf",))
    monkeypatch.setattr(overlays, "LATIN_FONTS", ("no such font.ttf",))
    assert marked(plain(128), np.random.default_rng(0), "corner_text").image.size == (240, 200)


def test_a_saved_photo_has_the_traces_of_a_jpeg() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    saved = reencoded(noise, np.random.default_rng(0))
    assert saved.size == noise.size and saved.mode == "RGB"
    assert changed(noise, saved).mean() > 0.5
    np.testing.assert_array_equal(saved, reencoded(noise, np.random.default_rng(0)))
