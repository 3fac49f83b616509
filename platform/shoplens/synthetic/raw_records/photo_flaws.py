"""Flaws of photos. Each is clear: far enough from the limits of the specification that there is no doubt."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

_SHORT = (60, 200)
_ASPECT = (3.05, 6.0)
_WHITE_PAGE = (0.10, 0.18)
"""Side of the picture on an empty page, as a share of the page's."""
_BLUR = (0.03, 0.06)
"""Radius as a share of the shorter side."""
_LEAST_TEXT_AREA, _MOST_CAPTION_AREA = 0.22, 0.06
_MANY_BOXES = (24, 37)
"""The specification drops more than 20 boxes, or more than 15 % of the area."""

NOT_IMAGES = {
    "html": b"<!DOCTYPE html><html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>\n",
    "json": b'{"error": {"code": 403, "message": "hotlinking is not allowed"}}\n',
    "text": b"Service temporarily unavailable\n",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="240" height="240"><rect width="240" height="240"/></svg>\n',
    "pdf": b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\ntrailer\n<< /Root 1 0 R >>\n%%EOF\n",
    "zeros": b"\0" * 4096,
    "no_bytes": b"",
}
"""What a server sends in place of a photo."""
_MARKS = ("SAMPLE", "shop.example", "(c) studio", "DO NOT COPY", "blog.example", "PREVIEW", "photo by kim")
_WORDS = (
    "SALE 50%", "FREE GIFT", "BEST PRICE", "1+1 EVENT", "NEW IN", "TODAY ONLY", "HOT DEAL", "COUPON", "SIZE S M L",
    "COTTON 100", "MADE IN KOREA", "WASH COLD", "ONE SIZE", "LIMITED", "MENU", "9,900 WON", "REVIEW", "POINT 3",
)  # fmt: skip


class Spoiled(NamedTuple):
    """A photo with a flaw. `further`: later pictures of an animation; the rest as in `photo_files.PhotoFile`."""

    photo: Image.Image
    detail: str = ""
    boxes: int = 0
    boxes_area: float = 0.0
    further: tuple[Image.Image, ...] = ()


def spoil(photo: Image.Image, flaw: str, rng: np.random.Generator) -> Spoiled:
    """A copy of the RGB photo with the flaw, one of `plan.PHOTO_FLAWS`. What happens to bytes leaves the photo as it is."""
    match flaw:
        case "short_side":
            side = int(rng.integers(*_SHORT))
            scale = side / min(photo.size)
            width, height = (max(side, round(length * scale)) for length in photo.size)
            return Spoiled(photo.resize((width, height), Image.Resampling.BOX), str(side))
        case "aspect":
            return _strip(photo, float(rng.uniform(*_ASPECT)), bool(rng.random() < 0.5))
        case "white":
            return _page(photo, rng)
        case "blurred":
            radius = min(photo.size) * float(rng.uniform(*_BLUR))
            return Spoiled(photo.filter(ImageFilter.GaussianBlur(radius)), f"{radius:.1f}")
        case "animated":
            return _moving(photo, rng)
        case "watermark":
            return _marked(photo, rng)
        case "text_boxes":
            return _many_lines(photo, rng) if rng.random() < 0.4 else _large_lines(photo, rng)
        case _:
            return Spoiled(photo)


def captioned(photo: Image.Image, rng: np.random.Generator) -> Spoiled:
    """A clean photo with one or two short lines of text, on at most 6 % of the area."""
    lines = _Lines(photo)
    size = 0.06 * min(photo.size)
    for top in rng.permutation(4)[: int(rng.integers(1, 3))].tolist():
        lines.add(str(rng.choice(_WORDS)), size, (0.05 * photo.width, (0.08 + 0.22 * top) * photo.height))
    return lines.done("caption") if lines.area <= _MOST_CAPTION_AREA else Spoiled(photo)


def _strip(photo: Image.Image, aspect: float, tall: bool) -> Spoiled:
    """The photo and its mirror images in a row, cut at the aspect."""
    short = photo.width if tall else photo.height
    long = int(np.ceil(short * aspect))
    strip = Image.new("RGB", (short, long) if tall else (long, short))
    turn = Image.Transpose.FLIP_TOP_BOTTOM if tall else Image.Transpose.FLIP_LEFT_RIGHT
    at, part = 0, photo
    while at < long:
        strip.paste(part, (0, at) if tall else (at, 0))
        at += part.height if tall else part.width
        part = ImageEnhance.Brightness(part.transpose(turn)).enhance(0.9)
    return Spoiled(strip, f"{aspect:.2f}")


def _page(photo: Image.Image, rng: np.random.Generator) -> Spoiled:
    """A small picture on an empty page."""
    share = float(rng.uniform(*_WHITE_PAGE))
    width, height = (max(1, int(length * share)) for length in photo.size)
    page = Image.new("RGB", photo.size, (255, 255, 255))
    place = tuple(int(rng.uniform(0.1, 0.9 - share) * length) for length in photo.size)
    page.paste(photo.resize((width, height), Image.Resampling.BOX), (place[0], place[1]))
    return Spoiled(page, f"{share:.2f}")


def _moving(photo: Image.Image, rng: np.random.Generator) -> Spoiled:
    """Later pictures that show the first one mirrored, or darker."""
    further = [photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    for _ in range(int(rng.integers(0, 3))):
        further.append(ImageEnhance.Brightness(further[-1]).enhance(0.85))
    return Spoiled(photo, f"{1 + len(further)} pictures", further=tuple(further))


def _marked(photo: Image.Image, rng: np.random.Generator) -> Spoiled:
    """Half-transparent text: tiled, once across the photo, or in a corner."""
    kind = str(rng.choice(["tiled", "diagonal", "corner"]))
    mark, (width, height) = str(rng.choice(_MARKS)), photo.size
    low, high = (0.5, 0.85) if kind == "corner" else (0.3, 0.6)
    strength = int(255 * rng.uniform(low, high))
    span = 2 * max(width, height)
    layer = Image.new("L", photo.size if kind == "corner" else (span, span), 0)
    draw = ImageDraw.Draw(layer)
    if kind == "corner":
        font = _font(int(0.09 * min(photo.size)))
        x, y = (float(rng.choice([0.04, 0.96])) for _ in range(2))
        anchor = ("l" if x < 0.5 else "r") + ("a" if y < 0.5 else "d")
        draw.text((x * width, y * height), mark, fill=strength, font=font, anchor=anchor)
    else:
        if kind == "tiled":
            font = _font(int(0.11 * min(photo.size)))
            for row in range(9):
                for column in range(4):
                    draw.text(
                        (column * span * 0.31 + (row % 2) * span * 0.15, row * span * 0.125),
                        mark,
                        fill=strength,
                        font=font,
                    )
        else:
            font = _font(int(1.5 * min(photo.size) / len(mark)))
            draw.text((span / 2, span / 2), mark, fill=strength, font=font, anchor="mm")
        left, top = (span - width) // 2, (span - height) // 2
        layer = layer.rotate(float(rng.uniform(20, 40)), Image.Resampling.BILINEAR)
        layer = layer.crop((left, top, left + width, top + height))
    weight = np.asarray(layer, dtype=np.float64)
    ground = float((np.asarray(photo.convert("L")) * weight).sum() / max(1.0, weight.sum()))
    marked = photo.copy()
    marked.paste((255, 255, 255) if ground < 140 else (20, 20, 20), (0, 0), layer)
    return Spoiled(marked, kind)


def _large_lines(photo: Image.Image, rng: np.random.Generator) -> Spoiled:
    """A few large lines, on at least 22 % of the area."""
    lines = _Lines(photo)
    size = 0.1 * min(photo.size)
    band, on_band = tuple(rng.integers(0, 256, 3).tolist()), bool(rng.random() < 0.6)
    least = float(rng.uniform(_LEAST_TEXT_AREA, 0.35))
    for row in range(8):
        if lines.area >= least:
            break
        text = "  ".join(rng.choice(_WORDS, 2, replace=False).tolist())
        lines.add(
            text, size, (0.03 * photo.width, (0.02 + 0.12 * row) * photo.height), 0.94 * photo.width, band, on_band
        )
    return lines.done("area")


def _many_lines(photo: Image.Image, rng: np.random.Generator) -> Spoiled:
    """More than 20 small lines, in three columns. The photo is enlarged so that they can be read."""
    lines = _Lines(photo.resize((2 * photo.width, 2 * photo.height), Image.Resampling.BICUBIC))
    count, rows = int(rng.integers(*_MANY_BOXES)), 12
    width, height = lines.photo.size
    for cell in np.sort(rng.permutation(3 * rows)[:count]).tolist():
        row, column = divmod(cell, 3)
        text = str(rng.choice(_WORDS))
        lines.add(
            text, 0.045 * min(width, height), ((0.02 + column / 3) * width, (0.01 + row / rows) * height), 0.29 * width
        )
    return lines.done("count")


class _Lines:
    """Lines of text on a photo, and the union of their boxes."""

    def __init__(self, photo: Image.Image) -> None:
        self.photo = photo.copy()
        self._covered = np.zeros((photo.height, photo.width), bool)
        self._boxes = 0

    @property
    def area(self) -> float:
        """Share of the photo that the boxes cover together."""
        return float(self._covered.mean())

    def add(
        self,
        text: str,
        size: float,
        place: tuple[float, float],
        widest: float | None = None,
        band: tuple[int, ...] = (0, 0, 0),
        on_band: bool = False,
    ) -> None:
        """Draws a line with its upper left corner at `place`, all in pixels. `widest`: it is made to fit."""
        draw = ImageDraw.Draw(self.photo)
        font = _font(int(size))
        if widest is not None:
            size *= min(1.6, widest / max(1.0, draw.textlength(text, font)))
            font = _font(int(size))
        left, top, right, bottom = (round(edge) for edge in draw.textbbox(place, text, font))
        if on_band:
            draw.rectangle([left - 3, top - 3, right + 3, bottom + 3], fill=(band[0], band[1], band[2]))
            ground = np.array(band[:3], dtype=np.float64)
        else:
            ground = np.asarray(self.photo)[max(0, top) : bottom, max(0, left) : right].reshape(-1, 3).mean(axis=0)
        light = float(ground @ [0.299, 0.587, 0.114]) < 128
        ink, edge = ((255, 255, 255), (0, 0, 0)) if light else ((10, 10, 10), (255, 255, 255))
        draw.text(place, text, fill=ink, font=font, stroke_width=0 if on_band else 1, stroke_fill=edge)
        self._covered[max(0, top) : bottom, max(0, left) : right] = True
        self._boxes += 1

    def done(self, detail: str) -> Spoiled:
        return Spoiled(self.photo, detail, self._boxes, self.area)


@lru_cache(maxsize=128)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(8, size))
