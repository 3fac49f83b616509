"""Drawing board for silhouettes with three layers: slots (surfaces), relief (height) and ink (lines).

Coordinates are fractions of the board, x to the right and y down. A sketch has no colours. `surfaces.py` paints its
slots later, so one silhouette serves every colour, pattern and material.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from functools import cache
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]
Outline = Sequence[Sequence[float]]
Volume = Literal["flat", "column", "row", "ball"]


class Slot(IntEnum):
    """Surfaces of a product. BODY gets the design's colour, pattern and material, TRIM the accent colour."""

    EMPTY = 0
    BODY = 1
    PLAIN = 2
    TRIM = 3
    DARK = 4
    LIGHT = 5
    WOOD = 6
    METAL = 7
    INSIDE = 8
    GLASS = 9


def rounded(corners: Outline, radius: float = 0.03) -> list[Point]:
    """Rounds the corners of a closed outline. A corner `(x, y, r)` has its own radius r."""
    points = np.array([corner[:2] for corner in corners], dtype=np.float64)
    radii = np.array([corner[2] if len(corner) > 2 else radius for corner in corners])
    before, after = np.roll(points, 1, 0) - points, np.roll(points, -1, 0) - points
    length_before = np.maximum(np.linalg.norm(before, axis=1), 1e-9)
    length_after = np.maximum(np.linalg.norm(after, axis=1), 1e-9)
    reach = np.minimum(radii, np.minimum(length_before, length_after) * 0.5)
    start = points + before * (reach / length_before)[:, None]
    end = points + after * (reach / length_after)[:, None]
    t = np.linspace(0, 1, 6)[None, :, None]
    arcs = (1 - t) ** 2 * start[:, None] + 2 * t * (1 - t) * points[:, None] + t**2 * end[:, None]
    return [(x, y) for x, y in arcs.reshape(-1, 2).tolist()]


def mirrored(half: Outline, axis: float = 0.5) -> list[tuple[float, ...]]:
    """Completes the right half of an outline, given from top to bottom, by its mirror image at x = `axis`."""
    right = [tuple(corner) for corner in half]
    return right + [(2 * axis - x, *rest) for x, *rest in reversed(right)]


def arc(cx: float, cy: float, rx: float, ry: float, start: float = 0, stop: float = 360) -> list[Point]:
    """Points of an ellipse from angle `start` to `stop`, in degrees clockwise from the right."""
    t = np.radians(np.linspace(start, stop, max(8, int(abs(stop - start) / 10) + 1)))
    return list(zip((cx + rx * np.cos(t)).tolist(), (cy + ry * np.sin(t)).tolist(), strict=True))


class Sketch:
    """Three images [side, side] of uint8: `slots`, `relief` (height of the surface) and `ink` (darkness of lines)."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.slots = Image.new("L", (side, side), Slot.EMPTY)
        self.relief = Image.new("L", (side, side), 0)
        self.ink = Image.new("L", (side, side), 0)
        self._slots, self._relief, self._ink = (ImageDraw.Draw(layer) for layer in (self.slots, self.relief, self.ink))

    def part(
        self,
        outline: Outline,
        slot: Slot = Slot.BODY,
        *,
        volume: Volume = "flat",
        height: int = 130,
        bulge: int = 90,
        edge: int = 70,
    ) -> None:
        """Draws a part over the sketch. `bulge` raises its middle, `edge` is the ink of its outline."""
        points = [(x * self.side, y * self.side) for x, y, *_ in outline]
        self._slots.polygon(points, fill=int(slot))
        self._ink.polygon(points, fill=0)
        if volume == "flat":
            self._relief.polygon(points, fill=height)
        else:
            self._swell(points, volume, height, bulge)
        if edge:
            self._ink.line([*points, points[0]], fill=edge, width=max(1, self.side // 110))

    def _swell(self, points: list[Point], volume: Volume, height: int, bulge: int) -> None:
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        left, top = int(min(xs)), int(min(ys))
        size = max(2, int(max(xs)) - left + 2), max(2, int(max(ys)) - top + 2)
        mask = Image.new("1", size, 0)
        ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in points], fill=1)
        dome = _dome(volume).resize(size, Image.Resampling.BILINEAR)
        low, high = max(0, height - bulge // 2), min(255, height + bulge // 2)
        self.relief.paste(dome.point([low + (high - low) * level // 255 for level in range(256)]), (left, top), mask)

    def oval(self, cx: float, cy: float, rx: float, ry: float, slot: Slot = Slot.BODY, **how: object) -> None:
        """An elliptic part; `how` as in `part`."""
        self.part(arc(cx, cy, rx, ry), slot, **how)  # type: ignore[arg-type]

    def box(
        self,
        left: float,
        top: float,
        right: float,
        bottom: float,
        slot: Slot = Slot.BODY,
        r: float = 0.015,
        **how: object,
    ) -> None:
        """A rectangular part with corners of radius `r`; `how` as in `part`."""
        self.part(rounded([(left, top), (right, top), (right, bottom), (left, bottom)], r), slot, **how)  # type: ignore[arg-type]

    def strap(self, path: Sequence[Point], width: float, slot: Slot = Slot.TRIM, *, height: int = 150) -> None:
        """A band along an open path, for handles, straps, legs and cords."""
        points = [(x * self.side, y * self.side) for x, y in path]
        pixels = max(1, round(width * self.side))
        for draw, fill, wide in (
            (self._ink, 80, pixels + max(2, self.side // 90)),
            (self._slots, int(slot), pixels),
            (self._relief, height, pixels),
            (self._ink, 0, pixels),
        ):
            if draw is self._ink and fill:
                draw.line(points, fill=fill, width=wide, joint="curve")
            else:
                draw.line(points, fill=fill, width=wide, joint="curve")
        if pixels > 4:
            self._relief.line(points, fill=min(255, height + 50), width=max(1, pixels // 3), joint="curve")

    def hole(self, outline: Outline) -> None:
        """Clears all layers inside an outline."""
        points = [(x * self.side, y * self.side) for x, y, *_ in outline]
        self._slots.polygon(points, fill=int(Slot.EMPTY))
        self._relief.polygon(points, fill=0)
        self._ink.polygon(points, fill=0)

    def seam(self, path: Sequence[Point], dark: int = 90, width: float = 0.006) -> None:
        """A thin line on the surface, such as stitching or a watch hand."""
        points = [(x * self.side, y * self.side) for x, y in path]
        self._ink.line(points, fill=dark, width=max(1, round(width * self.side)), joint="curve")

    def fold(self, path: Sequence[Point], depth: int = -40, width: float = 0.03) -> None:
        """A furrow (depth < 0) or ridge (depth > 0) in the relief. Blurring the relief softens it."""
        points = [(x * self.side, y * self.side) for x, y in path]
        layer = Image.new("L", self.relief.size, 0)
        ImageDraw.Draw(layer).line(points, fill=abs(depth), width=max(1, round(width * self.side)), joint="curve")
        change = np.asarray(layer, dtype=np.int16) * (1 if depth > 0 else -1)
        here = np.asarray(self.relief, dtype=np.int16)
        self.relief = Image.fromarray(np.where(here > 0, np.clip(here + change, 1, 255), 0).astype(np.uint8))
        self._relief = ImageDraw.Draw(self.relief)


@cache
def _dome(volume: Volume) -> Image.Image:
    u = np.linspace(-1, 1, 64)
    across = np.sqrt(np.clip(1 - u**2, 0, 1))
    if volume == "column":
        dome = np.tile(across, (64, 1))
    elif volume == "row":
        dome = np.tile(across[:, None], (1, 64))
    else:
        dome = np.sqrt(np.clip(1 - (u[None] ** 2 + u[:, None] ** 2) / 2, 0, 1))
    return Image.fromarray((dome * 255).astype(np.uint8))
