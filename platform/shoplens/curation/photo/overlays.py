"""Marks drawn on photos with known truth, so that a detector of watermarks learns without labelled photos.

A mark is what a site or a photographer lays over a finished photo: tiled or diagonal text, a date, a logo, a thin
copyright line, a bar with an address. Print that belongs to the product (a label, a slogan) is no mark. `marked` draws
the one, `unmarked` the other, so that text alone does not give a mark away. Opacities of 0.15 to 0.6 are those of
published training sets of synthetic watermarks (Cheng et al. 2018, "Large-scale visible watermark detection and removal
with deep convolutional networks"); logos and copyright lines of shops are often opaque.

The same photo and the same state of the generator give the same pixels on machines with the same fonts.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont

from shoplens.datasets.contact_sheet import FONTS

Generator = np.random.Generator
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Colour = tuple[int, int, int]

OPACITY = (0.15, 0.6)
"""Range of the opacity of transparent marks."""
STEP, SEEN = 24, 0.0006
"""What `visible` asks for; the share is that of a line of small print."""
TRIES = 12
LATIN_FONTS = (
    *("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSansCondensed-Oblique.ttf"),
    *("LiberationSans-Regular.ttf", "LiberationSans-Bold.ttf", "LiberationSerif-Italic.ttf", "arial.ttf"),
)
KOREAN_FONTS = (*FONTS, "NanumGothicBold.ttf", "NanumMyeongjo.ttf", "NanumSquareRoundB.ttf")

_VOWELS = ("a", "e", "i", "o", "u")
_CONSONANTS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "sh", "t", "v", "z")
_KOREAN_SYLLABLES = tuple("가나다라마바사아자하고도로모보소수유이지미리현은진한봄달별솔")
_AFTER = ("", "", " studio", " shop", " store", " photo", " official", ".com", ".co.kr", " market")
_KOREAN_AFTER = ("", "상점", "마켓", "스튜디오", "몰", " 공식", "사진")
_WARNINGS = (
    "SAMPLE",
    "DO NOT COPY",
    "PREVIEW",
    "무단도용금지",
    "복사금지",
    "불법복제 금지",
    "저작권 보호",
    "COPYRIGHT",
)
_LINES = (
    "(c) {}",
    "© {}",
    "Copyright © {}",
    "Photo by {}",
    "Copyright (c) Photo by {}",
    "ⓒ {}",
    "{} all rights reserved",
)
_SLOGANS = ("SALE", "BEST 1+1", "NEW", "50% OFF", "FREE", "특가", "무료배송", "신상품", "1+1", "ORIGINAL", "NATURAL")


class Marked(NamedTuple):
    """A photo with a mark.

    image   RGB, as large as the photo
    kind    one of `KINDS`
    """

    image: Image.Image
    kind: str


def marked(photo: Image.Image, rng: Generator, kind: str | None = None) -> Marked:
    """A copy of the photo (RGB) with one mark of a kind, or of a random kind of `KINDS`.

    A mark that can hardly be seen, such as white on white, is drawn anew: its label would be wrong for every reader.
    """
    for _ in range(TRIES):
        chosen = str(rng.choice(list(KINDS))) if kind is None else kind
        image = KINDS[chosen](photo.copy(), rng)
        if visible(photo, image):
            break
    return Marked(image, chosen)


def visible(photo: Image.Image, drawn: Image.Image) -> bool:
    """Whether at least `SEEN` of the pixels of two RGB photos of one size differ by `STEP` grey levels or more."""
    difference = np.asarray(ImageChops.difference(photo, drawn).convert("L"))
    return bool((difference >= STEP).mean() >= SEEN)


def unmarked(photo: Image.Image, rng: Generator) -> Image.Image:
    """A copy of the photo (RGB) with opaque print as products and packages bear it: a label, or a large slogan."""
    return _label(photo.copy(), rng) if rng.random() < 0.6 else _slogan(photo.copy(), rng)


def reencoded(photo: Image.Image, rng: Generator, quality: tuple[int, int] = (60, 96)) -> Image.Image:
    """The photo as a JPEG of random quality decodes: marks and photo have the same traces of compression."""
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=int(rng.integers(*quality)), subsampling=int(rng.integers(0, 3)))
    return Image.open(buffer).convert("RGB")


# Marks.


def _tiled_text(photo: Image.Image, rng: Generator) -> Image.Image:
    stamp = _stamp(_wording(rng), _side(photo) * rng.uniform(0.035, 0.1), rng)
    stamp = stamp.rotate(float(rng.choice([0, 20, 30, 45, -30])), Image.Resampling.BICUBIC, expand=True)
    mask = Image.new("L", photo.size)
    step_x, step_y = (int(length * rng.uniform(1.1, 2.2)) + 4 for length in stamp.size)
    shift = int(step_x * rng.uniform(0, 0.5))
    for row, y in enumerate(range(-stamp.height // 2, photo.height, step_y)):
        for x in range(-stamp.width // 2 - shift * (row % 2), photo.width, step_x):
            mask.paste(stamp, (x, y))
    return _laid(photo, mask, _ink(photo, rng), _opacity(rng))


def _diagonal_text(photo: Image.Image, rng: Generator) -> Image.Image:
    stamp = _fitted(_stamp(_wording(rng), _side(photo) * 0.2, rng), rng.uniform(0.5, 1.1) * _side(photo))
    stamp = stamp.rotate(float(rng.uniform(20, 55) * rng.choice([-1, 1])), Image.Resampling.BICUBIC, expand=True)
    return _laid(photo, _centred(photo, stamp, rng), _ink(photo, rng), _opacity(rng))


def _corner_text(photo: Image.Image, rng: Generator) -> Image.Image:
    stamp = _stamp(_wording(rng), _side(photo) * rng.uniform(0.025, 0.07), rng)
    opacity = _opacity(rng) if rng.random() < 0.5 else rng.uniform(0.6, 1)
    return _laid(photo, _cornered(photo, stamp, rng), _ink(photo, rng), opacity)


def _date_stamp(photo: Image.Image, rng: Generator) -> Image.Image:
    year, month, day, hour, minute = (int(rng.integers(*span)) for span in _DATE)
    form = str(rng.choice(["{}/{:02d}/{:02d}", "{}.{:02d}.{:02d}", "{}-{:02d}-{:02d} {:02d}:{:02d}", "'{} {} {}"]))
    stamp = _stamp(form.format(year, month, day, hour, minute), _side(photo) * rng.uniform(0.03, 0.06), rng)
    ink = [(255, 140, 20), (255, 200, 40), (255, 70, 40), _ink(photo, rng)][int(rng.integers(4))]
    return _laid(photo, _cornered(photo, stamp, rng), ink, rng.uniform(0.6, 1))


_DATE = ((1998, 2027), (1, 13), (1, 29), (0, 24), (0, 60))


def _corner_logo(photo: Image.Image, rng: Generator) -> Image.Image:
    """A sign, a word in one or two colours, or both, opaque two times of three."""
    logo = _logo(_side(photo) * rng.uniform(0.035, 0.11), rng)
    opacity = _opacity(rng) if rng.random() < 0.34 else rng.uniform(0.75, 1)
    return _placed(photo, logo, _corner(photo, logo.size, rng), opacity)


def _centre_logo(photo: Image.Image, rng: Generator) -> Image.Image:
    logo = _logo(_side(photo) * rng.uniform(0.12, 0.35), rng)
    if logo.width > photo.width * 0.95:
        logo.thumbnail((round(photo.width * 0.95), photo.height), Image.Resampling.BICUBIC)
    at = (_offset(photo.width - logo.width, rng), _offset(photo.height - logo.height, rng))
    return _placed(photo, logo, at, _opacity(rng))


def _line(photo: Image.Image, rng: Generator) -> Image.Image:
    """A thin line such as "(c) name" along an edge."""
    text = str(rng.choice(_LINES)).format(_name(rng))
    stamp = _stamp(text, _side(photo) * rng.uniform(0.018, 0.035), rng)
    return _laid(photo, _cornered(photo, stamp, rng, centre=0.25), _ink(photo, rng), rng.uniform(0.35, 1))


def _address_bar(photo: Image.Image, rng: Generator) -> Image.Image:
    """A band across the photo with the address of a site."""
    height = max(8, round(_side(photo) * rng.uniform(0.05, 0.1)))
    top = int(rng.choice([0, photo.height - height, round(photo.height * rng.uniform(0.3, 0.8))]))
    dark = rng.random() < 0.5
    ground, ink = ((20, 20, 20), (245, 245, 245)) if dark else ((250, 250, 250), (40, 40, 40))
    band = Image.new("L", photo.size)
    ImageDraw.Draw(band).rectangle((0, top, photo.width, top + height), fill=255)
    photo = _laid(photo, band, ground, rng.uniform(0.2, 0.7))
    stamp = _stamp(
        f"{rng.choice(['www.', '', 'https://'])}{_word(rng)}.{rng.choice(['com', 'co.kr', 'net'])}", height * 0.6, rng
    )
    mask = Image.new("L", photo.size)
    mask.paste(stamp, (max(0, (photo.width - stamp.width) // 2), top + max(0, (height - stamp.height) // 2)))
    return _laid(photo, mask, ink, rng.uniform(0.6, 1))


KINDS: dict[str, Callable[[Image.Image, Generator], Image.Image]] = {
    "tiled_text": _tiled_text,
    "diagonal_text": _diagonal_text,
    "corner_text": _corner_text,
    "date_stamp": _date_stamp,
    "corner_logo": _corner_logo,
    "centre_logo": _centre_logo,
    "line": _line,
    "address_bar": _address_bar,
}
"""Kind of mark -> what draws it."""


# Print of products.


def _label(photo: Image.Image, rng: Generator) -> Image.Image:
    """An opaque label in the middle of the photo: a ground of one colour, a heading, and lines of small print."""
    width, height = (max(24, round(_side(photo) * rng.uniform(0.2, 0.5))) for _ in range(2))
    label = Image.new("RGBA", (width, height), (*_colour(rng), 255))
    ink = _readable(label.getpixel((0, 0)), rng)
    y = height * 0.06
    for place in range(int(rng.integers(1, 6))):
        text = _word(rng) if place == 0 else f"{_word(rng)} {_word(rng)} {_word(rng)}"
        stamp = _fitted(_stamp(text, height * (0.25 if place == 0 else 0.1), rng), width * 0.85)
        if y + stamp.height > height * 0.95:
            break
        label.paste((*ink, 255), (round((width - stamp.width) / 2), round(y)), stamp)
        y += stamp.height * 1.3
    label = label.rotate(float(rng.normal(0, 8)), Image.Resampling.BICUBIC, expand=True)
    return _placed(photo, label, _middle(photo, label.size, rng), 1.0)


def _slogan(photo: Image.Image, rng: Generator) -> Image.Image:
    """Large opaque letters on the product, half of them on a panel."""
    stamp = _fitted(_stamp(str(rng.choice(_SLOGANS)), _side(photo) * 0.25, rng), _side(photo) * rng.uniform(0.25, 0.6))
    pad = round(stamp.height * 0.3)
    ground = (*_colour(rng), 255 if rng.random() < 0.5 else 0)
    panel = Image.new("RGBA", (stamp.width + 2 * pad, stamp.height + 2 * pad), ground)
    ink = _readable(ground, rng) if ground[3] else _colour(rng)
    panel.paste((*ink, 255), (pad, pad), stamp)
    panel = panel.rotate(float(rng.normal(0, 6)), Image.Resampling.BICUBIC, expand=True)
    return _placed(photo, panel, _middle(photo, panel.size, rng), 1.0)


# Words, letters and signs.


def _word(rng: Generator) -> str:
    word = "".join(f"{rng.choice(_CONSONANTS)}{rng.choice(_VOWELS)}" for _ in range(int(rng.integers(2, 5))))
    return [word, word.upper(), word.title()][int(rng.integers(3))]


def _name(rng: Generator) -> str:
    if rng.random() < 0.3:
        return "".join(rng.choice(_KOREAN_SYLLABLES, int(rng.integers(2, 4)))) + str(rng.choice(_KOREAN_AFTER))
    return _word(rng) + str(rng.choice(_AFTER))


def _wording(rng: Generator) -> str:
    return str(rng.choice(_WARNINGS)) if rng.random() < 0.3 else _name(rng)


def _stamp(text: str, height: float, rng: Generator) -> Image.Image:
    """The text as a mask (mode L), about `height` pixels high and cut to its letters; one in five with a thin edge."""
    korean = any(ord(letter) > 0x2000 for letter in text)
    names = _installed(KOREAN_FONTS if korean else (*LATIN_FONTS, *KOREAN_FONTS[:1]))
    font = _font(str(rng.choice(names)) if names else "", max(6, round(height)))
    left, top, right, bottom = (round(side) for side in font.getbbox(text))
    mask = Image.new("L", (max(1, right - left + 2), max(1, bottom - top + 2)))
    hollow = height > 24 and rng.random() < 0.2
    draw = ImageDraw.Draw(mask)
    if hollow:
        draw.text((1 - left, 1 - top), text, 60, font, stroke_width=1, stroke_fill=255)
    else:
        draw.text((1 - left, 1 - top), text, 255, font)
    return mask


def _logo(height: float, rng: Generator) -> Image.Image:
    """RGBA, about `height` pixels high: a sign, a word of one or two colours, or both side by side."""
    colours = [_colour(rng) for _ in range(2)]
    parts: list[tuple[Image.Image, Colour]] = []
    form = rng.integers(4)
    if form != 0:
        parts += [(_sign(max(8, round(height * rng.uniform(1, 1.6))), rng), colours[0])]
    if form != 1:
        words = [_word(rng)] if rng.random() < 0.5 else [_word(rng).lower(), _word(rng).lower()]
        parts += [(_stamp(word, height, rng), colours[at % 2]) for at, word in enumerate(words)]
    gap = max(1, round(height * 0.08))
    tallest = max(mask.height for mask, _ in parts)
    logo = Image.new("RGBA", (sum(mask.width + gap for mask, _ in parts), tallest))
    x = 0
    for mask, colour in parts:
        logo.paste((*colour, 255), (x, (tallest - mask.height) // 2), mask)
        x += mask.width + gap
    return logo


def _sign(side: int, rng: Generator) -> Image.Image:
    """A mask of a drawn shape: ring, disc, square or polygon, with a letter left out of the filled ones."""
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    box, width = (0, 0, side - 1, side - 1), max(1, round(side * rng.uniform(0.06, 0.15)))
    form, inside = int(rng.integers(5)), 0
    if form == 0:
        draw.ellipse(box, fill=0, outline=255, width=width)
        inside = 255
    elif form == 1:
        draw.ellipse(box, fill=255)
    elif form == 2:
        draw.rounded_rectangle(box, side * rng.uniform(0, 0.3), fill=255)
    else:
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 9))))
        reach = side / 2 * rng.uniform(0.5, 1, len(angles))
        corners = np.stack([side / 2 + reach * np.cos(angles), side / 2 + reach * np.sin(angles)], 1)
        draw.polygon([(float(x), float(y)) for x, y in corners], fill=255)
    if form < 3:
        letter = _fitted(_stamp(_word(rng)[: int(rng.integers(1, 3))].upper(), side * 0.6, rng), side * 0.6)
        mask.paste(inside, ((side - letter.width) // 2, (side - letter.height) // 2), letter)
    return mask


@cache
def _installed(names: Sequence[str]) -> tuple[str, ...]:
    """Those of the fonts that this machine has."""
    found = []
    for name in names:
        try:
            ImageFont.truetype(name, 12)
        except OSError:
            continue
        found.append(name)
    return tuple(found)


@lru_cache(maxsize=1024)
def _font(name: str, size: int) -> Font:
    return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)


# Colours and places.


def _side(photo: Image.Image) -> int:
    return min(photo.size)


def _opacity(rng: Generator) -> float:
    return float(rng.uniform(*OPACITY))


def _colour(rng: Generator) -> Colour:
    """Black, white, grey or a strong colour."""
    if rng.random() < 0.4:
        grey = int(rng.choice([0, 40, 90, 140, 255]))
        return grey, grey, grey
    colour = rng.integers(0, 256, 3)
    colour[int(rng.integers(3))] = int(rng.integers(0, 60))
    return int(colour[0]), int(colour[1]), int(colour[2])


def _ink(photo: Image.Image, rng: Generator) -> Colour:
    """White, grey or black, seldom a colour; most of the time one that the photo's mean brightness lets one see."""
    if rng.random() < 0.15:
        return _colour(rng)
    bright = float(np.asarray(photo.convert("L").resize((8, 8))).mean()) > 190
    grey = int(rng.choice([0, 60, 120, 150] if bright or rng.random() < 0.3 else [255, 255, 230, 180]))
    return grey, grey, grey


def _readable(ground: object, rng: Generator) -> Colour:
    """Dark on light and light on dark."""
    assert isinstance(ground, tuple)
    grey = int(rng.integers(0, 70)) if sum(ground[:3]) > 380 else int(rng.integers(200, 256))
    return grey, grey, grey


def _fitted(mask: Image.Image, width: float) -> Image.Image:
    """The mask, made narrower if it is wider than `width` pixels."""
    if mask.width <= width:
        return mask
    height = max(1, round(mask.height * width / mask.width))
    return mask.resize((max(1, round(width)), height), Image.Resampling.BICUBIC)


def _corner(photo: Image.Image, size: tuple[int, int], rng: Generator, centre: float = 0.0) -> tuple[int, int]:
    """Where a thing of this size lies in a corner; by chance `centre` in the middle of the upper or lower edge."""
    margin = round(_side(photo) * rng.uniform(0, 0.05))
    right, bottom = rng.random(2) < 0.5
    x = photo.width - size[0] - margin if right else margin
    y = photo.height - size[1] - margin if bottom else margin
    return (photo.width - size[0]) // 2 if rng.random() < centre else x, y


def _middle(photo: Image.Image, size: tuple[int, int], rng: Generator) -> tuple[int, int]:
    x, y = (
        round((whole - part) / 2 + whole * rng.uniform(-0.15, 0.15))
        for whole, part in zip(photo.size, size, strict=True)
    )
    return x, y


def _offset(room: int, rng: Generator) -> int:
    """Near the middle of `room` pixels."""
    return round(room * rng.uniform(0.35, 0.65))


def _cornered(photo: Image.Image, stamp: Image.Image, rng: Generator, centre: float = 0.0) -> Image.Image:
    mask, stamp = Image.new("L", photo.size), _fitted(stamp, photo.width * 0.9)
    mask.paste(stamp, _corner(photo, stamp.size, rng, centre))
    return mask


def _centred(photo: Image.Image, stamp: Image.Image, rng: Generator) -> Image.Image:
    mask = Image.new("L", photo.size)
    mask.paste(stamp, (_offset(photo.width - stamp.width, rng), _offset(photo.height - stamp.height, rng)))
    return mask


def _laid(photo: Image.Image, mask: Image.Image, ink: Colour, opacity: float) -> Image.Image:
    photo.paste(ink, (0, 0), mask.point([round(level * opacity) for level in range(256)]))
    return photo


def _placed(photo: Image.Image, picture: Image.Image, at: tuple[int, int], opacity: float) -> Image.Image:
    mask = picture.getchannel("A").point([round(level * opacity) for level in range(256)])
    photo.paste(picture.convert("RGB"), at, mask)
    return photo
