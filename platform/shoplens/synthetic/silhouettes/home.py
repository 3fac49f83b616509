"""Silhouettes of furniture and kitchenware."""

from __future__ import annotations

from shoplens.synthetic.silhouettes import Form, Shape
from shoplens.synthetic.sketch import Sketch, Slot, arc, mirrored, rounded


def chair(s: Sketch, shape: Shape, form: Form) -> None:
    top = 0.10 + 0.04 * form[0]
    legs = Slot.METAL if shape["legs"] == "metal legs" else Slot.WOOD
    for x, y, foot in ((0.36, 0.60, 0.37), (0.66, 0.60, 0.68)):
        s.strap([(x, y), (foot, 0.84)], 0.028, legs, height=100)
    if shape["back"] == "slat back":
        s.strap([(0.34, 0.60), (0.33, top)], 0.04, Slot.PLAIN)
        s.strap([(0.68, 0.60), (0.69, top)], 0.04, Slot.PLAIN)
        s.box(0.31, top, 0.71, top + 0.085, Slot.PLAIN, r=0.03, volume="row")
        for k in range(4):
            s.strap([(0.41 + 0.067 * k, top + 0.08), (0.41 + 0.067 * k, 0.58)], 0.02, Slot.PLAIN)
    else:
        s.part(
            rounded(
                [
                    (0.33, 0.58),
                    (0.31, top, 0.08 + 0.04 * form[1]),
                    (0.71, top, 0.08 + 0.04 * form[1]),
                    (0.69, 0.58),
                ],
                0.03,
            ),
            volume="ball",
            bulge=110,
        )
        if form[2] > 0:
            for x in (0.44, 0.51, 0.58):
                s.fold([(x, top + 0.05), (x, 0.55)], -30, 0.015)
    s.part(
        rounded([(0.30, 0.55), (0.70, 0.55), (0.77, 0.66, 0.03), (0.23, 0.66, 0.03)], 0.03),
        volume="row",
        bulge=60,
        height=180,
    )
    s.part(rounded([(0.235, 0.652), (0.765, 0.652), (0.75, 0.70), (0.25, 0.70)], 0.015), Slot.PLAIN, height=100)
    for x, foot in ((0.27, 0.245), (0.73, 0.755)):
        s.strap([(x, 0.69), (foot, 0.93)], 0.036, legs)


def sofa(s: Sketch, shape: Shape, form: Form) -> None:
    seats = {"one seater": 1, "two seater": 2, "three seater": 3}[shape["seats"]]
    half = {1: 0.28, 2: 0.37, 3: 0.45}[seats]
    top = 0.34 + 0.03 * form[0]
    arm = 0.075
    for x in (0.5 - half + 0.05, 0.5 + half - 0.05):
        s.strap([(x, 0.72), (x, 0.80)], 0.03, Slot.WOOD)
    s.part(
        rounded(mirrored([(0.5 + half - 0.03, top, 0.07), (0.5 + half - 0.02, 0.72, 0.02)]), 0.05),
        volume="row",
        height=110,
    )
    inner = half - arm
    for k in range(seats):
        left = 0.5 - inner + 2 * inner * k / seats
        s.box(left, top + 0.035, left + 2 * inner / seats, 0.60, r=0.035, volume="ball", bulge=90, height=140)
    for k in range(seats):
        left = 0.5 - inner + 2 * inner * k / seats
        s.box(left, 0.565, left + 2 * inner / seats, 0.665, r=0.03, volume="row", bulge=90, height=190)
    s.box(0.5 - inner, 0.66, 0.5 + inner, 0.745, Slot.BODY, r=0.01, height=150)
    for sign in (1, -1):
        x = 0.5 + sign * (half - arm / 2)
        s.box(
            x - arm / 2 - 0.008,
            0.49 + 0.02 * form[1],
            x + arm / 2 + 0.008,
            0.75,
            r=0.04,
            volume="column",
            height=200,
        )
    if form[2] > 0:
        cx = 0.5 - inner + 0.09
        s.part(
            rounded([(cx - 0.075, 0.44), (cx + 0.065, 0.45), (cx + 0.075, 0.58), (cx - 0.065, 0.59)], 0.02),
            Slot.TRIM,
            volume="ball",
            height=220,
        )


def stool(s: Sketch, shape: Shape, form: Form) -> None:
    legs = {"three legs": (0.25, 0.5, 0.75), "four legs": (0.24, 0.41, 0.60, 0.77)}[shape["leg count"]]
    low = 0.90
    slot = Slot.WOOD if form[0] > -0.3 else Slot.METAL
    for k, x in enumerate(legs):
        back = k not in (0, len(legs) - 1) and len(legs) == 4
        s.strap([(0.5 + (x - 0.5) * 0.62, 0.42), (x, low - 0.07 * back)], 0.034, slot, height=100 if back else 150)
    y = 0.68 + 0.03 * form[1]
    s.strap([(0.33, y), (0.67, y)], 0.022, slot)
    s.oval(0.5, 0.40, 0.25, 0.085, Slot.PLAIN, height=110)
    s.oval(0.5, 0.365, 0.255, 0.09, volume="ball", height=180)


def table(s: Sketch, shape: Shape, form: Form) -> None:
    legs = Slot.METAL if shape["legs"] == "metal legs" else Slot.BODY
    spread = 0.02 * form[0]
    if shape["top"] == "round top":
        for x, y in ((0.32, 0.80), (0.68, 0.80), (0.25, 0.88), (0.75, 0.88)):
            s.strap(
                [(0.5 + (x - 0.5) * 0.7, 0.46), (x + spread * (1 if x > 0.5 else -1), y)],
                0.032,
                legs,
                height=120,
            )
        s.oval(0.5, 0.445, 0.40, 0.115, height=90)
        s.oval(0.5, 0.42, 0.40, 0.115, volume="row", bulge=20, height=190)
        return
    for x in (0.27, 0.73):
        s.strap([(x, 0.44), (x, 0.76)], 0.034, legs, height=90)
    s.part([(0.24, 0.35), (0.76, 0.35), (0.94, 0.50), (0.06, 0.50)], volume="row", bulge=20, height=190)
    s.part(
        [(0.06, 0.498), (0.94, 0.498), (0.94, 0.535 + 0.01 * form[1]), (0.06, 0.535 + 0.01 * form[1])],
        height=110,
    )
    if form[2] > 0:
        s.box(0.36, 0.53, 0.64, 0.60, r=0.005, height=140)
        s.oval(0.5, 0.565, 0.014, 0.014, Slot.METAL)
    for x in (0.11, 0.89):
        s.strap([(x, 0.53), (x + spread * (1 if x > 0.5 else -1), 0.92)], 0.042, legs)


def dresser(s: Sketch, shape: Shape, form: Form) -> None:
    rows = {"two drawers": 2, "three drawers": 3, "four drawers": 4}[shape["drawers"]]
    half = 0.30 + 0.05 * form[0]
    top, low = 0.74 - 0.145 * rows, 0.82
    for x in (0.5 - half + 0.05, 0.5 + half - 0.05):
        s.strap([(x, low - 0.02), (x + (0.02 if x > 0.5 else -0.02), 0.92)], 0.034, Slot.WOOD)
    s.part(
        [
            (0.5 - half, top),
            (0.5 - half + 0.06, top - 0.06),
            (0.5 + half + 0.0, top - 0.06),
            (0.5 + half, top),
        ],
        height=190,
    )
    s.box(0.5 - half, top, 0.5 + half, low, r=0.008, height=120)
    step = (low - top - 0.03) / rows
    for k in range(rows):
        y = top + 0.02 + step * k
        s.box(0.5 - half + 0.025, y, 0.5 + half - 0.025, y + step - 0.015, r=0.008, height=160, edge=120)
        if form[1] > 0:
            for x in (0.5 - half * 0.45, 0.5 + half * 0.45):
                s.oval(x, y + step * 0.43, 0.018, 0.018, Slot.TRIM, volume="ball", height=210)
        else:
            s.box(0.43, y + step * 0.36, 0.57, y + step * 0.36 + 0.018, Slot.METAL, r=0.008, height=210)


def lamp(s: Sketch, shape: Shape, form: Form) -> None:
    tall = shape["stand"] == "floor lamp"
    foot, shade = (0.93, 0.08) if tall else (0.86, 0.16)
    size = 0.75 if tall else 1.0
    bottom = shade + 0.33 * size
    s.strap(
        [(0.5, bottom - 0.02), (0.5, foot - 0.02)],
        0.022 if tall else 0.036,
        Slot.METAL if form[0] > 0 else Slot.WOOD,
    )
    if not tall and form[1] > 0:
        s.part(
            rounded(mirrored([(0.53, bottom + 0.02), (0.61, foot - 0.14, 0.12), (0.58, foot - 0.02)]), 0.03),
            Slot.TRIM,
            volume="ball",
        )
    s.oval(0.5, foot - 0.01, 0.15, 0.03, Slot.METAL if form[0] > 0 else Slot.WOOD, volume="row", height=170)
    wide = (0.26 + 0.02 * form[2]) * size
    match shape["shade"]:
        case "drum shade":
            s.part(
                rounded(mirrored([(0.5 + wide * 0.9, shade), (0.5 + wide, bottom)]), 0.012),
                volume="column",
                bulge=130,
            )
        case "cone shade":
            s.part(
                rounded(mirrored([(0.5 + wide * 0.42, shade), (0.5 + wide * 1.05, bottom)]), 0.012),
                volume="column",
                bulge=130,
            )
        case _:
            s.part([*arc(0.5, bottom, wide, bottom - shade, 180, 360)], volume="ball", bulge=130)
    s.oval(0.5, bottom, wide * (1.05 if shape["shade"] == "cone shade" else 1.0), 0.018, Slot.LIGHT, height=90)


def mug(s: Sketch, shape: Shape, form: Form) -> None:
    wide, top = 0.225 + 0.02 * form[0], 0.27 + 0.05 * form[1]
    low = 0.80
    if shape["handle"] == "round handle":
        s.strap(arc(0.46 + wide, 0.53, 0.14, 0.15, -90, 90), 0.05, Slot.PLAIN)
    elif shape["handle"] == "square handle":
        s.strap(
            [(0.44 + wide, 0.40), (0.59 + wide, 0.40), (0.59 + wide, 0.66), (0.44 + wide, 0.66)],
            0.05,
            Slot.PLAIN,
        )
    s.part(
        rounded(
            [
                (0.45 - wide, top),
                (0.45 + wide, top),
                (0.45 + wide * (0.95 + 0.06 * form[2]), low, 0.07),
                (0.45 - wide * (0.95 + 0.06 * form[2]), low, 0.07),
            ],
            0.005,
        ),
        volume="column",
        bulge=170,
    )
    s.oval(0.45, top, wide, 0.055, Slot.PLAIN, height=190)
    s.oval(0.45, top + 0.004, wide * 0.90, 0.044, Slot.INSIDE, height=70)
    if form[3] > 0.3:
        s.oval(0.45, top + 0.016, wide * 0.82, 0.03, Slot.WOOD, height=70, edge=0)


def plate(s: Sketch, shape: Shape, form: Form) -> None:
    r = 0.42
    if shape["rim"] == "square plate":
        s.box(0.1, 0.1, 0.9, 0.9, r=0.09, volume="ball", bulge=60, height=180)
        s.box(
            0.19,
            0.19,
            0.81,
            0.81,
            Slot.LIGHT if form[0] > -0.2 else Slot.PLAIN,
            r=0.07,
            volume="ball",
            bulge=40,
            height=110,
            edge=50,
        )
        return
    s.oval(0.5, 0.5, r, r, Slot.TRIM if shape["rim"] == "wide rim" else Slot.BODY, height=190)
    s.oval(0.5, 0.5, r * 0.965, r * 0.965, volume="ball", bulge=60, height=180, edge=30)
    inner = 0.66 + 0.08 * form[1]
    s.oval(
        0.5,
        0.5,
        r * inner,
        r * inner,
        Slot.LIGHT if form[0] > -0.2 else Slot.PLAIN,
        volume="ball",
        bulge=40,
        height=120,
        edge=60,
    )
    s.seam(arc(0.5, 0.5, r * inner * 0.94, r * inner * 0.94), 30)


def bowl(s: Sketch, shape: Shape, form: Form) -> None:
    wide, top = 0.38 + 0.02 * form[0], 0.38
    depth = 0.42 if shape["depth"] == "deep bowl" else 0.27
    s.box(
        0.5 - wide * 0.42,
        top + depth - 0.03,
        0.5 + wide * 0.42,
        top + depth + 0.035,
        Slot.PLAIN,
        r=0.01,
        volume="column",
    )
    s.part(arc(0.5, top, wide, depth, 0, 180), volume="column", bulge=170)
    s.oval(0.5, top, wide, 0.085, Slot.PLAIN, height=190)
    s.oval(
        0.5,
        top + 0.006,
        wide * 0.94,
        0.073,
        Slot.LIGHT if form[1] > 0 else Slot.INSIDE,
        volume="row",
        height=90,
    )


def pot(s: Sketch, shape: Shape, form: Form) -> None:
    top, low = 0.42 + 0.04 * form[0], 0.80
    wide = 0.29 + 0.03 * form[1]
    for sign in (1, -1):
        s.strap(
            [
                (0.5 + sign * (wide - 0.02), top + 0.08),
                (0.5 + sign * (wide + 0.09), top + 0.08),
                (0.5 + sign * (wide + 0.09), top + 0.15),
                (0.5 + sign * (wide - 0.02), top + 0.15),
            ],
            0.03,
            Slot.DARK if form[2] > 0 else Slot.PLAIN,
        )
    s.part(
        rounded([(0.5 - wide, top), (0.5 + wide, top), (0.5 + wide, low, 0.07), (0.5 - wide, low, 0.07)], 0.01),
        volume="column",
        bulge=180,
    )
    if shape["lid"] == "glass lid":
        s.part(arc(0.5, top, wide + 0.012, 0.13, 180, 360), Slot.GLASS, volume="ball")
        s.strap([(0.5 - wide - 0.012, top), (0.5 + wide + 0.012, top)], 0.026, Slot.METAL)
    else:
        s.part(arc(0.5, top, wide + 0.012, 0.12, 180, 360), Slot.PLAIN, volume="ball", height=150)
        s.strap([(0.5 - wide - 0.012, top), (0.5 + wide + 0.012, top)], 0.026, Slot.PLAIN)
    s.oval(0.5, top - 0.145, 0.045, 0.03, Slot.DARK if form[2] > 0 else Slot.METAL, volume="ball", height=210)


def pan(s: Sketch, shape: Shape, form: Form) -> None:
    r = 0.27 + 0.02 * form[0]
    cx, cy = 0.36, 0.58
    s.strap(
        [(cx + r * 0.6, cy - r * 0.6), (0.90, 0.14)],
        0.06,
        Slot.WOOD if shape["handle"] == "wood handle" else Slot.DARK,
        height=170,
    )
    s.oval(0.885, 0.153, 0.014, 0.014, Slot.LIGHT)
    s.oval(cx, cy, r, r, volume="ball", bulge=110, height=150)
    s.oval(
        cx,
        cy,
        r * 0.90,
        r * 0.90,
        Slot.DARK if form[1] > -0.3 else Slot.METAL,
        volume="ball",
        bulge=40,
        height=100,
    )
    s.oval(cx, cy, r * 0.72, r * 0.72, Slot.DARK if form[1] > -0.3 else Slot.METAL, height=90, edge=60)


def kettle(s: Sketch, shape: Shape, form: Form) -> None:
    s.part(
        rounded(
            [
                (0.62, 0.62),
                (0.76, 0.50, 0.05),
                (0.86, 0.34, 0.02),
                (0.92, 0.36, 0.02),
                (0.82, 0.60, 0.06),
                (0.66, 0.76),
            ],
            0.02,
        ),
        Slot.PLAIN,
        volume="column",
    )
    if shape["handle"] == "top handle":
        s.strap(
            arc(0.48, 0.40, 0.20, 0.27 + 0.02 * form[0], 180, 360),
            0.04,
            Slot.WOOD if form[1] > 0 else Slot.DARK,
        )
    else:
        s.strap(
            [(0.28, 0.45), (0.14, 0.44), (0.12, 0.68), (0.26, 0.72)],
            0.045,
            Slot.WOOD if form[1] > 0 else Slot.DARK,
        )
    wide = 0.245 + 0.02 * form[2]
    s.part(
        rounded(
            mirrored(
                [
                    (0.48 + wide * 0.55, 0.36, 0.06),
                    (0.48 + wide * 1.05, 0.62, 0.14),
                    (0.48 + wide * 0.9, 0.84, 0.03),
                ],
                0.48,
            ),
            0.05,
        ),
        volume="ball",
        bulge=180,
    )
    s.oval(0.48, 0.365, wide * 0.56, 0.03, Slot.PLAIN, height=180)
    s.oval(0.48, 0.325, 0.032, 0.028, Slot.TRIM, volume="ball", height=220)


def knife(s: Sketch, shape: Shape, form: Form) -> None:
    wide = {"chef knife": 0.155, "paring knife": 0.09, "santoku knife": 0.165}[shape["blade"]] + 0.012 * form[0]
    start = 0.46 if shape["blade"] == "paring knife" else 0.36
    tip = (
        [(0.96, 0.44, 0.02)]
        if shape["blade"] != "santoku knife"
        else [(0.87, 0.42, 0.12), (0.96, 0.46 + wide * 0.5, 0.03)]
    )
    s.part(
        rounded([(start, 0.42), *tip, (0.80, 0.43 + wide * 0.8, 0.14), (start + 0.02, 0.42 + wide)], 0.01),
        Slot.METAL,
        volume="row",
        bulge=60,
    )
    s.seam([(start + 0.02, 0.42 + wide * 0.74), (0.82, 0.42 + wide * 0.66)], 50)
    s.box(start - 0.04, 0.41, start + 0.012, 0.53, Slot.METAL, r=0.01, volume="row", height=180)
    grip = [
        (0.04, 0.415 + 0.012 * form[1]),
        (start - 0.035, 0.41),
        (start - 0.035, 0.525),
        (0.06, 0.55 + 0.012 * form[1], 0.04),
    ]
    s.part(rounded(grip, 0.025), volume="row", bulge=120)
    for k in range(3):
        s.oval(0.11 + (start - 0.19) * k / 2, 0.47, 0.014, 0.014, Slot.METAL, edge=60)
