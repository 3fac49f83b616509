"""Sellers and their styles of photos and titles.

A style has a photo habit (backdrop, light, framing, mirroring, JPEG quality) and a title habit (language, own words,
word order, separators). `strength` is the probability that an offer has its own seller's habit. Otherwise it has
the habit of a random seller. So the strength changes how photo and title of an offer correlate, but not the
distribution of photos or of titles:

- at 0, the title of any offer fits the photo of any offer of the same catalog;
- at 1, photo and title of an offer share one seller's style. A model can then match offers by style instead of
  products by content.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from shoplens.synthetic.catalogue import SELLER, stream

BACKDROPS = (
    "white",
    "sweep",
    "paper",
    "room",
    "planks",
    "marble",
    "concrete",
    "bokeh",
    "linen",
    "tiles",
    "dark",
    "duo",
)
LANGUAGES = ("ko", "mixed", "ko", "en", "ko")
FIELDS = ("brand", "group", "colour", "pattern", "material", "shape", "category")


@dataclass(frozen=True)
class Backdrop:
    """Kind of backdrop (one of `BACKDROPS`), its RGB tint, and the seed `grain` of its texture."""

    kind: str
    tint: tuple[int, int, int]
    grain: int


@dataclass(frozen=True)
class PhotoHabit:
    """A seller's way to take photos. `light_angle`: degrees, 0 = from the right, 90 = from below; `tilt`: degrees.

    `jpeg_quality` is on Pillow's scale. The other numbers are fractions.
    """

    backdrop: Backdrop
    light_angle: float
    light_height: float
    ambient: float
    brightness: float
    warmth: float
    shadow: float
    fill: float
    shift: tuple[float, float]
    tilt: float
    mirror: bool
    jpeg_quality: int


@dataclass(frozen=True)
class TitleHabit:
    """A seller's way to write titles.

    badges, tails   phrases before and after the words, such as `[FREE SHIPPING]`
    order           order of `FIELDS` in a title
    synonym         number of the Korean synonym that the seller uses
    repeats         repeat colour and category
    shows_code      add the model code
    shows_name      begin with the seller's name
    """

    language: str
    badges: tuple[str, ...]
    tails: tuple[str, ...]
    order: tuple[str, ...]
    separator: str
    synonym: int
    repeats: bool
    shows_code: bool
    shows_name: bool


@dataclass(frozen=True)
class Seller:
    """A seller's name and habits."""

    name: str
    photo: PhotoHabit
    title: TitleHabit


_NAMES_1 = (
    "다온",
    "한빛",
    "솔",
    "예쁜",
    "착한",
    "우리",
    "하루",
    "봄날",
    "서울",
    "부산",
    "초록",
    "행복",
    "달빛",
    "모던",
    "제일",
    "동네",
)
_NAMES_2 = ("마켓", "스토어", "상회", "샵", "몰", "하우스", "공방", "상점")
_TINTS = (
    (246, 222, 214), (214, 228, 240), (224, 236, 214), (248, 236, 198), (232, 220, 240), (206, 204, 200),
    (240, 206, 176), (188, 206, 196), (250, 244, 236), (176, 190, 214), (222, 180, 170), (204, 222, 222),
)  # fmt: skip
_BADGES_KO = (
    "[무료배송]", "[정품]", "[당일발송]", "★특가★", "[1+1]", "[국내생산]", "(오늘출발)", "[단독]",
    "◆신상◆", "[MD추천]", "[자체제작]", "[공식]", "♥인기♥", "[핫딜]", "[백화점]", "[쿠폰할인]",
)  # fmt: skip
_BADGES_EN = ("[FREE SHIPPING]", "[OFFICIAL]", "*NEW*", "[SALE]", "BEST", "[GENUINE]", "HOT!", "[LIMITED]")
_TAILS_KO = (
    "무료배송", "당일출고", "선물추천", "신상", "베스트", "예쁜", "데일리", "특가할인",
    "집들이선물", "한정수량", "최저가", "리뷰이벤트", "교환가능", "가성비", "추천템", "인기상품",
)  # fmt: skip
_TAILS_EN = (
    "free shipping",
    "gift",
    "new arrival",
    "best seller",
    "hot deal",
    "daily",
    "in stock",
    "limited edition",
)


@lru_cache(maxsize=4096)
def seller(seed: int, number: int) -> Seller:
    """Seller number `number` of the shop with this seed."""
    rng = stream(seed, SELLER, number)
    name = (
        _NAMES_1[number % 16]
        + _NAMES_2[(number // 16 + number * 3) % 8]
        + (str(number // 128 + 1) if number >= 128 else "")
    )
    kind = BACKDROPS[number % len(BACKDROPS)]
    photo = PhotoHabit(
        backdrop=Backdrop(kind, _TINTS[int(rng.integers(len(_TINTS)))], int(rng.integers(1 << 30))),
        light_angle=float(rng.uniform(180, 360)),
        light_height=float(rng.uniform(0.55, 0.9)),
        ambient=float(rng.uniform(0.30, 0.6)),
        brightness=float(rng.uniform(0.88, 1.07)),
        warmth=float(rng.uniform(-0.07, 0.09)),
        shadow=float(rng.uniform(0.25, 0.6)),
        fill=float(rng.uniform(0.80, 1.06)),
        shift=(float(rng.uniform(-0.06, 0.06)), float(rng.uniform(-0.03, 0.03))),
        tilt=float(rng.choice([0, 0, 0, -9, 9, 14, -14])),
        mirror=bool(rng.random() < 0.4),
        jpeg_quality=int(rng.integers(78, 93)),
    )
    language = LANGUAGES[number % len(LANGUAGES)]
    badges, tails = (_BADGES_EN, _TAILS_EN) if language == "en" else (_BADGES_KO, _TAILS_KO)
    order = rng.permutation(FIELDS[:-1]).tolist()
    order.insert(int(rng.integers(3, len(FIELDS))), "category")
    title = TitleHabit(
        language=language,
        badges=tuple(rng.choice(badges, 2, replace=False).tolist()),
        tails=tuple(rng.choice(tails, 3, replace=False).tolist()),
        order=tuple(order),
        separator=str(rng.choice([" ", " ", " ", " / ", ", ", "_", " | "])),
        synonym=int(rng.integers(3)),
        repeats=bool(rng.random() < 0.35),
        shows_code=bool(rng.random() < 0.5),
        shows_name=bool(rng.random() < 0.3),
    )
    return Seller(name, photo, title)


def styled(seed: int, own: int, sellers: int, strength: float, rng: np.random.Generator) -> tuple[Seller, Seller]:
    """Draws the sellers whose styles an offer of seller `own` has: of its photos and, independently, of its title.

    strength   probability of `own`; otherwise any of the `sellers` sellers
    """
    photo, title = (own if rng.random() < strength else int(rng.integers(sellers)) for _ in range(2))
    return seller(seed, photo), seller(seed, title)
