"""Painting of sketches: patterns, textures of materials, and the slope of the surface for the light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from shoplens.synthetic.catalogue import Design
from shoplens.synthetic.sketch import Point, Sketch, Slot, arc
from shoplens.synthetic.vocabulary import MATERIALS, RGB


@dataclass(frozen=True)
class CutOut:
    """A painted product without light or background, cropped to [h, w] from a square drawing of `side` pixels.

    albedo   float32 [h, w, 3] in 0..255
    alpha    uint8 [h, w]
    slope    float32 [2, h, w], slope of the surface to the right and down
    gloss    float32 [h, w] in 0..1
    corner   (x, y) of the crop in the drawing
    """

    albedo: np.ndarray
    alpha: np.ndarray
    slope: np.ndarray
    gloss: np.ndarray
    corner: tuple[int, int]
    side: int


def paint(design: Design, side: int, worn: bool = False) -> CutOut:
    """Draws and paints a design at `side` x `side` pixels. Openings of a worn product, such as a neck, are empty."""
    sketch = Sketch(side)
    design.leaf.draw(sketch, {key: word.en for key, word in design.shape.items()}, design.form)
    slots = np.asarray(sketch.slots)
    material = MATERIALS[design.material]

    dark = tuple(int(40 + 0.12 * channel) for channel in design.accent_rgb)
    inside = tuple(int(0.55 * channel) for channel in design.rgb)
    metal = (180, 182, 190) if design.form[7] > -0.3 else (214, 178, 108)
    wood = (186, 140, 94) if design.form[6] > -0.2 else (112, 74, 50)
    palette = np.array(
        [
            design.rgb,
            design.rgb,
            design.rgb,
            design.accent_rgb,
            dark,
            (244, 243, 240),
            wood,
            metal,
            inside,
            (72, 80, 92),
        ],
        dtype=np.float32,
    )
    albedo = palette[slots]
    body = slots == Slot.BODY
    if design.pattern != "plain":
        fabric = pattern(design.pattern, design.rgb, design.motif_rgb, design.pattern_scale, design.pattern_angle, side)
        albedo[body] = fabric[body]
    roll = int((design.form[5] + 1) * side / 3)
    grain = np.roll(texture(material.texture, side), (roll, -roll), (0, 1)) * material.grain
    grain *= np.isin(slots, (Slot.BODY, Slot.PLAIN, Slot.TRIM))
    grain += texture("grain", side) * 0.14 * (slots == Slot.WOOD)
    albedo *= (1 + grain)[..., None]
    albedo *= (1 - np.asarray(sketch.ink, dtype=np.float32) / 255 * 0.75)[..., None]

    opening = (Slot.EMPTY, Slot.INSIDE) if worn else (Slot.EMPTY,)
    alpha = np.isin(slots, opening, invert=True).astype(np.uint8) * 255
    gloss = np.array([0, 1, 1, 0.8, 0.3, 0.2, 0.1, 0, 0, 0], dtype=np.float32)[slots] * material.gloss
    gloss[slots == Slot.METAL] = 0.9
    gloss[slots == Slot.GLASS] = 1.0
    near = sketch.relief.filter(ImageFilter.BoxBlur(side / 90)).filter(ImageFilter.BoxBlur(side / 90))
    small = (
        Image.fromarray(alpha).reduce(2).filter(ImageFilter.BoxBlur(side / 28)).filter(ImageFilter.BoxBlur(side / 28))
    )
    wide = small.resize((side, side), Image.Resampling.BILINEAR)
    height = np.asarray(near, dtype=np.float32) * 0.55 + np.asarray(wide, dtype=np.float32) * 0.8
    slope = np.zeros((2, side, side), dtype=np.float32)
    slope[0, :, 1:-1] = height[:, 2:] - height[:, :-2]
    slope[1, 1:-1] = height[2:] - height[:-2]
    slope *= side / 256 / 14
    left, top, right, bottom = sketch.slots.getbbox() or (0, 0, side, side)
    part = slice(max(0, top - 2), bottom + 2), slice(max(0, left - 2), right + 2)
    slope = np.ascontiguousarray(np.clip(slope[(slice(None), *part)], -1.6, 1.6))
    corner = (part[1].start, part[0].start)
    return CutOut(albedo[part], np.ascontiguousarray(alpha[part]), slope, gloss[part], corner, side)


def pattern(name: str, ground: RGB, motif: RGB, scale: float, angle: float, side: int) -> np.ndarray:
    """A cloth with the pattern, float32 [side, side, 3] in 0..255."""
    step = max(8, int(side * _REPEAT[name] * scale))
    tile = Image.new("RGB", (step, step), ground)
    _TILES[name](ImageDraw.Draw(tile), step, ground, motif)
    wide = int(side * 1.45)
    times = wide // step + 1
    cloth = Image.fromarray(np.tile(np.asarray(tile), (times, times, 1))[:wide, :wide])
    if name in ("striped", "checked", "polka dot") or abs(angle) < 20:
        cloth = cloth.rotate(angle if name != "checked" else angle % 45, Image.Resampling.NEAREST)
    start = (wide - side) // 2
    return np.asarray(cloth, dtype=np.float32)[start : start + side, start : start + side]


_REPEAT = {
    "polka dot": 0.105, "striped": 0.085, "checked": 0.13, "floral": 0.19, "star": 0.15,
    "heart": 0.14, "leaf print": 0.16,
}  # fmt: skip


def _mix(a: RGB, b: RGB, share: float) -> RGB:
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def _dots(draw: ImageDraw.ImageDraw, n: int, ground: RGB, motif: RGB) -> None:
    r = n * 0.20
    for x, y in ((0.25, 0.25), (0.75, 0.75)):
        draw.ellipse([n * x - r, n * y - r, n * x + r, n * y + r], fill=motif)


def _stripes(draw: ImageDraw.ImageDraw, n: int, ground: RGB, motif: RGB) -> None:
    draw.rectangle([0, 0, n, n * 0.42], fill=motif)


def _checks(draw: ImageDraw.ImageDraw, n: int, ground: RGB, motif: RGB) -> None:
    half = _mix(ground, motif, 0.45)
    draw.rectangle([0, 0, n, n * 0.5], fill=half)
    draw.rectangle([0, 0, n * 0.5, n], fill=half)
    draw.rectangle([0, 0, n * 0.5, n * 0.5], fill=motif)
    line = _mix(ground, (20, 20, 20), 0.35)
    draw.line([n * 0.75, 0, n * 0.75, n], fill=line, width=max(1, n // 24))
    draw.line([0, n * 0.75, n, n * 0.75], fill=line, width=max(1, n // 24))


def _polygon(draw: ImageDraw.ImageDraw, n: int, points: list[Point], fill: RGB) -> None:
    draw.polygon([(x * n, y * n) for x, y in points], fill=fill)


def _flowers(draw: ImageDraw.ImageDraw, n: int, ground: RGB, motif: RGB) -> None:
    leaf = _mix((70, 130, 76), ground, 0.2)
    for cx, cy, r in ((0.29, 0.30, 0.135), (0.77, 0.76, 0.105)):
        _polygon(draw, n, arc(cx + r * 1.5, cy + r * 1.2, r * 0.75, r * 0.32), leaf)
        _polygon(draw, n, arc(cx - r * 1.35, cy + r * 1.25, r * 0.35, r * 0.7), leaf)
        for k in range(5):
            x, y = arc(cx, cy, r * 0.75, r * 0.75, 72 * k - 90, 72 * k - 80)[0]
            _polygon(draw, n, arc(x, y, r * 0.55, r * 0.55), motif)
        _polygon(draw, n, arc(cx, cy, r * 0.36, r * 0.36), (246, 206, 84))


def _stars(draw: ImageDraw.ImageDraw, n: int, ground: RGB, motif: RGB) -> None:
    for cx, cy, r in ((0.28, 0.30, 0.22), (0.76, 0.77, 0.17)):
        points = [
            arc(
                cx,
                cy,
                r * (1 if k % 2 == 0 else 0.42),
                r * (1 if k % 2 == 0 else 0.42),
                36 * k - 90,
                36 * k - 80,
            )[0]
            for k in range(10)
        ]
        _polygon(draw, n, points, motif)


def _hearts(draw: ImageDraw.ImageDraw, n: int, ground: RGB, motif: RGB) -> None:
    t = np.linspace(0, 2 * np.pi, 28)
    x, y = 16 * np.sin(t) ** 3, -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    for cx, cy, r in ((0.28, 0.28, 0.20), (0.76, 0.75, 0.165)):
        _polygon(draw, n, list(zip((cx + r * x / 16).tolist(), (cy + r * y / 16).tolist(), strict=True)), motif)


def _leaves(draw: ImageDraw.ImageDraw, n: int, ground: RGB, motif: RGB) -> None:
    vein = _mix(motif, ground, 0.6)
    for cx, cy, turn in ((0.27, 0.27, 35), (0.76, 0.74, -40)):
        stem = np.radians(turn)
        along, across = np.array([np.sin(stem), -np.cos(stem)]), np.array([np.cos(stem), np.sin(stem)])
        t = np.linspace(0, 1, 12)[:, None]
        side = 0.115 * np.sin(np.pi * t**0.8) * across
        spine = np.array([cx, cy]) + (t - 0.5) * 0.46 * along
        outline = np.concatenate([spine + side, (spine - side)[::-1]])
        _polygon(draw, n, [(x, y) for x, y in outline.tolist()], motif)
        draw.line([(x * n, y * n) for x, y in spine[:10].tolist()], fill=vein, width=max(1, n // 26))


_TILES: dict[str, Callable[[ImageDraw.ImageDraw, int, RGB, RGB], None]] = {
    "polka dot": _dots,
    "striped": _stripes,
    "checked": _checks,
    "floral": _flowers,
    "star": _stars,
    "heart": _hearts,
    "leaf print": _leaves,
}


@lru_cache(maxsize=64)
def texture(name: str, side: int) -> np.ndarray:
    """Brightness variation of a material, float32 [side, side], about in [-1, 1]."""
    rng = np.random.Generator(np.random.PCG64(20))
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) * (256 / side)

    def noise(cells_x: int, cells_y: int) -> np.ndarray:
        coarse = Image.fromarray(rng.normal(0, 1, (cells_y, cells_x)).astype(np.float32))
        return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))

    match name:
        case "weave":
            made = 0.5 * np.sin(x * 1.6) * np.sin(y * 1.6) + 0.5 * noise(128, 128)
        case "slub":
            made = 0.7 * noise(24, 128) + 0.7 * noise(128, 24)
        case "felt":
            made = noise(128, 128) * 0.8 + 0.5 * noise(32, 32)
        case "knit":
            made = np.sin(y * 0.75 + 1.4 * np.abs(np.sin(x * 0.40))) * 0.9
        case "twill":
            made = 0.5 * np.sin((x + y) * 1.5) + 0.5 * noise(16, 64) + 0.3 * noise(6, 6)
        case "ribs":
            made = np.sin(x * 0.9)
        case "hide":
            made = noise(56, 56)
        case "grain":
            made = np.sin((y + 5 * noise(4, 12)) * 0.42) * 0.6 + 0.5 * noise(6, 110)
        case "brushed":
            made = noise(6, 200)
        case "speckle":
            made = -2.5 * (noise(110, 110) > 2.1)
        case _:
            made = noise(12, 12)
    return np.asarray(made, dtype=np.float32)
