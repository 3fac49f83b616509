"""Files of photos: clean ones in many scenes, sizes and formats, copies of them, and flawed ones.

No two clean photos are alike by accident: light and things at the edge of the scene differ from photo to photo.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from shoplens.synthetic.catalogue import Design
from shoplens.synthetic.photography import photograph, view
from shoplens.synthetic.raw_records.photo_flaws import NOT_IMAGES, Spoiled, captioned, spoil
from shoplens.synthetic.raw_records.plan import COPY, PHOTO, SUFFIXES, Plan, stream
from shoplens.synthetic.sellers import seller
from shoplens.synthetic.surfaces import CutOut, paint

SHORTEST_SIDE, LONGEST_ASPECT = 200, 3
"""What the specification keeps at the least, and at the most."""
SELLERS = 96
STUDIO_WHITE = 0.8
"""Largest share of white in a clean photo; the specification drops 0.9."""
_CAPTIONS, _LARGE, _LIMIT_SIDE, _LIMIT_ASPECT, _CROPPED, _TURNED = 0.05, 0.06, 0.05, 0.04, 0.3, 0.02
"""Shares of clean photos with little text, of double size, at the limits, cropped, or turned by EXIF."""
_LIGHT, _LIGHT_GRID, _PROPS = 0.22, 5, 3
_PROP_SIDE = 60


class PhotoFile(NamedTuple):
    """A file and what is true of it.

    detail       what is special, such as `side_200` of a photo at the limit, `half` of a copy, `tiled` of a watermark
    boxes        lines of text that were drawn
    boxes_area   share of the photo that their boxes cover together, 0 to 1
    """

    data: bytes
    detail: str
    boxes: int = 0
    boxes_area: float = 0.0


def photo_files(plan: Plan, photos: Iterable[int]) -> Iterator[tuple[int, PhotoFile]]:
    """(number, file) of each photo, product by product, because painting a product takes half of the time."""

    def product(photo: int) -> int:
        return int(plan.shown[plan.document[photo]])

    painted, cut = -1, None
    for photo in sorted(photos, key=lambda photo: (product(photo), photo)):
        if product(photo) != painted or cut is None:
            painted = product(photo)
            design = plan.products.design(painted)
            cut = paint(design, 2 * plan.settings.image_size)
        yield photo, _file(plan, photo, design, cut)


def _file(plan: Plan, photo: int, design: Design, cut: CutOut) -> PhotoFile:
    original = int(plan.original[photo])
    if original >= 0:
        rng = stream(plan.settings.seed, COPY, photo)
        return _copy(_file(plan, original, design, cut), rng)
    rng = stream(plan.settings.seed, PHOTO, photo)
    main = photo == plan.first_photo[plan.document[photo]]
    flaw, suffix = plan.flaw_of(photo), SUFFIXES[plan.suffix[photo]]
    if flaw == "not_an_image":
        kind = str(rng.choice(sorted(NOT_IMAGES)))
        return PhotoFile(NOT_IMAGES[kind], kind)
    scene = _scene(design, cut, bool(main), plan.settings.image_size, rng)
    if flaw is None:
        return _clean(scene, suffix, rng)
    spoiled = spoil(_cropped(scene, rng), flaw, rng)
    if flaw == "animated":
        return PhotoFile(_animation([spoiled.photo, *spoiled.further], suffix, rng), f"{suffix}, {spoiled.detail}")
    data = _encoded(spoiled.photo, suffix, rng, jpeg_quality=90 if flaw == "white" else None)
    if flaw == "truncated":
        return PhotoFile(data[: int(len(data) * rng.uniform(0.2, 0.85))], suffix)
    return PhotoFile(data, spoiled.detail, spoiled.boxes, spoiled.boxes_area)


def _scene(design: Design, cut: CutOut, main: bool, size: int, rng: np.random.Generator) -> Image.Image:
    """A square photo of the product in a scene of its own."""
    studio = rng.random() < 0.12
    habit = seller(0, 0 if studio else int(rng.integers(SELLERS))).photo
    habit = dataclasses.replace(
        habit,
        fill=float(rng.uniform(0.62, 1.08)),
        shift=(float(rng.uniform(-0.14, 0.14)), float(rng.uniform(-0.1, 0.1))),
        tilt=float(rng.uniform(-20, 20)) if rng.random() < 0.5 else 0.0,
        mirror=bool(rng.random() < 0.5),
        light_angle=float(rng.uniform(180, 360)),
        brightness=float(rng.uniform(1.03, 1.08)) if studio else habit.brightness,
        warmth=0.0 if studio else habit.warmth,
    )
    upright = design.leaf.upright
    photo = photograph(cut, habit, view(habit, upright, main, rng), upright, size)
    if not studio:
        grid = rng.normal(0, _LIGHT, (_LIGHT_GRID, _LIGHT_GRID)).astype(np.float32)
        light = np.exp(np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC)))
        photo = Image.fromarray(np.clip(np.asarray(photo) * light[..., None], 0, 255).astype(np.uint8))
    for _ in range(int(rng.integers(1, _PROPS + 1))):
        _add_prop(photo, rng)
    return _not_white(photo)


def _add_prop(photo: Image.Image, rng: np.random.Generator) -> None:
    """Something out of focus that reaches into the photo from its edge."""
    along, reach = rng.uniform(0, _PROP_SIDE), rng.uniform(5, 14)
    x, y = [(along, 0), (along, _PROP_SIDE), (0, along), (_PROP_SIDE, along)][int(rng.integers(4))]
    mask = Image.new("L", (_PROP_SIDE, _PROP_SIDE), 0)
    draw, height = ImageDraw.Draw(mask), reach * rng.uniform(0.5, 1)
    (draw.ellipse if rng.random() < 0.5 else draw.rectangle)([x - reach, y - height, x + reach, y + height], fill=255)
    mask = mask.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 2))).resize(photo.size, Image.Resampling.BILINEAR)
    red, green, blue = rng.integers(20, 235, 3).tolist()
    photo.paste((red, green, blue), (0, 0), mask)


def _not_white(photo: Image.Image) -> Image.Image:
    """The photo, darker if too much of it is white."""
    small = np.asarray(photo.resize((64, 64), Image.Resampling.BOX))
    if float((small.min(axis=2) >= 250).mean()) <= STUDIO_WHITE:
        return photo
    return Image.fromarray((np.asarray(photo) * 0.92).astype(np.uint8))


def _cropped(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cropped in three of ten photos, but not below the limit of the shorter side."""
    if rng.random() >= _CROPPED:
        return photo
    width, height = rng.integers(SHORTEST_SIDE, photo.width + 1, 2).tolist()
    return _crop(photo, width, height, rng)


def _crop(photo: Image.Image, width: int, height: int, rng: np.random.Generator) -> Image.Image:
    left, top = (int(rng.integers(rest + 1)) for rest in (photo.width - width, photo.height - height))
    return _not_white(photo.crop((left, top, left + width, top + height)))


def _clean(scene: Image.Image, suffix: str, rng: np.random.Generator) -> PhotoFile:
    kind = rng.random() - np.cumsum([_LARGE, _LIMIT_SIDE, _LIMIT_ASPECT])
    if kind[0] < 0:
        detail, photo = "large", scene.resize((2 * scene.width, 2 * scene.height), Image.Resampling.LANCZOS)
    elif kind[1] < 0:
        detail = "side_200"
        sides = [SHORTEST_SIDE, int(rng.integers(SHORTEST_SIDE, scene.width + 1))]
        width, height = sides if rng.random() < 0.5 else sides[::-1]
        photo = _crop(scene, width, height, rng)
    elif kind[2] < 0:
        detail = "aspect_3"
        photo = _strip(scene, bool(rng.random() < 0.5), rng)
    else:
        detail, photo = "", _cropped(scene, rng)
    spoiled = Spoiled(photo)
    if rng.random() < _CAPTIONS:
        spoiled, detail = captioned(photo, rng), detail or "caption"
    turned = suffix == "jpg" and rng.random() < _TURNED
    return PhotoFile(
        _encoded(spoiled.photo, suffix, rng, turned),
        detail or ("exif" if turned else ""),
        spoiled.boxes,
        spoiled.boxes_area,
    )


def _strip(scene: Image.Image, tall: bool, rng: np.random.Generator) -> Image.Image:
    """Exactly three times as long as wide: the photo beside two others of its parts."""
    side = SHORTEST_SIDE
    parts = [scene.resize((side, side), Image.Resampling.BOX)]
    for _ in range(LONGEST_ASPECT - 1):
        close = int(rng.integers(scene.width // 2, scene.width))
        parts.append(_crop(scene, close, close, rng).resize((side, side), Image.Resampling.BILINEAR))
    strip = Image.new("RGB", (side, LONGEST_ASPECT * side) if tall else (LONGEST_ASPECT * side, side))
    for place, part in enumerate(parts):
        strip.paste(part, (0, place * side) if tall else (place * side, 0))
    return strip


def _copy(original: PhotoFile, rng: np.random.Generator) -> PhotoFile:
    """The picture at quality 50, or smaller, but not below the limit of the shorter side."""
    with Image.open(io.BytesIO(original.data)) as opened:
        turned = opened.getexif().get(0x0112) == 6
        photo = (opened.transpose(Image.Transpose.ROTATE_270) if turned else opened).convert("RGB")
    kinds = {"quality_50": 1.0, "nine_tenths": 0.9, "half": 0.5}
    possible = [kind for kind, scale in kinds.items() if min(photo.size) * scale >= SHORTEST_SIDE]
    kind = possible[-1] if "half" in possible and rng.random() < 0.7 else str(rng.choice(possible))
    if kind == "quality_50":
        return PhotoFile(_jpeg(photo, 50), kind, original.boxes, original.boxes_area)
    size = (int(photo.width * kinds[kind]), int(photo.height * kinds[kind]))
    data = _jpeg(photo.resize(size, Image.Resampling.LANCZOS), 85)
    return PhotoFile(data, kind, original.boxes, original.boxes_area)


def _encoded(
    photo: Image.Image,
    suffix: str,
    rng: np.random.Generator,
    turned: bool = False,
    jpeg_quality: int | None = None,
) -> bytes:
    """The file. `turned`: its rows are columns, and EXIF says so."""
    quality = jpeg_quality or int(rng.integers(78, 93))
    if suffix == "jpg":
        return _jpeg(photo, quality, turned)
    file = io.BytesIO()
    if suffix == "png":
        photo.save(file, "PNG", compress_level=3)
    else:
        photo.save(file, "WEBP", quality=quality, method=2)
    return file.getvalue()


def _jpeg(photo: Image.Image, quality: int, turned: bool = False) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    if turned:
        exif[0x0112] = 6
        photo = photo.transpose(Image.Transpose.ROTATE_90)
    photo.save(file, "JPEG", quality=quality, exif=exif)
    return file.getvalue()


def _animation(frames: list[Image.Image], suffix: str, rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    kind = {"gif": "GIF", "webp": "WEBP", "png": "PNG"}[suffix]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], duration=int(rng.integers(100, 800)), loop=0)
    return file.getvalue()
