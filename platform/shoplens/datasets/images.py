"""Decoding of untrusted photos: bytes become RGB pixels, or an error with a reason. Perceptual hashes."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from shoplens.errors import ShoplensError

MAX_BYTES = 32 * 2**20
MAX_PIXELS = 50_000_000
FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
"""Accepted formats, and the file suffix of each."""


class ImageRejected(ShoplensError):
    """A photo that cannot be used. `reason` is a short code, the message a sentence."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageRejected], tuple[str, str]]:
        return ImageRejected, (self.reason, str(self))


@dataclass(frozen=True)
class Photo:
    """A decoded photo: RGB, upright, on a white background where it was transparent.

    `width` and `height` are the size of the file's image, upright; `image` is smaller if decoded with a draft size.
    """

    image: Image.Image
    width: int
    height: int
    format: str


def decode(data: bytes, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS, draft: int | None = None) -> Photo:
    """Decodes a photo.

    draft   a JPEG may be decoded at 1/2, 1/4 or 1/8 scale, with a shorter side of at least `draft` pixels; this is
            several times faster for large photos

    Raises ImageRejected with reason `empty`, `too_large`, `unreadable`, `format`, `animated`,
    `too_many_pixels` or `truncated`.
    """
    if not data:
        raise ImageRejected("empty", "the image has no bytes")
    if len(data) > max_bytes:
        raise ImageRejected("too_large", f"the image has {len(data)} bytes; at most {max_bytes} are allowed")
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=[*FORMATS, "GIF"])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageRejected(
            "too_many_pixels", f"the image has more than {max_pixels} pixels; make it smaller"
        ) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise ImageRejected(
            "unreadable", f"the bytes are not an image in one of the formats {', '.join(FORMATS)}"
        ) from error
    kind = image.format or ""
    if kind == "MPO":  # a JPEG from a phone, with more pictures (depth map, thumbnail) after the first
        kind = "JPEG"
    elif getattr(image, "is_animated", False):
        raise ImageRejected("animated", f"the {kind} image is animated; send one still picture")
    if kind not in FORMATS:
        raise ImageRejected("format", f"{kind} images are not supported; send one of {', '.join(FORMATS)}")
    if image.width * image.height > max_pixels:
        size = f"{image.width}x{image.height}"
        raise ImageRejected("too_many_pixels", f"the image has {size} pixels; at most {max_pixels} are allowed")
    width, height = image.size
    try:
        if draft is not None:
            image.draft("RGB", _at_least(width, height, draft))
        image.load()
        orientation = _orientation(image)
        if orientation in _UPRIGHT:
            image = image.transpose(_UPRIGHT[orientation])
            if orientation >= 5:
                width, height = height, width
        return Photo(_rgb_on_white(image), width, height, FORMATS[kind])
    except (OSError, SyntaxError, ValueError, IndexError, EOFError) as error:
        raise ImageRejected("truncated", f"the image is cut short or damaged ({error})") from error
    except Exception as error:  # Pillow passes on errors of struct, zlib and libwebp
        raise ImageRejected("unreadable", f"the image cannot be decoded ({type(error).__name__})") from error


ImageFile.LOAD_TRUNCATED_IMAGES = False
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `max_pixels` is the limit here

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
    """Converts to RGB on white. This comes before any resampling, so palette indices are never interpolated."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(np.clip(np.asarray(image) / 257, 0, 255).astype(np.uint8))
    return image.convert("RGB")


def perceptual_hash(image: Image.Image) -> int:
    """64-bit perceptual hash (pHash, DCT): similar photos differ in few bits.

    Equals imagehash's `phash` but for at most a few bits near the median, because the photo is shrunk in two steps.
    That makes it two to four times faster on photos of 256 pixels or more. Datasets store it, so it must not change.
    """
    gray = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS, reducing_gap=3.0))
    low = (_DCT @ gray @ _DCT.T).ravel()
    middle = np.sort(low)[31:33]
    return int(np.packbits(low > middle.sum() / 2).view(">u8")[0])


def _dct_rows(size: int, frequencies: int) -> np.ndarray:
    """The DCT-II basis float64 [frequencies, size], lowest frequency first."""
    k, n = np.arange(frequencies)[:, None], np.arange(size)[None, :]
    return np.cos(np.pi * k * (2 * n + 1) / (2 * size))


_DCT = _dct_rows(32, 8)
