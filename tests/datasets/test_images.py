"""Hostile and odd photos: each is either decoded to the right pixels or refused for the right reason."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from collections.abc import Callable
from typing import Any

import imagehash
import numpy as np
import pillow_heif
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from shoplens.datasets.images import HASH_SIDE, ImageRejected, decode, perceptual_hash


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def scene(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    """A smooth gradient with shapes: compresses well, and no two seeds look alike."""
    rng = np.random.default_rng(seed)
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = rng.integers(0, [width, height])
        r = int(rng.integers(2, max(3, min(width, height) // 2)))
        draw.ellipse([x - r, y - r, x + r, y + r], fill=tuple(int(c) for c in rng.integers(0, 256, 3)))
    return image


def heic(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, chroma=444, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes, wrong: int = 0) -> bytes:
    """A chunk of a PNG; `wrong` damages its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ wrong)


def png(
    width: int,
    height: int,
    data: bytes = b"\0" * 64,
    depth: int = 8,
    colours: int = 0,
    before: bytes = b"",
    behind: bytes = b"",
) -> bytes:
    """A PNG whose header may promise more than its data holds, with chunks before and behind the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(data))
    return b"\x89PNG\r\n\x1a\n" + header + before + pixels + behind + chunk(b"IEND", b"")


def animated(kind: str) -> bytes:
    return encoded(scene(seed=1), kind, save_all=True, append_images=[scene(seed=2)], duration=50, loop=0)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: b"", "empty"),
        (lambda: b"not an image at all, but a page of text " * 20, "unreadable"),
        (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "format"),
        (lambda: b"\n<!doctype html><html><body>not found</body></html>", "format"),
        (lambda: encoded(scene(400, 300))[:-400], "truncated"),
        (lambda: encoded(scene(400, 300))[:40], "unreadable"),
        (lambda: encoded(scene(400, 300), "PNG")[:-600], "truncated"),
        (lambda: encoded(scene(400, 300), "WEBP")[:-200], "truncated"),
        (lambda: encoded(scene(400, 300), "AVIF")[:-200], "truncated"),
        (lambda: heic(scene(400, 300))[:-200], "truncated"),
        (lambda: encoded(scene(400, 300), "GIF")[:200], "truncated"),
        (lambda: encoded(scene(), "TIFF"), "format"),
        (lambda: png(20_000, 20_000), "too_many_pixels"),
        (lambda: png(8_000, 8_000), "too_many_pixels"),
        (lambda: b"\0" * (32 * 2**20 + 1), "too_large"),
    ],
)
def test_refused_with_reason(make: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(ImageRejected) as refused:
        decode(make())
    assert refused.value.reason in (reason, "unreadable" if reason == "truncated" else reason)
    again = pickle.loads(pickle.dumps(refused.value))
    assert (again.reason, str(again)) == (refused.value.reason, str(refused.value))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_the_first_picture_of_an_animation(kind: str) -> None:
    first = np.asarray(decode(animated(kind)).image, dtype=int)
    still = np.asarray(decode(encoded(scene(seed=1), kind)).image, dtype=int)
    assert np.abs(first - still).mean() < 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_cut_photo_is_refused_or_whole(kind: str) -> None:
    """Only bytes behind the last pixel may be missing."""
    whole = encoded(scene(30, 20), kind)
    pixels = np.asarray(decode(whole).image)
    for length in range(len(whole)):
        try:
            assert np.array_equal(np.asarray(decode(whole[:length]).image), pixels)
        except ImageRejected:
            continue
        assert length >= len(whole) - 24, f"{length} of {len(whole)} bytes were enough"


_WHOLE = {kind: encoded(scene(40, 30), kind) for kind in ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP")}
_WHOLE["HEIC"] = heic(scene(40, 30))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_bytes_give_a_photo_or_a_reason(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(list(_WHOLE)))
    damaged = bytearray(_WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 12))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        photo = decode(bytes(damaged))
    except ImageRejected as refused:
        assert refused.reason
    else:
        assert photo.image.mode == "RGB"


def test_one_pixel() -> None:
    photo = decode(encoded(Image.new("RGB", (1, 1), (10, 200, 30)), "PNG"))
    assert (photo.width, photo.height, photo.format) == (1, 1, "png")
    assert photo.image.getpixel((0, 0)) == (10, 200, 30)


@pytest.mark.parametrize(
    ("suffix", "data", "mean"),
    [
        ("jpg", encoded(scene(), quality=95, subsampling=0), 2),
        ("png", encoded(scene(), "PNG"), 0),
        ("webp", encoded(scene(), "WEBP", lossless=True), 0),
        ("avif", encoded(scene(), "AVIF", quality=95, subsampling="4:4:4"), 2),
        ("heic", heic(scene(), quality=95), 2),
        ("gif", encoded(scene().quantize(64), "GIF"), 12),
        ("bmp", encoded(scene(), "BMP"), 0),
    ],
)
def test_accepted_formats_are_told_by_the_bytes(suffix: str, data: bytes, mean: int) -> None:
    photo = decode(data)
    assert (photo.format, photo.width, photo.height, photo.image.mode) == (suffix, 60, 40, "RGB")
    assert np.abs(np.asarray(photo.image, dtype=int) - np.asarray(scene(), dtype=int)).mean() <= mean


@pytest.mark.parametrize(("signature", "name"), [(b"II*\0", "TIFF"), (b"%PDF-1.7", "PDF"), (b"<HTML>", "HTML")])
def test_other_formats_are_named_with_those_to_send(signature: bytes, name: str) -> None:
    with pytest.raises(ImageRejected, match=f"are {name}, .*send JPEG, PNG, WebP, AVIF, HEIC, GIF or BMP"):
        decode(signature + b" " * 99)


@pytest.mark.parametrize(
    ("depth", "colours"), [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2), (8, 4), (16, 4), (8, 6), (16, 6)]
)
@pytest.mark.parametrize("transparent", [False, True])
def test_every_depth_of_a_png_with_and_without_transparency(depth: int, colours: int, transparent: bool) -> None:
    """Against the formula: samples scaled to 0..255, laid on white."""
    channels, most = {0: 1, 2: 3, 4: 2, 6: 4}[colours], 2**depth - 1
    samples = np.random.default_rng(depth + colours).integers(0, most + 1, (9, 16, channels))
    alpha = samples[..., -1:] / most if colours >= 4 else np.ones((9, 16, 1))
    before = b""
    if transparent and colours < 4:
        before = chunk(b"tRNS", samples[4, 7].astype(">u2").tobytes())
        alpha = np.where((samples == samples[4, 7]).all(axis=-1, keepdims=True), 0.0, 1.0)
    packed = samples.astype(">u2").view(np.uint8) if depth == 16 else samples.astype(np.uint8)
    if depth < 8:
        bits = np.unpackbits(packed.reshape(9, 16, 1), axis=-1)[..., 8 - depth :]
        packed = np.packbits(bits.reshape(9, -1), axis=-1)
    rows = b"".join(b"\0" + row.tobytes() for row in packed.reshape(9, -1))
    pixels = np.asarray(decode(png(16, 9, rows, depth, colours, before)).image, dtype=float)
    colour = samples[..., : 3 if colours in (2, 6) else 1] * 255 / most
    assert np.abs(pixels - (colour * alpha + 255 * (1 - alpha))).max() <= (3 if depth == 16 else 1.5)


def test_metadata_does_not_cost_a_png_its_pixels() -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(scene()))
    expected = np.asarray(scene())
    large = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"x" * (6 * 2**20))
    for text in (
        chunk(b"tEXt", b"Software\0a camera", wrong=1),
        chunk(b"iTXt", large),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * (6 * 2**20))),
        chunk(b"tEXt", b"Comment\0" + b"x" * (2 * 2**20)),
        chunk(b"iCCP", b"p\0\0" + zlib.compress(b"x" * (6 * 2**20))),
        chunk(b"iCCP", b"p\0\7nothing"),
        chunk(b"gAMA", b"", wrong=1),
        chunk(b"tIME", b"", wrong=1) + chunk(b"iTXt", large),
    ):
        for before, behind in ((text, b""), (b"", text)):
            photo = decode(png(60, 40, rows, 8, 2, before, behind))
            assert np.array_equal(np.asarray(photo.image), expected)


def test_a_checksum_that_is_wrong_is_named() -> None:
    whole = encoded(scene(), "PNG")
    for at, name in ((20, "IHDR"), (whole.index(b"IDAT") + 30, "IDAT")):
        damaged = bytearray(whole)
        damaged[at] ^= 0x55
        with pytest.raises(ImageRejected, match=f"checksum of the PNG's chunk {name} is wrong") as refused:
            decode(bytes(damaged))
        assert refused.value.reason == "checksum"


def test_cmyk_jpeg() -> None:
    cmyk = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    red = np.asarray(decode(encoded(cmyk, quality=95)).image, dtype=int)
    assert np.abs(red - [255, 0, 0]).max() < 8


def test_sixteen_bit_gray_png_keeps_its_levels() -> None:
    levels = np.array([[0, 255, 257 * 128, 65535]], dtype=np.uint16)
    pixels = np.asarray(decode(encoded(Image.fromarray(levels), "PNG")).image)
    assert pixels[0, :, 0].tolist() == [0, 0, 128, 255]


def test_palette_with_transparency_lies_on_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([200, 0, 0, 0, 0, 200] + [0] * 762)
    image.putpixel((1, 1), 1)
    pixels = decode(encoded(image, "PNG", transparency=0)).image
    assert pixels.getpixel((0, 0)) == (255, 255, 255)
    assert pixels.getpixel((1, 1)) == (0, 0, 200)


def test_half_transparent_is_blended_with_white() -> None:
    photo = decode(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 51)), "PNG"))
    assert photo.image.getpixel((0, 0)) == (204, 204, 204)


def test_rgb_png_with_a_transparent_colour_lies_on_white() -> None:
    image = Image.new("RGB", (4, 4), (1, 2, 3))
    image.putpixel((0, 0), (9, 9, 9))
    photo = decode(encoded(image, "PNG", transparency=(1, 2, 3))).image
    assert photo.getpixel((3, 3)) == (255, 255, 255)
    assert photo.getpixel((0, 0)) == (9, 9, 9)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(orientation: int) -> None:
    """The camera stored the scene turned; the photo is the scene upright (EXIF 2.3, tag 0x0112)."""
    upright = scene(64, 48, seed=3)
    turned = upright
    for step in {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_90],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_270],
        8: [Image.Transpose.ROTATE_270],
    }.get(orientation, []):
        turned = turned.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = decode(encoded(turned, "PNG", exif=exif))
    assert (photo.width, photo.height) == (64, 48)
    assert np.array_equal(np.asarray(photo.image), np.asarray(upright))


def test_damaged_exif_does_not_cost_the_photo() -> None:
    plain = encoded(scene())
    block = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40
    photo = decode(plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:])
    assert (photo.width, photo.height) == (60, 40)


def test_a_phones_jpeg_with_a_second_picture_is_a_photo() -> None:
    photo = decode(encoded(scene(), "MPO", save_all=True, append_images=[scene(seed=5)]))
    assert (photo.format, photo.width) == ("jpg", 60)


def test_draft_keeps_the_file_size_and_enough_pixels() -> None:
    photo = decode(encoded(scene(1600, 1200)), draft=224)
    assert (photo.width, photo.height) == (1600, 1200)
    assert 224 <= min(photo.image.size) < 600


def test_perceptual_hash_is_the_sign_of_the_lowest_frequencies() -> None:
    """Against SciPy's DCT in float64, and near imagehash, which resamples to 32 pixels first."""

    def expected(image: Image.Image) -> int:
        low = scipy.fft.dctn(np.asarray(image.convert("L"), np.float64))[:8, :8].ravel()
        return int("".join("1" if value > np.median(low) else "0" for value in low), 2)

    def theirs(image: Image.Image) -> int:
        return int(str(imagehash.phash(image)), 16)

    small = [scene(90 + seed, 150 - seed, seed) for seed in range(20)]
    assert [perceptual_hash(image) for image in small] == [expected(image) for image in small]
    photos = small + [scene(256 + 50 * seed, 300, seed) for seed in range(20)]
    apart = [(perceptual_hash(image) ^ theirs(image)).bit_count() for image in photos]
    assert max(apart) <= 8
    assert np.mean(apart) <= 3


@given(
    width=st.integers(8, 420),
    height=st.integers(8, 420),
    options=st.fixed_dictionaries({"quality": st.integers(30, 95), "progressive": st.booleans()}),
    kept=st.floats(0.05, 1),
)
def test_a_grey_draft_finds_the_damage_that_a_whole_decode_finds(
    width: int, height: int, options: dict[str, Any], kept: float
) -> None:
    """And hashes of both differ in few bits."""
    data = encoded(scene(width, height, seed=width), **options)
    whole, draft = decode(data), decode(data, draft=HASH_SIDE, grey=True)
    assert draft.image.mode == "L" and (draft.width, draft.height) == (width, height)
    assert min(draft.image.size) >= min(width, height, HASH_SIDE)
    if min(width, height) >= 64:  # smaller photos have too few blocks of 8 pixels
        assert (perceptual_hash(whole.image) ^ perceptual_hash(draft.image)).bit_count() <= 8
    reasons = []
    for asked in ({}, {"draft": HASH_SIDE, "grey": True}):
        try:
            decode(data[: int(kept * len(data))], **asked)
            reasons.append("")
        except ImageRejected as refused:
            reasons.append(refused.reason)
    assert reasons[0] == reasons[1]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP"])
def test_grey_is_the_brightness_on_white(kind: str) -> None:
    data = encoded(scene(150, 120, seed=3), kind)
    assert decode(data, draft=HASH_SIDE, grey=True).image.tobytes() == decode(data).image.convert("L").tobytes()


def test_perceptual_hash_tells_alike_from_different() -> None:
    def distance(a: Image.Image, b: Image.Image) -> int:
        return (perceptual_hash(a) ^ perceptual_hash(b)).bit_count()

    image = scene(256, 256, seed=7)
    smaller = decode(encoded(image.resize((120, 120)), quality=60)).image
    assert distance(image, smaller) <= 6
    assert distance(image, scene(256, 256, seed=8)) >= 14
