"""Photos from cut-outs: viewpoint, light, shadow and backdrop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from shoplens.synthetic.sellers import Backdrop, PhotoHabit
from shoplens.synthetic.surfaces import CutOut

VIEWPOINTS = ("front", "left", "right", "above", "close")


@dataclass(frozen=True)
class View:
    """Settings of one photo: the seller's habit with small random changes.

    `light_angle` and `tilt` are in degrees, the other numbers are fractions.
    """

    viewpoint: str
    fill: float
    shift: tuple[float, float]
    tilt: float
    light_angle: float
    brightness: float
    yaw: float


def view(habit: PhotoHabit, upright: bool, main: bool, rng: np.random.Generator) -> View:
    """Draws a view. A main photo is never a close-up."""
    shares = [0.46, 0.20, 0.20, 0.14, 0.0] if main else [0.16, 0.22, 0.22, 0.15, 0.25]
    viewpoint = VIEWPOINTS[int(np.searchsorted(np.cumsum(shares), rng.random(), side="right"))]
    close = viewpoint == "close"
    return View(
        viewpoint=viewpoint,
        fill=habit.fill * float(rng.uniform(0.95, 1.04)) * (1.55 if close else 1.0),
        shift=(
            habit.shift[0] + float(rng.normal(0, 0.05 if close else 0.012)),
            habit.shift[1] + float(rng.normal(0, 0.05 if close else 0.012)),
        ),
        tilt=(0.0 if upright else habit.tilt) + float(rng.normal(0, 0.7 if upright else 2.0)),
        light_angle=habit.light_angle + float(rng.normal(0, 8)),
        brightness=habit.brightness * float(rng.uniform(0.97, 1.03)),
        yaw=float(rng.uniform(0.12, 0.26)),
    )


def photograph(cut: CutOut, habit: PhotoHabit, taken: View, upright: bool, size: int) -> Image.Image:
    """RGB photo of `size` x `size` pixels, rendered at twice that size and averaged down."""
    placed = (
        light(cut, habit, taken)
        .transform(
            (2 * size, 2 * size),
            Image.Transform.PERSPECTIVE,
            homography(habit, taken, 2 * size, cut.side, cut.corner),
            Image.Resampling.BILINEAR,
        )
        .reduce(2)
    )
    return develop(np.asarray(placed, dtype=np.float32)[..., :3], placed.getchannel(3), habit, taken, upright)


def develop(colour: np.ndarray, opacity: Image.Image, habit: PhotoHabit, taken: View, upright: bool) -> Image.Image:
    """RGB photo [size, size] of a lit product before the seller's backdrop, with shadow, colour cast and noise.

    colour    float32 [size, size, 3] in 0..255
    opacity   L image [size, size]
    """
    size = opacity.width
    ground = backdrop(habit.backdrop, size)
    shade = _shadow(opacity, habit, taken, upright)
    scene = ground * (1 - shade[..., None])
    scene += np.asarray(opacity, dtype=np.float32)[..., None] / 255 * (colour - scene)
    warm = np.array([1 + habit.warmth, 1.0, 1 - habit.warmth], dtype=np.float32) * taken.brightness
    scene *= warm
    scene += _sensor_noise(size)
    return Image.fromarray(np.clip(scene, 0, 255).astype(np.uint8))


def light(cut: CutOut, habit: PhotoHabit, taken: View) -> Image.Image:
    """Lights the cut-out by Lambert's law and Blinn's highlight. A flat surface keeps its colour.

    The fourth channel is the opacity. The mode is RGBX, because Pillow would premultiply RGBA.
    """
    turn = math.radians(taken.light_angle)
    up = habit.light_height
    flat = math.sqrt(1 - up * up)
    lx, ly = flat * math.cos(turn) * (-1 if habit.mirror else 1), flat * math.sin(turn)
    sx, sy = cut.slope
    inverse = 1 / np.sqrt(1 + sx * sx + sy * sy)
    diffuse = (up - lx * sx - ly * sy) * inverse
    shade = habit.ambient + (1 - habit.ambient) * np.clip(diffuse / up, 0, 1.5)
    reach = math.sqrt(2 + 2 * up)
    facing = np.clip(((1 + up) - lx * sx - ly * sy) * inverse / reach, 0, 1)
    for _ in range(5):
        facing *= facing
    colour = cut.albedo * shade[..., None]
    colour += (facing * cut.gloss * 105)[..., None]
    np.clip(colour, 0, 255, out=colour)
    lit = np.empty((*cut.alpha.shape, 4), dtype=np.uint8)
    lit[..., :3] = colour
    lit[..., 3] = cut.alpha
    height, width = cut.alpha.shape
    return Image.frombuffer("RGBX", (width, height), lit, "raw", "RGBX", 0, 1)


def homography(habit: PhotoHabit, taken: View, frame: int, side: int, corner: tuple[int, int] = (0, 0)) -> list[float]:
    """8 coefficients of Pillow's PERSPECTIVE transform, from a pixel of the frame to a pixel of a drawing.

    frame    width and height of the frame in pixels
    side     width and height of the drawing in pixels; 1 gives fractions of it
    corner   (x, y) of the pixel of the drawing that is pixel (0, 0)
    """
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    match taken.viewpoint:
        case "left" | "right":
            near = 1 if taken.viewpoint == "left" else -1
            corners[:, 1] *= 1 - near * 0.5 * taken.yaw * np.sign(corners[:, 0])
            corners[:, 0] *= 1 - taken.yaw
        case "above":
            corners[:, 0] *= 1 - 0.45 * taken.yaw * np.sign(corners[:, 1])
            corners[:, 1] *= 1 - 0.6 * taken.yaw
    turn = math.radians(taken.tilt)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    target = (corners * taken.fill @ rotation.T + 0.5 + np.array(taken.shift)) * frame
    source = (
        np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) * [-1 if habit.mirror else 1, 1] + 0.5
    ) * side - corner
    rows, values = [], []
    for (x, y), (u, v) in zip(target, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return [float(c) for c in np.linalg.solve(np.array(rows), np.array(values))]


def _shadow(alpha: Image.Image, habit: PhotoHabit, taken: View, upright: bool) -> np.ndarray:
    """Share of the backdrop's light that the shadow removes, float32 [size, size] in 0..1."""
    size = alpha.width
    box = alpha.getbbox()
    if box is None:
        return np.zeros((size, size), dtype=np.float32)
    turn = math.radians(taken.light_angle)
    cast = Image.new("L", (size, size), 0)
    if upright:
        left, top, right, bottom = box
        depth = max(6, int((bottom - top) * 0.16))
        flat = alpha.crop((left, bottom - max(3, (bottom - top) // 6), right, bottom)).resize((right - left, depth))
        cast.paste(flat, (left - int(math.cos(turn) * size * 0.035), bottom - int(depth * 0.75)))
        cast = cast.filter(ImageFilter.BoxBlur(size / 45)).filter(ImageFilter.BoxBlur(size / 60))
        return np.asarray(cast, dtype=np.float32) * (habit.shadow * 1.15 / 255)
    reach = size * 0.022
    cast.paste(alpha, (-round(math.cos(turn) * reach), -round(math.sin(turn) * reach)))
    cast = cast.filter(ImageFilter.BoxBlur(size / 50)).filter(ImageFilter.BoxBlur(size / 50))
    return np.asarray(cast, dtype=np.float32) * (habit.shadow * 0.85 / 255)


@lru_cache(maxsize=4)
def _sensor_noise(size: int) -> np.ndarray:
    rng = np.random.Generator(np.random.PCG64(3))
    return rng.normal(0, 1.4, (size, size, 1)).astype(np.float32)


@lru_cache(maxsize=512)
def backdrop(style: Backdrop, size: int) -> np.ndarray:
    """A seller's backdrop without a product, float32 [size, size, 3] in 0..255."""
    rng = np.random.Generator(np.random.PCG64(style.grain))
    y, x = (np.mgrid[0:size, 0:size].astype(np.float32) + 0.5) / size
    tint = np.array(style.tint, dtype=np.float32)

    def noise(cells_x: int, cells_y: int) -> np.ndarray:
        coarse = Image.fromarray(rng.normal(0, 1, (cells_y, cells_x)).astype(np.float32))
        return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))

    def flat(level: np.ndarray, colour: np.ndarray = tint) -> np.ndarray:
        return level[..., None] * colour

    vignette = 1 - 0.30 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
    horizon = float(rng.uniform(0.60, 0.70))
    match style.kind:
        case "white":
            made = flat(np.ones_like(x), np.array([253, 253, 253], dtype=np.float32))
        case "sweep":
            level = 0.97 - 0.10 * np.exp(-(((y - horizon) / 0.12) ** 2)) - 0.05 * y
            made = flat(level * vignette, np.array([246, 246, 248], dtype=np.float32))
        case "paper":
            made = flat(vignette * (1 + 0.008 * noise(96, 96)))
        case "duo":
            with np.errstate(over="ignore"):  # far above the horizon the exponential is infinite and the edge 0
                edge = 1 / (1 + np.exp(-(y - horizon) * size * 0.7))
            made = flat(vignette) * (1 - 0.16 * edge[..., None])
        case "room":
            floor = np.array([188, 150, 112], dtype=np.float32)
            planks = 1 + 0.06 * noise(5, 60) - 0.14 * ((y * 26) % 4 < 0.35)
            wall = flat(1 - 0.10 * np.abs(x - 0.35) + 0.004 * noise(60, 60))
            made = np.where((y > horizon)[..., None], flat(planks * 0.98, floor), wall)
            skirting = (y > horizon - 0.045) & (y <= horizon)
            made[skirting] = (244, 243, 240)
        case "planks":
            wood = np.array([[206, 172, 132], [150, 112, 80], [226, 208, 184]], dtype=np.float32)[int(rng.integers(3))]
            board = (x * 5).astype(int)
            level = 1 + 0.07 * noise(90, 6) + 0.05 * np.sin(board * 2.4) - 0.22 * ((x * 5) % 1 < 0.035)
            made = flat(level * vignette, wood)
        case "marble":
            veins = np.abs(np.sin((x * 3 + y * 2 + 0.35 * noise(5, 5) + 0.08 * noise(18, 18)) * 3.2))
            made = flat(
                0.985 - 0.20 * np.exp(-((veins / 0.10) ** 2)) + 0.012 * noise(9, 9),
                np.array([244, 243, 243], dtype=np.float32),
            )
        case "concrete":
            made = flat(
                (1 + 0.035 * noise(7, 7) + 0.025 * noise(50, 50)) * vignette,
                np.array([186, 186, 184], dtype=np.float32),
            )
        case "bokeh":
            scene = Image.new("RGB", (size, size), tuple(int(0.60 * c) for c in style.tint))
            draw = ImageDraw.Draw(scene)
            for _ in range(16):
                cx, cy, r = rng.uniform(0, size), rng.uniform(0, 0.75 * size), rng.uniform(0.03, 0.12) * size
                lamp = tuple(int(min(255, c * rng.uniform(0.75, 1.08))) for c in style.tint)
                draw.ellipse([cx - r, cy - r, cx + r, cy + r], fill=lamp)
            draw.rectangle([0, 0.80 * size, size, size], fill=tuple(int(0.78 * c) for c in style.tint))
            made = np.asarray(scene.filter(ImageFilter.GaussianBlur(size / 45)), dtype=np.float32)
        case "linen":
            folds = 0.05 * np.sin((x * 2 + y * 3 + 0.3 * noise(4, 4)) * 5)
            weave = 0.02 * np.sin(x * size * 1.7) + 0.02 * np.sin(y * size * 1.7)
            made = flat(0.97 + folds + weave, np.array([226, 214, 194], dtype=np.float32))
        case "tiles":
            gap = ((x * 6) % 1 < 0.03) | ((y * 6) % 1 < 0.03)
            level = 1 + 0.015 * np.sin((x * 6).astype(int) * 5.1 + (y * 6).astype(int) * 3.7) - 0.10 * gap
            made = flat(level * vignette, 0.5 * tint + 122)
        case _:
            spot = np.exp(-(((x - 0.5) / 0.5) ** 2) - ((y - 0.45) / 0.5) ** 2)
            made = flat(0.55 + 0.75 * spot, np.array([72, 72, 80], dtype=np.float32))
    return np.clip(np.asarray(made, dtype=np.float32), 0, 255)
