"""Signals of a photo that need no model, and the cut by them."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from scipy.ndimage import convolve

from shoplens.curation.photo.signals import PhotoCut, photo_signals, sharpness, verdicts, white_share
from shoplens.datasets.images import ImageRejected, perceptual_hash

CUT = PhotoCut.model_validate({})


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("size", "reasons"),
    [
        ((200, 200), []),
        ((199, 600), ["short_side", "aspect"]),
        ((199, 597), ["short_side"]),
        ((200, 600), []),
        ((600, 200), []),
        ((200, 601), ["aspect"]),
        ((601, 200), ["aspect"]),
    ],
)
def test_the_bounds_of_size_and_ratio(size: tuple[int, int], reasons: list[str]) -> None:
    found = verdicts(photo_signals(encoded(noise(*size))), CUT)
    assert [verdict.reason for verdict in found] == reasons


def test_nine_tenths_of_white_are_too_much() -> None:
    for rows, kept in ((580, False), (570, True)):  # 58 and 57 of the thumbnail's 64 rows
        photo = noise(640, 640)
        photo.paste("white", (0, 0, 640, rows))
        signals = photo_signals(encoded(photo))
        assert signals.white == pytest.approx(rows / 640, abs=1 / 64)
        assert (verdicts(signals, CUT) == ()) == kept
    exactly = photo_signals(encoded(noise(640, 640)))._replace(white=0.9)
    assert [(v.reason, v.value, v.threshold) for v in verdicts(exactly, CUT)] == [("white", 0.9, 0.9)]


def test_what_is_transparent_is_white_and_near_white_counts() -> None:
    assert photo_signals(encoded(Image.new("RGBA", (200, 200), (9, 9, 9, 0)))).white == 1
    assert photo_signals(encoded(Image.new("L", (200, 200), 250))).white == 1
    assert photo_signals(encoded(Image.new("RGB", (200, 200), (255, 255, 249)))).white == 0
    assert photo_signals(encoded(Image.new("CMYK", (200, 200)), "JPEG")).white == 1


@given(st.integers(64, 300), st.integers(64, 300), st.integers(0, 2**16))
def test_the_white_share_of_a_thumbnail_is_near_that_of_the_photo(width: int, height: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 255, np.uint8)
    x, y = int(rng.integers(1, width)), int(rng.integers(1, height))
    pixels[y:, x:] = 0
    edge = (width + height) / (width * height) * max(width, height) / 64 * 2
    assert white_share(Image.fromarray(pixels)) == pytest.approx((pixels == 255).mean(), abs=edge + 2 / 64)


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    photo = noise(120, 90).convert("L")
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.float64)
    expected = convolve(np.asarray(photo, np.float64), kernel)[1:-1, 1:-1].var()
    assert sharpness(photo) == pytest.approx(expected, rel=1e-12)
    large = noise(1000, 700).convert("L").filter(ImageFilter.GaussianBlur(12))
    assert 10 * sharpness(large) < sharpness(noise(1000, 700).convert("L"))
    assert sharpness(noise(2, 2).convert("L")) == 0


def test_hashes_size_and_orientation() -> None:
    photo = noise(300, 210)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    data = encoded(photo, "JPEG", exif=exif)
    signals = photo_signals(data)
    assert (signals.width, signals.height) == (210, 300)
    assert signals.sha256 == hashlib.sha256(data).hexdigest() and signals.bytes == len(data)
    assert signals.phash == perceptual_hash(
        Image.open(io.BytesIO(data)).convert("RGB").transpose(Image.Transpose.ROTATE_270)
    )


@pytest.mark.parametrize(("kind", "animated"), [("GIF", True), ("WEBP", True), ("PNG", True), ("MPO", False)])
def test_animations_are_known(kind: str, animated: bool) -> None:
    pictures = [noise(220, 220, seed) for seed in range(3)]
    data = encoded(pictures[0], kind, save_all=True, append_images=pictures[1:])
    signals = photo_signals(data)
    assert signals.animated is animated
    assert photo_signals(encoded(pictures[0], "JPEG" if kind == "MPO" else kind)).animated is False
    dropped = verdicts(signals, CUT.model_copy(update={"animated": False}))
    assert [verdict.reason for verdict in dropped] == (["animated"] if animated else [])


def test_a_file_that_is_cut_short_is_refused() -> None:
    data = encoded(noise(300, 300), "JPEG")
    with pytest.raises(ImageRejected) as refused:
        photo_signals(data[: len(data) // 2])
    assert refused.value.reason == "truncated"


def test_blurred_photos_are_dropped_on_request() -> None:
    blurred = photo_signals(encoded(noise(400, 400).filter(ImageFilter.GaussianBlur(8))))
    assert verdicts(blurred, CUT) == ()
    assert [v.reason for v in verdicts(blurred, CUT.model_copy(update={"sharpness": 100.0}))] == ["sharpness"]
