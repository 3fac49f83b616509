"""Colour profiles: photos of other colour spaces become sRGB, against the formulas of the ICC and of IEC 61966-2-1."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms

from shoplens.datasets.colours import MAX_PROFILE, to_srgb
from shoplens.datasets.images import decode

D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def to_xyz(red: Any, green: Any, blue: Any, white: Any) -> np.ndarray:
    """Linear RGB -> XYZ at D50, from the chromaticities of primaries and white."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in (red, green, blue)]).T
    xyz_white = np.array([white[0] / white[1], 1, (1 - white[0] - white[1]) / white[1]])
    matrix = columns * np.linalg.solve(columns, xyz_white)
    adapted = np.diag((_BRADFORD @ D50) / (_BRADFORD @ xyz_white))
    return np.linalg.inv(_BRADFORD) @ adapted @ _BRADFORD @ matrix


D65 = (0.3127, 0.3290)
SRGB = to_xyz((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), D65)
SPACES = {
    "Adobe RGB": (to_xyz((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), D65), 563 / 256),
    "Display P3": (to_xyz((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), D65), 2.2),
    "ProPhoto RGB": (to_xyz((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), (0.3457, 0.3585)), 1.8),
}


def srgb_of(xyz: np.ndarray) -> np.ndarray:
    linear = (xyz @ np.linalg.inv(SRGB).T).clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def profile(space: bytes, kind: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile of version 2 (ICC.1:2001-04)."""
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += b"\0" * (-len(content) % 4)
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content
    head = struct.pack(
        ">I4s4s4s4s4s12s4s", start + len(body), b"", b"\2\x10\0\0", kind, space, connection, b"", b"acsp"
    )
    head = head.ljust(68, b"\0") + b"".join(struct.pack(">i", round(v * 65536)) for v in D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def xyz_tag(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in values)


def gamma_tag(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def rgb_profile(matrix: np.ndarray, gamma: float) -> bytes:
    tags = {b"wtpt": xyz_tag(D50)}
    for name, column in zip((b"r", b"g", b"b"), matrix.T, strict=True):
        tags |= {name + b"XYZ": xyz_tag(column), name + b"TRC": gamma_tag(gamma)}
    return profile(b"RGB ", b"mntr", b"XYZ ", tags)


COLOURS = np.array([[200, 30, 40], [30, 120, 60], [90, 70, 180], [240, 200, 90], [128, 128, 128], [255, 255, 255]])
STRIPES = Image.fromarray(np.repeat(np.repeat(COLOURS, 16, axis=0)[None], 32, axis=0).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    if kind == "HEIC":
        image.info.update(options)
        pillow_heif.from_pillow(image).save(buffer, quality=-1, chroma=444)
    else:
        exact = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}, "AVIF": {"quality": 100}}
        image.save(buffer, kind, **exact.get(kind, {}), **options)
    return buffer.getvalue()


def stripes(photo: bytes) -> np.ndarray:
    return np.asarray(decode(photo).image, dtype=float)[16, 8::16]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "HEIC"])
def test_other_colour_spaces_become_srgb(space: str, kind: str) -> None:
    matrix, gamma = SPACES[space]
    expected = srgb_of((COLOURS / 255) ** gamma @ matrix.T)
    assert np.abs(expected - COLOURS).max() > 20
    photo = encoded(STRIPES.copy(), kind, icc_profile=rgb_profile(matrix, gamma))
    assert np.abs(stripes(photo) - expected).max() <= (3 if kind in ("PNG", "WEBP") else 8)


@pytest.mark.parametrize("mode", ["RGBA", "P", "transparent P"])
def test_colours_are_converted_before_they_are_laid_on_white(mode: str) -> None:
    matrix, gamma = SPACES["Adobe RGB"]
    expected = srgb_of((COLOURS / 255) ** gamma @ matrix.T)
    options: dict[str, Any] = {"icc_profile": rgb_profile(matrix, gamma)}
    image = STRIPES.copy()
    if mode == "RGBA":
        image.putalpha(51)
        expected = expected * 0.2 + 255 * 0.8
    else:
        image = image.quantize(len(COLOURS))
        if mode == "transparent P":
            options["transparency"] = image.getpixel((0, 0))
            expected[0] = 255
    assert np.abs(stripes(encoded(image, "PNG", **options)) - expected).max() <= 2


def test_grey_with_a_profile() -> None:
    ramp = Image.frombytes("L", (256, 8), bytes(range(256)) * 8)
    linear = profile(b"GRAY", b"mntr", b"XYZ ", {b"wtpt": xyz_tag(D50), b"kTRC": gamma_tag(1.8)})
    pixels = np.asarray(decode(encoded(ramp, "PNG", icc_profile=linear)).image, dtype=float)[0]
    expected = srgb_of((np.arange(256)[:, None] / 255) ** 1.8 * D50)
    assert np.abs(pixels - expected).max() <= 2


def test_cmyk_by_its_profile() -> None:
    """A press with one Lab colour for each mixture of full inks."""
    levels = np.array([[100 - 20 * bin(n).count("1"), 10 * (n % 3 - 1), 12 * (n % 4 - 2)] for n in range(16)], float)
    levels[0], levels[15] = [100, 0, 0], [0, 0, 0]
    clut = np.c_[levels[:, :1] * 255 / 100, levels[:, 1:] + 128].round().astype(np.uint8).tobytes()
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(np.eye(3).ravel() * 65536).astype(int))
    table += bytes(range(256)) * 4 + clut + bytes(range(256)) * 3
    press = profile(b"CMYK", b"prtr", b"Lab ", {b"wtpt": xyz_tag(D50), b"A2B0": table})
    inks = np.array([[(n >> bit) & 1 for bit in (3, 2, 1, 0)] for n in range(16)], dtype=np.uint8) * 255
    image = Image.frombytes("CMYK", (16 * 16, 16), np.repeat(inks, 16, axis=0).tobytes() * 16)
    fy = (levels[:, 0] + 16) / 116
    f = np.stack([fy + levels[:, 1] / 500, fy, fy - levels[:, 2] / 200], axis=-1)
    expected = srgb_of(np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * D50)
    pixels = np.asarray(decode(encoded(image, "JPEG", icc_profile=press)).image, dtype=float)[8, 8::16]
    assert np.abs(pixels - expected).max() <= 8
    naive = np.asarray(decode(encoded(image, "JPEG")).image, dtype=float)[8, 8::16]
    assert np.abs(naive - expected).max() > 60


SRGB_PROFILES = {
    "of littlecms": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
}


def test_photos_in_srgb_keep_their_pixels() -> None:
    for image in (STRIPES, Image.effect_noise((64, 64), 80).convert("RGB")):
        for tag in SRGB_PROFILES.values():
            assert to_srgb(image, tag) is image
        assert to_srgb(image, None) is image


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"no profile",
        rgb_profile(*SPACES["Adobe RGB"])[:200],
        b"\0" * 5000,
        rgb_profile(*SPACES["Adobe RGB"]).replace(b"RGB ", b"CMYK", 1),
        rgb_profile(*SPACES["Adobe RGB"]) + b"\0" * MAX_PROFILE,
    ],
)
def test_a_profile_that_cannot_be_used_is_ignored(broken: bytes) -> None:
    assert np.array_equal(stripes(encoded(STRIPES, "PNG", icc_profile=broken)), COLOURS)
    grey = encoded(STRIPES.convert("L"), "JPEG", icc_profile=rgb_profile(*SPACES["Adobe RGB"]))
    assert decode(grey).image.mode == "RGB"
