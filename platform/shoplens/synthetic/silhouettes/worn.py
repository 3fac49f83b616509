"""Silhouettes of shoes, bags and accessories."""

from __future__ import annotations

from shoplens.synthetic.silhouettes import Form, Shape
from shoplens.synthetic.sketch import Point, Sketch, Slot, arc, mirrored, rounded


def sneaker(s: Sketch, shape: Shape, form: Form) -> None:
    collar = 0.30 if shape["height"] == "high-top" else 0.42
    sole = 0.035 + 0.012 * form[0]
    upper = [
        (0.10, 0.70),
        (0.105, collar + 0.03, 0.02),
        (0.14, collar - 0.02, 0.04),
        (0.36, collar + 0.01, 0.05),
        (0.44, 0.44, 0.06),
        (0.66, 0.555, 0.1),
        (0.86, 0.59, 0.1),
        (0.92, 0.70),
    ]
    s.part(rounded(upper, 0.02), volume="row", bulge=110)
    s.oval(0.245, collar + 0.005, 0.105, 0.02, Slot.INSIDE, height=60)
    s.part(
        rounded([(0.72, 0.70), (0.735, 0.60, 0.03), (0.86, 0.605, 0.08), (0.915, 0.70)], 0.02),
        Slot.LIGHT,
        volume="ball",
        height=150,
    )
    s.part(
        rounded([(0.10, 0.70), (0.105, 0.55), (0.20, 0.52), (0.235, 0.70)], 0.02),
        Slot.TRIM,
        volume="row",
        height=150,
    )
    wave = 0.04 * form[1]
    match shape.get("stripe"):
        case "side stripe":
            s.strap([(0.28, 0.68), (0.40, 0.60 + wave), (0.56, 0.56)], 0.045, Slot.TRIM)
        case "triple stripe":
            for k in range(3):
                s.strap([(0.33 + 0.07 * k, 0.69), (0.40 + 0.07 * k + wave, 0.53 + 0.02 * k)], 0.025, Slot.TRIM)
    top = collar + 0.05
    for k in range(4):
        u = k / 3
        x, y = 0.385 + 0.21 * u, top + (0.555 - top) * u + 0.005
        s.strap([(x - 0.03, y + 0.035), (x + 0.045, y - 0.01)], 0.018, Slot.LIGHT)
    s.part(
        rounded([(0.085, 0.69), (0.93, 0.69), (0.935, 0.72 + sole, 0.03), (0.09, 0.72 + sole, 0.03)], 0.02),
        Slot.LIGHT,
        volume="row",
        height=170,
    )
    s.seam([(0.09, 0.715 + sole * 0.5), (0.93, 0.715 + sole * 0.5)], 60)
    s.box(0.09, 0.715 + sole, 0.93, 0.735 + sole, Slot.TRIM, r=0.01, height=100)


def boot(s: Sketch, shape: Shape, form: Form) -> None:
    top = {"ankle": 0.36, "mid-calf": 0.20, "knee-high": 0.06}[shape["height"]]
    heel = 0.05 + 0.02 * form[0]
    leg = [
        (0.24, 0.80),
        (0.25, 0.66, 0.06),
        (0.225, top, 0.02),
        (0.50 + 0.01 * form[1], top, 0.02),
        (0.51, 0.56, 0.09),
        *{
            "pointed toe": [(0.66, 0.68, 0.1), (0.86, 0.755, 0.05), (0.97, 0.80)],
            "square toe": [(0.64, 0.645, 0.1), (0.86, 0.655, 0.01), (0.87, 0.80)],
        }.get(shape.get("toe", ""), [(0.66, 0.66, 0.1), (0.82, 0.70, 0.1), (0.85, 0.80)]),
    ]
    s.part(rounded(leg, 0.02), volume="column", bulge=100)
    s.oval(0.362, top + 0.012, 0.136, 0.018, Slot.INSIDE, height=60)
    s.fold([(0.26, 0.62), (0.48, 0.60)], -34, 0.025)
    s.fold([(0.27, 0.67), (0.53, 0.66)], -30, 0.02)
    s.seam([(0.65, 0.80), (0.665, 0.68)], 70)
    if form[2] > 0:
        s.strap([(0.245, 0.655), (0.55, 0.635)], 0.035, Slot.TRIM)
        s.box(0.43, 0.62, 0.475, 0.67, Slot.METAL, r=0.01)
    else:
        s.seam([(0.30, top + 0.02), (0.30, 0.78)], 100, 0.01)
    s.part(
        rounded([(0.225, 0.785), (0.86, 0.785), (0.865, 0.825, 0.02), (0.225, 0.825)], 0.015),
        Slot.DARK,
        volume="row",
    )
    s.part([(0.23, 0.82), (0.39, 0.82), (0.375, 0.83 + heel), (0.235, 0.83 + heel)], Slot.DARK)
    s.box(0.52, 0.82, 0.855, 0.835, Slot.DARK, r=0.01)


def heel(s: Sketch, shape: Shape, form: Form) -> None:
    rise = {"low heel": 0.09, "mid heel": 0.18, "high heel": 0.28}[shape["heel"]]
    ground = 0.82
    back = ground - rise
    thick = 0.03 if form[0] > 0 else 0.0
    s.part([(0.12, back - 0.02), (0.26, back + 0.02), (0.165 + thick, ground), (0.145, ground)], volume="column")
    sole = [
        (0.12, back),
        (0.30, back + 0.03),
        (0.48, ground - rise * 0.22, 0.12),
        (0.64, ground - 0.025, 0.1),
        (0.93, ground - 0.025),
    ]
    s.part(
        rounded(
            [
                *sole,
                (0.93, ground),
                (0.62, ground, 0.1),
                (0.44, ground - rise * 0.12, 0.12),
                (0.14, back + 0.05),
            ],
            0.01,
        ),
        Slot.DARK,
    )
    toe = [(0.975, ground - 0.015, 0.02), (0.80, ground - 0.125, 0.12)]
    if shape["toe"] == "round toe":
        toe = [(0.935, ground - 0.012, 0.05), (0.885, ground - 0.135, 0.10)]
    if shape["toe"] == "square toe":
        toe = [(0.955, ground - 0.012, 0.005), (0.95, ground - 0.15, 0.01)]
    upper = [
        (0.12, back + 0.035),
        (0.095, back - 0.20, 0.06),
        (0.17, back - 0.215, 0.03),
        (0.27, back - 0.06, 0.14),
        (0.46, ground - rise * 0.5 - 0.055, 0.14),
        (0.64, ground - 0.155, 0.06),
        toe[1],
        toe[0],
        (0.64, ground - 0.012, 0.1),
        (0.46, ground - rise * 0.2, 0.12),
        (0.28, back + 0.05, 0.08),
    ]
    s.part(rounded(upper, 0.02), volume="row", bulge=110)
    mouth = [
        (0.135, back - 0.185),
        (0.165, back - 0.195),
        (0.265, back - 0.065, 0.12),
        (0.46, ground - rise * 0.5 - 0.055, 0.12),
        (0.63, ground - 0.15),
        (0.45, ground - rise * 0.5 - 0.02, 0.12),
        (0.24, back - 0.02, 0.1),
    ]
    s.part(rounded(mouth, 0.02), Slot.INSIDE, height=60, edge=40)
    if form[1] > 0.1:
        s.strap(
            [
                (0.115, back - 0.17),
                (0.22, back - 0.20),
                (0.34, back - 0.14),
                (0.37, ground - rise * 0.55 - 0.03),
            ],
            0.02,
            Slot.TRIM,
        )
    if form[2] > 0.2:
        s.oval(0.77, ground - 0.10, 0.045, 0.026, Slot.METAL)


def handbag(s: Sketch, shape: Shape, form: Form) -> None:
    wide, top = 0.30 + 0.04 * form[0], 0.42 + 0.03 * form[1]
    if shape["strap"] == "chain strap":
        path = arc(0.5, top + 0.02, wide * 0.95, 0.36, 180, 360)
        for x, y in path[::1]:
            s.oval(x, y, 0.016, 0.016, Slot.METAL)
        for x, y in path[::2]:
            s.oval(x, y, 0.008, 0.008, Slot.DARK, edge=0)
    else:
        s.strap(arc(0.5, top + 0.02, wide * 0.62, 0.24 + 0.03 * form[2], 180, 360), 0.035, Slot.TRIM)
    if shape.get("body") == "half-moon":
        s.part(arc(0.5, top, wide, 0.44, 0, 180), volume="ball", bulge=100)
    elif shape.get("body") == "bucket":
        s.part(
            rounded(mirrored([(0.5 + wide * 0.95, top, 0.01), (0.5 + wide * 0.6, 0.90, 0.05)]), 0.03),
            volume="column",
            bulge=100,
        )
    else:
        s.part(rounded(mirrored([(0.5 + wide * 0.9, top), (0.5 + wide, 0.84, 0.06)]), 0.04), volume="ball", bulge=100)
    flap = 0.60 + 0.04 * form[3]
    s.part(
        rounded(
            mirrored([(0.5 + wide * 0.9, top - 0.005), (0.5 + wide * 0.95, flap - 0.06, 0.05), (0.5 + 0.02, flap)]),
            0.03,
        ),
        height=185,
        edge=110,
    )
    s.box(0.465, flap - 0.035, 0.535, flap + 0.025, Slot.METAL, r=0.015, volume="ball")
    for sign in (1, -1):
        s.oval(0.5 + sign * wide * 0.62, top + 0.03, 0.02, 0.02, Slot.METAL)


def tote(s: Sketch, shape: Shape, form: Form) -> None:
    wide, top = 0.28 + 0.03 * form[0], 0.38 + 0.02 * form[1]
    reach = 0.27 if shape["strap"] == "long handles" else 0.17
    s.strap(
        [
            (0.39, top + 0.1),
            (0.40, top - reach + 0.05),
            (0.44, top - reach),
            (0.56, top - reach),
            (0.60, top - reach + 0.05),
            (0.61, top + 0.1),
        ],
        0.024,
        Slot.DARK,
    )
    s.part(
        rounded(mirrored([(0.5 + wide, top, 0.01), (0.5 + wide * 0.93, 0.89, 0.03)]), 0.02),
        volume="ball",
        bulge=60,
    )
    s.fold([(0.3, 0.55), (0.42, 0.87)], -18, 0.04)
    s.fold([(0.68, 0.5), (0.60, 0.85)], -18, 0.04)
    s.strap(
        [
            (0.37, top + 0.16),
            (0.38, top - reach + 0.06),
            (0.42, top - reach + 0.015),
            (0.58, top - reach + 0.015),
            (0.62, top - reach + 0.06),
            (0.63, top + 0.16),
        ],
        0.028,
        Slot.TRIM,
        height=200,
    )
    s.seam([(0.5 - wide, top + 0.035), (0.5 + wide, top + 0.035)], 60)
    if form[2] > 0:
        s.box(0.40, 0.60, 0.60, 0.74, Slot.TRIM, r=0.015)


def backpack(s: Sketch, shape: Shape, form: Form) -> None:
    wide = 0.255 + 0.025 * form[0]
    for sign in (1, -1):
        s.strap(
            [
                (0.5 + sign * 0.12, 0.20),
                (0.5 + sign * (wide + 0.075), 0.36),
                (0.5 + sign * (wide + 0.055), 0.74),
                (0.5 + sign * wide * 0.8, 0.84),
            ],
            0.045,
            Slot.DARK,
        )
    s.strap(arc(0.5, 0.145, 0.07, 0.075, 180, 360), 0.026, Slot.DARK)
    s.part(
        rounded(
            mirrored([(0.5 + wide * 0.6, 0.10, 0.12), (0.5 + wide, 0.26, 0.1), (0.5 + wide + 0.015, 0.89, 0.07)]),
            0.08,
        ),
        volume="ball",
        bulge=110,
    )
    if shape["opening"] == "flap top":
        s.part(
            rounded(
                mirrored(
                    [
                        (0.5 + wide * 0.6, 0.105, 0.1),
                        (0.5 + wide + 0.01, 0.25, 0.08),
                        (0.5 + wide, 0.48, 0.06),
                    ]
                ),
                0.06,
            ),
            Slot.PLAIN,
            volume="ball",
            height=170,
        )
        for sign in (1, -1):
            s.strap([(0.5 + sign * 0.11, 0.42), (0.5 + sign * 0.11, 0.58)], 0.03, Slot.TRIM)
            s.box(0.48 + sign * 0.11, 0.52, 0.52 + sign * 0.11, 0.56, Slot.METAL, r=0.006)
    else:
        s.strap(arc(0.5, 0.42, wide * 0.9, 0.25, 195, 345), 0.012, Slot.METAL)
    low = 0.60 + 0.02 * form[1]
    s.part(
        rounded(mirrored([(0.5 + wide * 0.78, low, 0.05), (0.5 + wide * 0.82, 0.85, 0.05)]), 0.04),
        Slot.BODY if form[2] > 0 else Slot.TRIM,
        volume="ball",
        height=170,
    )
    s.strap([(0.5 - wide * 0.66, low + 0.055), (0.5 + wide * 0.66, low + 0.055)], 0.012, Slot.METAL)


def watch(s: Sketch, shape: Shape, form: Form) -> None:
    band = 0.095 + 0.012 * form[0]
    s.part(
        rounded(
            [
                (0.5 - band, 0.36),
                (0.5 - band * 0.8, 0.04, 0.03),
                (0.5 + band * 0.8, 0.04, 0.03),
                (0.5 + band, 0.36),
            ],
            0.02,
        ),
        volume="column",
    )
    s.part(
        rounded(
            [
                (0.5 - band, 0.64),
                (0.5 - band * 0.75, 0.96, 0.05),
                (0.5 + band * 0.75, 0.96, 0.05),
                (0.5 + band, 0.64),
            ],
            0.02,
        ),
        volume="column",
    )
    for k in range(4):
        s.oval(0.5, 0.80 + 0.035 * k, 0.008, 0.008, Slot.DARK, edge=0)
    if form[1] > 0.3:
        for k in range(6):
            for y in (0.08 + 0.045 * k, 0.68 + 0.045 * k):
                s.seam([(0.5 - band, y), (0.5 + band, y)], 90)
    s.box(0.705, 0.475, 0.745, 0.525, Slot.METAL, r=0.01)
    if shape["case"] == "square case":
        s.box(0.29, 0.28, 0.71, 0.72, Slot.METAL, r=0.07, volume="ball", bulge=120, height=170)
        s.box(0.33, 0.32, 0.67, 0.68, Slot.LIGHT if form[2] > -0.2 else Slot.DARK, r=0.05, height=150)
    else:
        s.oval(0.5, 0.5, 0.225, 0.225, Slot.METAL, volume="ball", bulge=120, height=170)
        s.oval(0.5, 0.5, 0.185, 0.185, Slot.LIGHT if form[2] > -0.2 else Slot.DARK, height=150)
    for k in range(12):
        (x, y), _ = arc(0.5, 0.5, 0.155, 0.155, 30 * k, 30 * k + 5)[0], None
        s.oval(x, y, 0.012 if k % 3 == 0 else 0.007, 0.012 if k % 3 == 0 else 0.007, Slot.TRIM, edge=0)
    hour = arc(0.5, 0.5, 0.09, 0.09, 180 + 60 * form[3], 190 + 60 * form[3])[0]
    minute = arc(0.5, 0.5, 0.14, 0.14, 300 + 40 * form[4], 310 + 40 * form[4])[0]
    s.strap([(0.5, 0.5), hour], 0.018, Slot.TRIM)
    s.strap([(0.5, 0.5), minute], 0.012, Slot.TRIM)
    s.oval(0.5, 0.5, 0.014, 0.014, Slot.METAL)


def cap(s: Sketch, shape: Shape, form: Form) -> None:
    peak = 0.27 + 0.03 * form[0]
    dome = [
        (0.16, 0.64),
        (0.17, 0.42, 0.14),
        (0.33, peak, 0.14),
        (0.58, peak + 0.01, 0.14),
        (0.70, 0.46, 0.12),
        (0.72, 0.64),
    ]
    s.part(rounded(dome, 0.02), volume="ball", bulge=120)
    s.seam([(0.43, peak + 0.005), (0.45, 0.63)], 80)
    s.seam([(0.40, peak + 0.005), (0.25, 0.46), (0.22, 0.63)], 60)
    s.seam([(0.46, peak + 0.005), (0.62, 0.46), (0.66, 0.62)], 60)
    s.oval(0.44, peak, 0.025, 0.015, Slot.TRIM)
    brim = 0.06 if shape["brim"] == "curved brim" else 0.0
    s.part(
        rounded(
            [
                (0.42, 0.60),
                (0.70, 0.575, 0.05),
                (0.93, 0.64 + brim, 0.06),
                (0.935, 0.675 + brim, 0.03),
                (0.70, 0.655 + brim * 0.4, 0.1),
                (0.40, 0.665, 0.04),
            ],
            0.02,
        ),
        Slot.TRIM if form[1] > 0 else Slot.PLAIN,
        volume="row",
        height=170,
    )
    s.seam([(0.46, 0.635), (0.70, 0.61), (0.91, 0.655 + brim)], 60)
    s.oval(0.555, 0.49, 0.05, 0.05, Slot.LIGHT if form[2] > 0 else Slot.TRIM, height=170)


def sunglasses(s: Sketch, shape: Shape, form: Form) -> None:
    r = 0.16 + 0.015 * form[0]
    for sign in (1, -1):
        s.strap(
            [
                (0.5 + sign * (0.21 + r), 0.46),
                (0.5 + sign * (0.245 + r), 0.43),
                (0.5 + sign * (0.20 + r), 0.33),
            ],
            0.024,
            Slot.BODY,
        )
    s.strap(arc(0.5, 0.49, 0.075, 0.06, 190, 350), 0.026, Slot.BODY)
    for sign in (1, -1):
        cx = 0.5 + sign * 0.215
        for size, slot in ((1.0, Slot.BODY), (0.80, Slot.GLASS)):
            a = r * size
            match shape["frame"]:
                case "round frame":
                    outline: list[Point] = arc(cx, 0.5, a, a)
                case "square frame":
                    outline = rounded(
                        [
                            (cx - a, 0.5 - a * 0.8),
                            (cx + a, 0.5 - a * 0.8),
                            (cx + a * 0.95, 0.5 + a * 0.85),
                            (cx - a * 0.95, 0.5 + a * 0.85),
                        ],
                        0.05 * size,
                    )
                case _:
                    outline = rounded(
                        [
                            (cx + sign * a * 1.2, 0.5 - a * 1.0, 0.02),
                            (cx + sign * a * 0.95, 0.5 + a * 0.6, 0.1),
                            (cx, 0.5 + a * 0.85, 0.12),
                            (cx - sign * a * 0.95, 0.5 + a * 0.4, 0.1),
                            (cx - sign * a * 0.9, 0.5 - a * 0.6, 0.05),
                        ],
                        0.04,
                    )
            s.part(
                outline,
                slot,
                volume="ball" if slot is Slot.GLASS else "flat",
                height=170 if slot is Slot.BODY else 120,
            )
