"""Silhouettes of clothes, laid flat."""

from __future__ import annotations

from shoplens.synthetic.silhouettes import Form, Shape
from shoplens.synthetic.sketch import Sketch, Slot, arc, mirrored, rounded

SLEEVES = {
    "short sleeve": ((0.92, 0.40), (0.80, 0.46)),
    "long sleeve": ((0.915, 0.76), (0.815, 0.785)),
}
"""Outer and inner corner of the right sleeve's end."""


def _sleeves(s: Sketch, kind: str, width: float, cuff: bool = False, drop: float = 0.0) -> None:
    if kind == "sleeveless":
        return
    tip, inner = ((x, y + drop) for x, y in SLEEVES[kind])
    corners = [(0.60, 0.16), (0.745 + width, 0.19, 0.05), tip, inner, (0.69 + width, 0.40)]
    for side in (corners, [(1 - x, y, *r) for x, y, *r in corners]):
        s.part(rounded(side, 0.015), volume="column", bulge=70, height=115)
    if cuff:
        for sign in (1, -1):
            x = [0.5 + sign * (tip[0] + 0.004 - 0.5), 0.5 + sign * (inner[0] - 0.504)]
            s.part([(x[0], tip[1] - 0.05), (x[0], tip[1]), (x[1], inner[1]), (x[1], inner[1] - 0.05)], Slot.TRIM)


def _torso(s: Sketch, width: float, hem: float, flare: float = 0.0, rounded_hem: float = 0.0) -> None:
    half = [
        (0.60, 0.135),
        (0.735 + width, 0.185, 0.05),
        (0.705 + width, 0.40, 0.04),
        (0.70 + width + flare, hem - rounded_hem),
        (0.55, hem + 0.01),
    ]
    s.part(rounded(mirrored(half), 0.02), volume="column", bulge=60)
    for x in (0.62, 0.39):
        s.fold([(x, 0.45), (x + 0.02, hem - 0.05)], -14, 0.03)
    s.fold([(0.68 + width, 0.38), (0.60, 0.47)], -26, 0.02)
    s.fold([(0.32 - width, 0.38), (0.40, 0.47)], -26, 0.02)


def _neck(s: Sketch, kind: str, band: Slot = Slot.TRIM) -> None:
    if kind == "v-neck":
        s.part([(0.40, 0.13), (0.60, 0.13), (0.5, 0.32)], Slot.INSIDE, height=60)
        s.strap([(0.40, 0.13), (0.5, 0.32), (0.60, 0.13)], 0.022, band)
    elif kind == "square neck":
        s.box(0.41, 0.09, 0.59, 0.27, Slot.INSIDE, r=0.005, height=60)
        s.strap([(0.41, 0.13), (0.41, 0.27), (0.59, 0.27), (0.59, 0.13)], 0.024, band)
    elif kind == "turtleneck":
        s.part(rounded([(0.405, 0.06), (0.595, 0.06), (0.61, 0.175), (0.39, 0.175)], 0.02), band, volume="column")
    else:
        s.oval(0.5, 0.14, 0.10, 0.065, Slot.INSIDE, height=60)
        s.strap(arc(0.5, 0.14, 0.10, 0.07, 0, 180), 0.026, band)
        s.strap(arc(0.5, 0.14, 0.10, 0.03, 180, 360), 0.014, band)


def t_shirt(s: Sketch, shape: Shape, form: Form) -> None:
    width = 0.02 * form[0]
    _sleeves(s, shape["sleeve"], width)
    _torso(s, width, 0.86 + 0.05 * form[1], 0.02 * form[2])
    _neck(s, shape["neckline"])
    if form[3] > 0.2:
        s.box(0.56, 0.32, 0.66, 0.42, r=0.02, height=140)


def shirt(s: Sketch, shape: Shape, form: Form) -> None:
    width = 0.015 * form[0]
    _sleeves(s, shape["sleeve"], width, cuff=shape["sleeve"] == "long sleeve")
    _torso(s, width, 0.88 + 0.03 * form[1], 0.0, 0.05)
    s.oval(0.5, 0.14, 0.085, 0.05, Slot.INSIDE, height=60)
    s.seam([(0.475, 0.22), (0.475, 0.89)], 60)
    s.seam([(0.525, 0.22), (0.525, 0.89)], 90)
    for k in range(6):
        s.oval(0.5, 0.27 + 0.11 * k, 0.011, 0.011, Slot.LIGHT)
    if shape["collar"] == "band collar":
        s.strap(arc(0.5, 0.135, 0.09, 0.07, 0, 180), 0.035, Slot.PLAIN)
    else:
        for sign in (1, -1):
            s.part(
                [
                    (0.5, 0.225),
                    (0.5 + sign * 0.095, 0.095),
                    (0.5 + sign * 0.135, 0.17),
                    (0.5 + sign * 0.075, 0.275),
                ],
                Slot.PLAIN,
                height=170,
                edge=110,
            )
    if form[3] > -0.3:
        s.box(0.565, 0.36, 0.665, 0.47, r=0.012, height=140, edge=90)


def hoodie(s: Sketch, shape: Shape, form: Form) -> None:
    width = 0.02 + 0.015 * form[0]
    _sleeves(s, "long sleeve", width, cuff=True)
    _torso(s, width, 0.86 + 0.03 * form[1])
    s.box(0.295 - width, 0.83 + 0.03 * form[1], 0.705 + width, 0.89 + 0.03 * form[1], Slot.TRIM, r=0.02)
    s.part(
        rounded(mirrored([(0.5, 0.05), (0.63, 0.085, 0.07), (0.655, 0.20, 0.05), (0.5, 0.315)]), 0.06),
        volume="ball",
        height=165,
    )
    s.part(
        rounded(mirrored([(0.5, 0.10), (0.585, 0.12, 0.05), (0.59, 0.18), (0.5, 0.275)]), 0.05),
        Slot.INSIDE,
        height=60,
    )
    if shape["closure"] == "zip-up":
        s.strap([(0.5, 0.30), (0.5, 0.87)], 0.014, Slot.METAL)
    for x in (0.455, 0.545):
        s.strap([(x, 0.26), (x + 0.01 * form[3], 0.43)], 0.012, Slot.LIGHT)
    pocket = [(0.5, 0.60), (0.595, 0.60), (0.655, 0.72), (0.655, 0.80), (0.5, 0.80)]
    s.part(rounded(mirrored(pocket), 0.01), height=165, edge=100)
    if shape["closure"] == "zip-up":
        s.strap([(0.5, 0.58), (0.5, 0.87)], 0.014, Slot.METAL)


def sweater(s: Sketch, shape: Shape, form: Form) -> None:
    width = 0.02 + 0.02 * form[0]
    _sleeves(s, "long sleeve", width, cuff=True, drop=0.02)
    _torso(s, width, 0.84 + 0.04 * form[1])
    hem = 0.81 + 0.04 * form[1]
    s.box(0.295 - width, hem, 0.705 + width, hem + 0.06, Slot.TRIM, r=0.02)
    for k in range(17):
        x = 0.315 - width + k * (0.37 + 2 * width) / 16
        s.seam([(x, hem + 0.005), (x, hem + 0.055)], 45)
    _neck(s, shape["neckline"])
    if form[3] > 0:
        for x in (0.42, 0.5, 0.58):
            s.fold([(x, 0.30), (x, 0.79)], 35, 0.025)


def dress(s: Sketch, shape: Shape, form: Form) -> None:
    hem = {"mini": 0.74, "midi": 0.86, "maxi": 0.955}[shape["length"]]
    flare = 0.08 + 0.05 * form[0]
    waist = 0.42 + 0.025 * form[1]
    if shape["sleeve"] != "sleeveless":
        long = shape["sleeve"] == "long sleeve"
        corners = [
            (0.57, 0.10),
            (0.655, 0.115, 0.04),
            *([(0.80, 0.52), (0.73, 0.55)] if long else [(0.775, 0.25), (0.70, 0.30)]),
            (0.61, 0.26),
        ]
        for side in (corners, [(1 - x, y, *r) for x, y, *r in corners]):
            s.part(rounded(side, 0.015), volume="column", bulge=60, height=115)
    skirt_half = [
        (0.59, waist - 0.01),
        (0.63 + flare, (waist + hem) / 2, 0.2),
        (0.70 + flare * (hem - 0.3) * 1.9, hem),
        (0.55, hem + 0.02),
    ]
    s.part(rounded(mirrored(skirt_half), 0.02), volume="column", bulge=60)
    for k in range(-3, 4):
        s.fold(
            [(0.5 + 0.025 * k, waist + 0.03), (0.5 + (0.065 + 0.3 * flare) * k, hem)],
            -34 if k % 2 else 26,
            0.018,
        )
    top = [(0.565, 0.085), (0.635, 0.11, 0.03), (0.635, 0.25, 0.04), (0.595, waist + 0.01)]
    s.part(rounded(mirrored(top), 0.015), volume="column", bulge=70, height=140)
    if shape["neckline"] == "v-neck":
        s.hole([(0.437, 0.075), (0.563, 0.075), (0.5, 0.22)])
        s.seam([(0.437, 0.085), (0.5, 0.22), (0.563, 0.085)], 120, 0.01)
    elif shape["neckline"] == "square neck":
        s.hole([(0.44, 0.075), (0.56, 0.075), (0.56, 0.19), (0.44, 0.19)])
        s.seam([(0.44, 0.085), (0.44, 0.19), (0.56, 0.19), (0.56, 0.085)], 120, 0.01)
    else:
        s.hole(arc(0.5, 0.08, 0.066, 0.07 + 0.01 * form[2]))
        s.seam(arc(0.5, 0.08, 0.066, 0.07 + 0.01 * form[2], 0, 180), 120, 0.01)
    s.box(0.403, waist - 0.018, 0.597, waist + 0.02, Slot.TRIM, r=0.01)


def skirt(s: Sketch, shape: Shape, form: Form) -> None:
    hem = 0.80 + 0.08 * form[0]
    flare = {"pencil": 0.03, "a-line": 0.19, "pleated": 0.22, "tiered": 0.22}[shape["silhouette"]] + 0.02 * form[1]
    if "length" in shape:
        hem = {"mini": 0.54, "midi": 0.74, "long": 0.92}[shape["length"]] + 0.02 * form[0]
        flare *= 0.4 + 0.6 * (hem - 0.25) / 0.6
    hip = [
        (0.62, 0.17),
        (0.69, 0.30, 0.08) if shape["silhouette"] == "pencil" else (0.655, 0.25, 0.05),
        (0.66 + flare, hem),
        (0.5, hem + 0.03),
    ]
    s.part(rounded(mirrored(hip), 0.02), volume="column", bulge=80)
    if shape["silhouette"] == "tiered":
        _tiers(s, hem, flare)
    folds = 9 if shape["silhouette"] == "pleated" else 4
    for k in range(-folds, folds + 1):
        u = k / (folds + 1)
        path = [(0.5 + 0.13 * u, 0.22), (0.5 + (0.16 + flare) * u, hem)]
        if shape["silhouette"] == "pleated":
            s.seam(path, 55)
        if shape["silhouette"] != "pencil":
            s.fold(path, -38 if k % 2 else 30, 0.02)
    if shape["silhouette"] == "pencil":
        s.seam([(0.5, 0.22), (0.5, hem + 0.01)], 70)
    s.box(0.375, 0.13, 0.625, 0.19, Slot.TRIM if form[2] > 0 else Slot.PLAIN, r=0.01, volume="column")


def _tiers(s: Sketch, hem: float, flare: float) -> None:
    for k in (2, 1, 0):
        top, end = 0.19 + (hem - 0.19) * k / 3, 0.19 + (hem - 0.19) * (k + 1) / 3 + 0.025
        inner, outer = 0.12 + (0.04 + flare) * k / 3, 0.15 + (0.06 + flare) * (k + 1) / 3
        s.part(rounded(mirrored([(0.5 + inner, top), (0.5 + outer, end)]), 0.015), height=130 + 20 * (2 - k), edge=130)
        for j in range(-6, 7):
            s.seam([(0.5 + inner * j / 6.5, top + 0.01), (0.5 + outer * j / 6.5, (top + end) / 2)], 70)


def _legs(s: Sketch, hem: float, knee: float, opening: float, form: Form) -> None:
    half = [
        (0.51, 0.17),
        (0.645, 0.15),
        (0.685, 0.34, 0.1),
        (0.66 + knee, (0.34 + hem) / 2, 0.2),
        (0.655 + opening, hem),
        (0.525 + opening * 0.35, hem + 0.005),
        (0.515, 0.42),
    ]
    for side in (half, [(1 - x, y, *r) for x, y, *r in half]):
        s.part(rounded(side, 0.015), volume="column", bulge=100)
    s.seam([(0.5, 0.16), (0.5, 0.36)], 100)
    s.seam([(0.5, 0.30), (0.53, 0.27), (0.53, 0.17)], 70)
    for sign in (1, -1):
        s.seam([(0.5 + sign * 0.145, 0.17), (0.5 + sign * 0.12, 0.25), (0.5 + sign * 0.175, 0.28)], 90)
        s.fold([(0.5 + sign * 0.04, 0.40), (0.5 + sign * 0.13, 0.36)], -30, 0.02)
    s.box(0.352, 0.11, 0.648, 0.168, Slot.PLAIN, r=0.01, height=150)
    s.oval(0.5, 0.14, 0.013, 0.013, Slot.METAL)
    for x in (0.40, 0.60):
        s.box(x - 0.008, 0.105, x + 0.008, 0.175, Slot.PLAIN, r=0.003, height=170)


def trousers(s: Sketch, shape: Shape, form: Form) -> None:
    opening = {"slim fit": -0.035, "straight fit": 0.01, "wide fit": 0.09}[shape["fit"]] + 0.01 * form[0]
    hem = {"ankle length": 0.86, "cropped": 0.72}.get(shape.get("length", ""), 0.92)
    _legs(s, hem + 0.03 * form[1], opening / 2, opening, form)


def shorts(s: Sketch, shape: Shape, form: Form) -> None:
    opening = {"slim fit": 0.025, "straight fit": 0.05, "wide fit": 0.09}[shape["fit"]] + 0.01 * form[0]
    _legs(s, 0.60 + 0.06 * form[1], opening / 2, opening, form)
