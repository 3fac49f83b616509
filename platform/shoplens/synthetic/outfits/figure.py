"""The figure that wears an outfit: a mannequin with hair, in poses that fit its clothes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from shoplens.synthetic.catalogue import Design, draw_design
from shoplens.synthetic.departments import Leaf
from shoplens.synthetic.silhouettes import Form, Shape
from shoplens.synthetic.sketch import Point, Sketch, Slot, arc, mirrored, rounded
from shoplens.synthetic.vocabulary import RGB, Word

SKINS: tuple[RGB, ...] = ((248, 218, 192), (232, 190, 156), (206, 158, 118), (158, 108, 74), (104, 70, 50))
HAIRS: tuple[RGB, ...] = ((36, 30, 30), (78, 50, 36), (128, 86, 52), (190, 150, 92), (120, 118, 118))
STYLES = ("short", "bob", "long", "bun")
SHOULDER, WRIST, GROUND = (0.597, 0.218), (0.664, 0.437), 0.945
"""Points of the figure's right half, as it is seen, in fractions of the drawing. A long sleeve ends at the wrist."""
LIFT = {"low heel": 0.012, "mid heel": 0.028, "high heel": 0.046}
"""How far heels lift the back of a foot."""


@dataclass(frozen=True)
class Pose:
    """How the figure stands and looks.

    wrists   (x, y) of the left and right wrist
    sleeved  arms lie in long sleeves
    stance   distance of each ankle from the middle
    lift     of the back of each foot
    width    of the figure and of what it wears, as a multiple of the usual
    carries  side of the bag: 0 left, 1 right
    neck     no collar hides the neck
    form     8 numbers in [-1, 1], as of a design
    """

    wrists: tuple[Point, Point]
    sleeved: bool
    stance: float
    lift: float
    width: float
    carries: int
    neck: bool
    hair: str
    skin: RGB
    hair_rgb: RGB
    form: tuple[float, ...]


def draw_pose(rng: np.random.Generator, worn: Mapping[str, Design]) -> Pose:
    """Draws a pose that fits the clothes: arms lie in long sleeves, and legs in trousers."""
    upper = worn["dress"] if "dress" in worn else worn["top"]
    sleeve = upper.shape.get("sleeve")
    sleeved = sleeve is None or sleeve.en == "long sleeve"
    carries = int(rng.integers(2))
    wrists = []
    for side in (0, 1):
        reach = [(0.664, 0.43), (0.69, 0.42), (0.645, 0.44), (0.60, 0.40)][int(rng.integers(4))]
        if side == carries and "bag" in worn:
            reach = (0.68, 0.425)
        if sleeved:
            reach = (0.68, 0.505) if "dress" in worn else WRIST
        wrists.append((reach[0] if side else 1 - reach[0], reach[1]))
    heel = worn["shoes"].shape.get("heel")
    neckline = upper.shape.get("neckline")
    return Pose(
        wrists=(wrists[0], wrists[1]),
        sleeved=sleeved,
        stance=0.043 if "trousers" in worn else float(rng.uniform(0.034, 0.055)),
        lift=LIFT[heel.en] if heel else 0.0,
        width=float(rng.uniform(0.94, 1.08)),
        carries=carries,
        neck=neckline is None or neckline.en != "turtleneck",
        hair=STYLES[int(rng.integers(len(STYLES)))],
        skin=SKINS[int(rng.integers(len(SKINS)))],
        hair_rgb=HAIRS[int(rng.integers(len(HAIRS)))],
        form=tuple(rng.uniform(-1, 1, 8).tolist()),
    )


def hand(pose: Pose, side: int) -> Point:
    """Middle of the left (0) or right (1) hand."""
    x, y = pose.wrists[side]
    return x + (0.004 if side else -0.004), y + 0.02


def figure_design(pose: Pose, front: bool) -> Design:
    """The figure as a design: its back layer (body and hair), or the front layer (head, neck and hands)."""
    leaf = Leaf(("", "", "figure"), Word("figure", ()), partial(_front if front else _back, pose), ("paper",), {}, 0)
    plain = draw_design(np.random.default_rng(0), 0, leaf, "", colour="beige", pattern="plain", shape={})
    return replace(plain, rgb=pose.skin, accent_rgb=pose.hair_rgb, form=pose.form)


def _limb(s: Sketch, path: list[Point], widths: list[float]) -> None:
    """A limb along a path, with half its width at each point."""
    right = [(x + w, y) for (x, y), w in zip(path, widths, strict=True)]
    left = [(x - w, y) for (x, y), w in zip(path, widths, strict=True)]
    s.part(rounded([*right, *reversed(left)], 0.012), volume="column", bulge=70, edge=50)


def _back(pose: Pose, s: Sketch, shape: Shape, form: Form) -> None:
    if pose.hair == "long":
        s.part(
            rounded(mirrored([(0.5, 0.025, 0.05), (0.56, 0.05, 0.06), (0.575, 0.27, 0.03), (0.5, 0.26)]), 0.02),
            Slot.TRIM,
        )
    for sign in (-1, 1):
        ankle = 0.5 + sign * pose.stance
        lift = pose.lift
        _limb(
            s,
            [
                (0.5 + sign * 0.044, 0.48),
                (0.5 + sign * 0.045, 0.58),
                (ankle, 0.70),
                (ankle, 0.78),
                (ankle, 0.905 - lift),
            ],
            [0.043, 0.038, 0.025, 0.026, 0.014],
        )
        foot = [
            (-0.014, 0.89 - lift), (0.014, 0.89 - lift), (0.04, 0.907 - 0.6 * lift), (0.075, 0.932), (0.075, 0.942),
            (0.03, 0.94 - 0.3 * lift), (-0.012, 0.93 - lift),
        ]  # fmt: skip
        s.part(rounded([(ankle + sign * x, y) for x, y in foot], 0.006), edge=40)
    half = [
        (0.527, 0.16),
        (0.53, 0.19, 0.02),
        (0.60, 0.207, 0.03),
        (0.59, 0.29),
        (0.553, 0.40, 0.05),
        (0.582, 0.50, 0.04),
        (0.5, 0.545),
    ]
    s.part(rounded(mirrored(half), 0.02), volume="column", bulge=60, edge=40)
    for side, sign in ((0, -1), (1, 1)):
        wrist = pose.wrists[side]
        shoulder = (0.5 + sign * (SHOULDER[0] - 0.5), SHOULDER[1])
        _limb(s, [shoulder, _elbow(shoulder, wrist, sign, pose.sleeved), wrist], [0.02, 0.017, 0.012])


def _elbow(shoulder: Point, wrist: Point, sign: int, sleeved: bool) -> Point:
    """Outward of the middle between shoulder and wrist, the more the nearer they are; a little inward in sleeves."""
    (ax, ay), (bx, by) = shoulder, wrist
    bend = max(0.0, 0.245 - float(np.hypot(bx - ax, by - ay)))
    out = -0.012 if sleeved else 0.006 + 0.9 * bend
    return (ax + bx) / 2 + sign * out, (ay + by) / 2 - 0.012


def _front(pose: Pose, s: Sketch, shape: Shape, form: Form) -> None:
    if pose.neck:
        s.part(rounded(mirrored([(0.526, 0.13), (0.525, 0.175), (0.5, 0.197)]), 0.01), volume="column", edge=0)
    for side in (0, 1):
        s.oval(*hand(pose, side), 0.013, 0.023, volume="ball", edge=60)
    if pose.hair in ("bob", "bun"):
        low = 0.155 if pose.hair == "bob" else 0.10
        s.part(rounded(mirrored([(0.5, 0.02, 0.05), (0.565, 0.04, 0.06), (0.568, low, 0.03)]), 0.01), Slot.TRIM)
    if pose.hair == "bun":
        s.oval(0.5, 0.018, 0.026, 0.018, Slot.TRIM)
    s.oval(0.5, 0.098, 0.043, 0.057, volume="ball", bulge=60, edge=60)
    s.part(
        [*arc(0.5, 0.085, 0.048, 0.058, 180, 360), *arc(0.5 + 0.01 * form[0], 0.085, 0.03, 0.026, 360, 180)], Slot.TRIM
    )
    for sign in (-1, 1):
        s.oval(0.5 + sign * 0.016, 0.1, 0.0045, 0.0045, Slot.DARK, edge=0)
    s.seam([(0.492, 0.128), (0.508, 0.128)], 130, 0.005)
