"""Contact sheets: one page of photos with their categories and titles, for a quick look at a dataset."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from shoplens.datasets.format import Dataset
from shoplens.datasets.images import decode

FONTS = (
    "NanumGothic.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansKR-Regular.otf",
    "AppleSDGothicNeo.ttc",
    "malgun.ttf",
)
"""Fonts with Korean letters. The first that is installed is used; Pillow's own font, the fallback, has none."""


def contact_sheet(
    dataset: Dataset,
    *,
    columns: int = 8,
    rows: int = 6,
    side: int = 160,
    seed: int = 0,
    split: str | None = None,
) -> Image.Image:
    """A sheet of `columns` x `rows` photos, each `side` x `side` pixels, spread evenly over the leaf categories.

    split   draws from this split only; None: from all
    Raises ImageRejected if a photo cannot be decoded (imported photos always can).
    """
    leaf = np.array(dataset.products["category_id"].to_pylist(), dtype=object)[dataset.product_row]
    samples = np.arange(len(leaf))
    if split is not None:
        samples = samples[np.array(dataset.images["split"].to_pylist(), dtype=object) == split]
    samples = np.random.default_rng(seed).permutation(samples)
    chosen = _in_turn(samples, leaf)[: columns * rows]
    chosen = sorted(chosen, key=lambda sample: (str(leaf[sample]), sample))

    margin, lines = 8, 34
    sheet = Image.new("RGB", (columns * (side + margin) + margin, rows * (side + lines + margin) + margin), "white")
    draw = ImageDraw.Draw(sheet)
    for place, sample in enumerate(chosen):
        x = margin + (place % columns) * (side + margin)
        y = margin + (place // columns) * (side + lines + margin)
        photo = ImageOps.contain(decode(dataset.read_image(sample), draft=side).image, (side, side))
        sheet.paste(photo, (x + (side - photo.width) // 2, y + (side - photo.height) // 2))
        draw.rectangle((x, y, x + side - 1, y + side - 1), outline="#d0d0d0")
        product = dataset.products.slice(int(dataset.product_row[sample]), 1).to_pylist()[0]
        category = " > ".join(product["category_path"] or ["(no category)"])
        draw.text((x, y + side + 2), _fit(category, side, keep_end=True), "#111111", _font(12))
        draw.text((x, y + side + 18), _fit(product["title"], side), "#777777", _font(11))
    return sheet


def _in_turn(samples: np.ndarray, group: np.ndarray) -> list[int]:
    """The samples in round-robin order over their groups: the first of every group, then the second, and so on."""
    seen: dict[object, int] = {}
    turn = []
    for sample in samples:
        turn.append(seen.get(group[sample], 0))
        seen[group[sample]] = turn[-1] + 1
    return [int(sample) for sample in samples[np.argsort(turn, kind="stable")]]


def _fit(text: str, width: int, keep_end: bool = False) -> str:
    """`text`, cut with an ellipsis to `width` pixels."""
    shown = text
    while shown and _font(12).getlength(f"…{shown}") > width:
        shown = shown[1:] if keep_end else shown[:-1]
    if shown == text:
        return text
    return f"…{shown}" if keep_end else f"{shown}…"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    for name in FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)
