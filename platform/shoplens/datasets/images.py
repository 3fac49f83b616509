"""Decoding of untrusted photos: bytes become RGB pixels, or an error with a reason. Perceptual hashes."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pi_heif
from PIL import AvifImagePlugin, Image, ImageFile, PngImagePlugin

from shoplens.datasets import png
from shoplens.datasets.colours import MAX_PROFILE, to_srgb
from shoplens.errors import ShoplensError

MAX_BYTES = 32 * 2**20
MAX_PIXELS = 50_000_000
FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "AVIF": "avif", "HEIF": "heic", "GIF": "gif", "BMP": "bmp"}
"""Accepted formats, and the file suffix of each."""
ACCEPTED = "JPEG, PNG, WebP, AVIF, HEIC, GIF or BMP"


class ImageRejected(ShoplensError):
    """A photo that cannot be used. `reason` is a short code, the message a sentence."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageRejected], tuple[str, str]]:
        return ImageRejected, (self.reason, str(self))


@dataclass(frozen=True)
class Photo:
    """A decoded photo: RGB in sRGB, upright, on a white background where it was transparent; L if grey was asked for.

    `width` and `height` are the size of the file's image, upright; `image` is smaller if decoded with a draft size.
    `animated`: the file has further pictures, to be shown after the first.
    """

    image: Image.Image
    width: int
    height: int
    format: str
    animated: bool = False


def decode(
    data: bytes,
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    draft: int | None = None,
    grey: bool = False,
) -> Photo:
    """Decodes a photo; of an animation or a series, the first picture.

    draft   a JPEG may be decoded at 1/2, 1/4 or 1/8 scale, with a shorter side of at least `draft` pixels; this is
            several times faster for large photos
    grey    the image is L, of the brightness alone; a JPEG's colours and its profile are then not computed

    Colours with an ICC profile are converted to sRGB. A PNG whose metadata is damaged or too large is decoded without
    its metadata.

    Raises ImageRejected with reason `empty`, `too_large`, `unreadable`, `format`, `too_many_pixels`, `truncated` or
    `checksum`.
    """
    if not data:
        raise ImageRejected("empty", "the image has no bytes")
    if len(data) > max_bytes:
        raise ImageRejected("too_large", f"the image has {len(data)} bytes; at most {max_bytes} are allowed")
    try:
        return _decoded(data, max_pixels, draft, grey)
    except ImageRejected as refused:
        if refused.reason not in ("unreadable", "truncated") or not data.startswith(png.SIGNATURE):
            raise
        if (chunk := png.damaged_chunk(data)) is not None:
            raise ImageRejected(
                "checksum", f"the checksum of the PNG's chunk {chunk} is wrong: the file is damaged, save it again"
            ) from refused
        for kept in (b"tRNS", b"iCCP", b"eXIf"), (b"tRNS",):
            bare = png.without_metadata(data, kept)
            if bare != data:
                try:
                    return _decoded(bare, max_pixels, draft, grey)
                except ImageRejected:
                    continue
        raise


def _decoded(data: bytes, max_pixels: int, draft: int | None, grey: bool) -> Photo:
    try:
        opened = Image.open(io.BytesIO(data), formats=list(FORMATS))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageRejected(
            "too_many_pixels", f"the image has more than {max_pixels} pixels; make it smaller"
        ) from error
    except Exception as error:  # plugins pass on errors of libavif and struct
        raise _unidentified(data) from error
    kind = {"MPO": "JPEG"}.get(opened.format or "", opened.format or "")  # MPO: a JPEG with more pictures behind it
    width, height = opened.size
    if width * height > max_pixels:
        size = f"{width}x{height}"
        raise ImageRejected("too_many_pixels", f"the image has {size} pixels; at most {max_pixels} are allowed")
    image: Image.Image = opened
    try:
        if kind == "PNG":
            png.scale_transparent_colour(opened)
        animated = opened.format != "MPO" and bool(getattr(opened, "is_animated", False))
        if draft is not None or grey:
            image.draft("L" if grey else "RGB", _at_least(width, height, draft) if draft else opened.size)
        image.load()
        orientation = _orientation(image)
        if orientation in _UPRIGHT:
            image = image.transpose(_UPRIGHT[orientation])
            if orientation >= 5:
                width, height = height, width
        image = image if grey and kind == "JPEG" and image.mode == "L" else _rgb_on_white(image)
        return Photo(image.convert("L") if grey else image, width, height, FORMATS[kind], animated)
    except (OSError, SyntaxError, ValueError, IndexError, EOFError) as error:
        raise ImageRejected("truncated", f"the image is cut short or damaged ({error})") from error
    except Exception as error:  # Pillow passes on errors of struct, zlib, libwebp and libheif
        raise ImageRejected("unreadable", f"the image cannot be decoded ({type(error).__name__})") from error


ImageFile.LOAD_TRUNCATED_IMAGES = False
PngImagePlugin.MAX_TEXT_CHUNK = MAX_PROFILE  # it limits profiles too
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # photos are decoded side by side already
pi_heif.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `max_pixels` is the limit here

_OTHER_FORMATS = {
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"8BPS": "PSD",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"<?xml": "XML or SVG",
    b"<!DOCTYPE": "HTML",
    b"<html": "HTML",
}
_SIGNATURES = (b"\xff\xd8\xff", png.SIGNATURE, b"RIFF", b"GIF8", b"BM")


def _unidentified(data: bytes) -> ImageRejected:
    """The error for bytes that Pillow cannot open, by their first bytes."""
    start = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for signature, name in _OTHER_FORMATS.items():
        if start.startswith(signature.lower()):
            return ImageRejected("format", f"the bytes are {name}, not a photo that is taken: send {ACCEPTED}")
    if data.startswith(_SIGNATURES) or data[4:8] == b"ftyp":
        return ImageRejected("unreadable", "the head of the image is cut short or damaged: save it again")
    return ImageRejected("unreadable", f"the bytes are not an image: send {ACCEPTED}")


# `ImageOps.exif_transpose` also rewrites the EXIF block, which fails on damaged ones, and hides whether sides swapped.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8. It is 1 if the EXIF block is damaged: the pixels are still good."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:
        return 1


def _at_least(width: int, height: int, side: int) -> tuple[int, int]:
    """The size with this aspect ratio whose shorter side is `side`."""
    scale = side / min(width, height)
    return max(side, round(width * scale)), max(side, round(height * scale))


def _rgb_on_white(image: Image.Image) -> Image.Image:
    """Converts to RGB in sRGB, on white. This comes before any resampling: palette indices are never interpolated."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    if image.mode == "P":  # the colours of the palette are converted, not the pixels
        palette = image.crop((0, 0, 256, 1))
        palette.putdata(range(256))
        image.putpalette(_rgb_on_white(palette.convert("RGBA")).tobytes())
        image.info.pop("transparency", None)
        return image.convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if profile:
            opaque = to_srgb(image.convert("RGB"), profile)
            opaque.putalpha(image.getchannel("A"))
            image = opaque
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return to_srgb(image if image.mode in ("RGB", "L", "CMYK") else image.convert("RGB"), profile)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey -> L, or LA where one level is transparent."""
    levels = np.asarray(image)
    grey = Image.fromarray(np.clip(levels / 257, 0, 255).astype(np.uint8))
    if (transparent := image.info.get("transparency")) is not None:
        grey.putalpha(Image.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8)))
    return grey


HASH_SIDE = 96
"""The perceptual hash needs no more pixels on the shorter side. A JPEG may be decoded with it as `draft`."""


def perceptual_hash(image: Image.Image) -> int:
    """64-bit perceptual hash (pHash, DCT): similar photos differ in few bits. Which is set: brighter than the median.

    It differs from imagehash's `phash` in 1 to 3 bits on average, because the DCT is taken of some 96 pixels a side
    without resampling to 32. That is four times faster, and a photo made smaller or larger keeps more of its bits.
    """
    grey = image if image.mode == "L" else image.convert("L")
    if (factor := min(grey.size) // HASH_SIDE) > 1:
        grey = grey.reduce(factor)
    low = (_dct_rows(grey.height) @ np.asarray(grey, np.float32) @ _dct_rows(grey.width).T).ravel()
    middle = np.partition(low, (31, 32))[31:33]
    return int.from_bytes(np.packbits(low > middle.sum() / 2).tobytes(), "big")


@lru_cache(maxsize=1024)
def _dct_rows(size: int) -> np.ndarray:
    """The 8 lowest frequencies of the DCT-II basis, float32 [8, size], lowest first, as means over the pixels."""
    k, n = np.arange(8)[:, None], np.arange(size)[None, :]
    return (np.cos(np.pi * k * (2 * n + 1) / (2 * size)) / size).astype(np.float32)
