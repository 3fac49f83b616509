"""Products that a figure can wear: leaves of the shop with the attributes that a photo of an outfit shows."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shoplens.synthetic.departments import LEAVES_OF_SHOP, Leaf
from shoplens.synthetic.vocabulary import COLOURS, PATTERNS, Word, words


@dataclass(frozen=True)
class Place:
    """Where the square drawing of a product lies on the square drawing of the figure, in fractions of the latter.

    left, top       corner of the drawing, at a figure of usual width
    width, height   of the drawing
    """

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Piece:
    """A kind of product that is worn.

    part     the part of the outfit
    word     the word for the part that a user types
    leaf     the shop's leaf category, with the attributes that a photo of an outfit shows
    place    of the drawing; of shoes and bags, which follow feet and hands, the place at foot or hand (0, 0)
    motifs   size of the pattern, as a multiple of the shop's; small products need large motifs
    """

    part: str
    word: Word
    leaf: Leaf
    place: Place
    motifs: float = 1.0


PARTS = {
    part: words(word)[0]
    for part, word in {
        "top": "top=상의",
        "skirt": "skirt=치마/스커트",
        "trousers": "trousers=바지/팬츠",
        "dress": "dress=원피스/드레스",
        "shoes": "shoes=신발/슈즈",
        "bag": "bag=가방/백",
    }.items()
}
KEYS = {
    "colour": "색상",
    "pattern": "패턴",
    "sleeve": "소매기장",
    "neckline": "넥라인",
    "collar": "옷깃",
    "length": "총기장",
    "silhouette": "스커트스타일",
    "fit": "핏",
    "height": "발목높이",
    "toe": "토스타일",
    "heel": "굽높이",
    "body": "가방형태",
    "strap": "손잡이",
}
"""Attributes that a photo of an outfit shows, in English and Korean."""
OTHER_KEYS = {
    "brand": "브랜드",
    "accent colour": "포인트색상",
    "material": "소재",
    "group": "대상",
    "model code": "모델명",
}
"""Attributes of products that are not judged: a photo shows them little or not at all."""
RARE = frozenset(
    {"purple", "heart", "sleeveless", "turtleneck", "band collar", "long", "maxi", "cropped", "pencil", "wide fit"}
    | {"knee-high", "pointed toe", "high heel", "bucket", "chain strap", "long handles"}
)
"""Values that few garments have, one or more a key."""

_SLEEVES = words("short sleeve=반팔", "long sleeve=긴팔/롱슬리브", "sleeveless=민소매/나시")
_NECKLINES = words("round neck=라운드넥", "v-neck=브이넥", "square neck=스퀘어넥", "turtleneck=터틀넥/폴라")
_TOES = words("round toe=라운드토/라운드코", "pointed toe=포인티드토/뾰족코", "square toe=스퀘어토/사각코")
_TOP = Place(0.2765, 0.126, 0.447, 0.40)
_LEAVES = {leaf.id: leaf for leaf in LEAVES_OF_SHOP}


def _piece(part: str, leaf: str, place: Place, shapes: dict[str, tuple[Word, ...]], motifs: float = 1.0) -> Piece:
    return Piece(part, PARTS[part], replace(_LEAVES[leaf], shapes=shapes), place, motifs)


TOPS = (
    _piece("top", "t-shirts", _TOP, {"sleeve": _SLEEVES, "neckline": _NECKLINES}),
    _piece("top", "shirts", _TOP, {"sleeve": _SLEEVES, "collar": _LEAVES["shirts"].shapes["collar"]}),
    _piece("top", "sweaters", _TOP, {"neckline": _NECKLINES}),
)
SKIRT = _piece(
    "skirt",
    "skirts",
    Place(0.25, 0.302, 0.50, 0.56),
    {
        "length": words("mini=미니", "midi=미디", "long=롱"),
        "silhouette": words("a-line=A라인", "pleated=플리츠/주름", "tiered=티어드/캉캉", "pencil=H라인/펜슬"),
    },
)
TROUSERS = _piece(
    "trousers",
    "trousers",
    Place(0.27, 0.293, 0.46, 0.65),
    {
        "fit": _LEAVES["trousers"].shapes["fit"],
        "length": words("full length=긴바지/롱", "ankle length=9부/앵클", "cropped=7부/크롭"),
    },
)
DRESS = _piece(
    "dress",
    "dresses",
    Place(0.16, 0.116, 0.68, 0.73),
    {
        "sleeve": _SLEEVES,
        "length": words("mini=미니", "midi=미디", "maxi=맥시"),
        "neckline": _NECKLINES[:3],
    },
)
SHOES = (
    _piece(
        "shoes",
        "sneakers",
        Place(-0.046, -0.149, 0.19, 0.20),
        {"height": words("low-top=로우탑", "high-top=하이탑")},
        2.2,
    ),
    _piece(
        "shoes",
        "boots",
        Place(-0.069, -0.208, 0.19, 0.25),
        {"height": words("ankle=앵클", "mid-calf=미들", "knee-high=니하이/롱"), "toe": _TOES},
        1.8,
    ),
    _piece(
        "shoes",
        "heels",
        Place(-0.037, -0.156, 0.19, 0.19),
        {"heel": words("low heel=로우힐/3cm", "mid heel=미들힐/5cm", "high heel=하이힐/9cm"), "toe": _TOES},
        2.2,
    ),
)
BAGS = (
    _piece(
        "bag",
        "handbags",
        Place(-0.115, -0.045, 0.23, 0.23),
        {
            "strap": _LEAVES["handbags"].shapes["strap"],
            "body": words("boxy=사각형", "half-moon=반달형", "bucket=버킷형"),
        },
        1.5,
    ),
    _piece("bag", "tote-bags", Place(-0.125, -0.05, 0.25, 0.26), dict(_LEAVES["tote-bags"].shapes), 1.3),
)
PIECES = (*TOPS, SKIRT, TROUSERS, DRESS, *SHOES, *BAGS)


def values(piece: Piece) -> dict[str, tuple[Word, ...]]:
    """The values of every judged attribute of a piece."""
    colours = tuple(colour.word for colour in COLOURS.values())
    return {"colour": colours, "pattern": tuple(PATTERNS.values()), **piece.leaf.shapes}


VALUES = frozenset(word.en for piece in PIECES for known in values(piece).values() for word in known)
