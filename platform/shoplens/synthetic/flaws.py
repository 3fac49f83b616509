"""Flaws in photos and titles for curation to detect. A flawed offer has one flaw, recorded in `truth.parquet`."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PHOTO_FLAWS = ("watermark", "text_box", "white_margin", "tiny_image")
FLAWS = (*PHOTO_FLAWS, "personal_data")

_SLOGANS = (
    "SALE 50%",
    "FREE GIFT",
    "BEST PRICE",
    "1+1 EVENT",
    "NEW IN",
    "TODAY ONLY",
    "HOT DEAL",
    "FREE SHIPPING",
)
_MARKS = ("SAMPLE", "shop.example", "(c) photo", "DO NOT COPY", "studio")


def spoil_photo(photo: Image.Image, flaw: str, rng: np.random.Generator) -> Image.Image:
    """Returns a copy of the photo with `flaw`, one of `PHOTO_FLAWS`."""
    size = photo.width
    if flaw == "tiny_image":
        side = int(rng.integers(size // 5, size // 3))
        return photo.resize((side, side), Image.Resampling.BOX)
    if flaw == "white_margin":
        share = float(rng.uniform(0.25, 0.55))
        tall = bool(rng.random() < 0.5)
        extent = int(size * (1 + 2 * share))
        page = Image.new("RGB", (size, extent) if tall else (extent, size), (255, 255, 255))
        page.paste(photo, (0, int(size * share)) if tall else (int(size * share), 0))
        return page
    spoiled = photo.copy()
    if flaw == "watermark":
        mark, font = str(rng.choice(_MARKS)), ImageFont.load_default(size * 0.11)
        layer = Image.new("L", (2 * size, 2 * size), 0)
        draw = ImageDraw.Draw(layer)
        for row in range(9):
            for column in range(4):
                draw.text(
                    (column * size * 0.62 + (row % 2) * size * 0.3, row * size * 0.25),
                    mark,
                    fill=110,
                    font=font,
                )
        layer = layer.rotate(28, Image.Resampling.BILINEAR).crop(
            (size // 2, size // 2, size // 2 + size, size // 2 + size)
        )
        spoiled.paste((255, 255, 255), (0, 0), layer)
        return spoiled
    draw = ImageDraw.Draw(spoiled)
    ground = tuple(int(c) for c in rng.choice([[214, 32, 44], [24, 24, 28], [250, 214, 40], [20, 96, 190]]))
    ink = (20, 20, 20) if sum(ground) > 400 else (255, 255, 255)
    for top in (0.0, 0.80) if rng.random() < 0.5 else (0.78,):
        draw.rectangle([0, top * size, size, (top + 0.2) * size], fill=ground)
        font = ImageFont.load_default(size * 0.13)
        draw.text((size / 2, (top + 0.1) * size), str(rng.choice(_SLOGANS)), fill=ink, font=font, anchor="mm")
    return spoiled


def with_personal_data(title: str, rng: np.random.Generator) -> str:
    """Appends a phone number (010-0000 is never assigned) or an address at example.com to the title."""
    digits = f"{rng.integers(10000):04d}"
    contact = f"문의 010-0000-{digits}" if rng.random() < 0.5 else f"문의 seller{digits}@example.com"
    return f"{title} {contact}"
