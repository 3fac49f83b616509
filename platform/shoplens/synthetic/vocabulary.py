"""Vocabulary of the shop in English and Korean: colours, patterns, materials and brands."""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Word:
    """A value in English (`en`) and in Korean with synonyms (`ko`)."""

    en: str
    ko: tuple[str, ...]

    @property
    def korean(self) -> str:
        """The usual Korean word."""
        return self.ko[0]


@dataclass(frozen=True)
class Colour:
    """A named colour; `rgb` in 0..255."""

    word: Word
    rgb: RGB


@dataclass(frozen=True)
class Material:
    """A material: strengths of highlights (`gloss`) and texture (`grain`) in 0..1, and its effect on the price (`premium`)."""

    word: Word
    texture: str
    grain: float
    gloss: float
    premium: float
    seasons: tuple[str, ...] = ()


def words(*pairs: str) -> tuple[Word, ...]:
    """`"long sleeve=긴팔/롱슬리브"` -> `Word("long sleeve", ("긴팔", "롱슬리브"))`, for each pair."""
    return tuple(Word(en, tuple(ko.split("/"))) for en, ko in (pair.split("=") for pair in pairs))


COLOURS = {
    en: Colour(Word(en, tuple(ko.split("/"))), rgb)
    for en, ko, rgb in [
        ("black", "블랙/검정", (38, 38, 42)),
        ("white", "화이트/흰색", (243, 242, 238)),
        ("grey", "그레이/회색", (146, 149, 154)),
        ("red", "레드/빨강", (200, 38, 44)),
        ("pink", "핑크/분홍", (238, 152, 178)),
        ("orange", "오렌지/주황", (236, 126, 42)),
        ("yellow", "옐로우/노랑", (244, 202, 66)),
        ("beige", "베이지", (221, 199, 165)),
        ("brown", "브라운/갈색", (122, 78, 48)),
        ("green", "그린/초록", (52, 142, 84)),
        ("khaki", "카키", (122, 124, 78)),
        ("mint", "민트", (152, 218, 198)),
        ("sky blue", "스카이블루/하늘색", (142, 194, 232)),
        ("blue", "블루/파랑", (42, 92, 198)),
        ("navy", "네이비/남색", (34, 44, 88)),
        ("purple", "퍼플/보라", (124, 82, 168)),
    ]
}
PATTERNS = {
    en: Word(en, tuple(ko.split("/")))
    for en, ko in [
        ("plain", "무지/솔리드"),
        ("polka dot", "도트/땡땡이"),
        ("striped", "스트라이프/줄무늬"),
        ("checked", "체크/체크무늬"),
        ("floral", "플라워/꽃무늬"),
        ("star", "별무늬/스타"),
        ("heart", "하트/하트무늬"),
        ("leaf print", "나뭇잎/리프"),
    ]
}
SUMMER, WINTER = ("spring", "summer"), ("autumn", "winter")
MATERIALS = {
    en: Material(Word(en, tuple(ko.split("/"))), texture, grain, gloss, premium, seasons)
    for en, ko, texture, grain, gloss, premium, seasons in [
        ("cotton", "코튼/면", "weave", 0.05, 0.0, -0.1, ()),
        ("linen", "린넨/마", "slub", 0.075, 0.0, 0.2, SUMMER),
        ("wool", "울/모직", "felt", 0.13, 0.0, 0.5, WINTER),
        ("knit", "니트/뜨개", "knit", 0.16, 0.0, 0.1, WINTER),
        ("denim", "데님/청", "twill", 0.15, 0.0, 0.1, ()),
        ("satin", "새틴/공단", "smooth", 0.02, 0.75, 0.3, SUMMER),
        ("corduroy", "코듀로이/골덴", "ribs", 0.16, 0.05, 0.1, WINTER),
        ("leather", "가죽/소가죽", "hide", 0.08, 0.6, 0.6, ()),
        ("suede", "스웨이드/세무", "felt", 0.10, 0.0, 0.4, WINTER),
        ("canvas", "캔버스/캔버스천", "weave", 0.13, 0.0, -0.2, SUMMER),
        ("nylon", "나일론", "smooth", 0.03, 0.35, -0.1, ()),
        ("velvet", "벨벳/비로드", "felt", 0.05, 0.35, 0.4, WINTER),
        ("oak wood", "원목/오크", "grain", 0.16, 0.12, 0.4, ()),
        ("steel", "스틸/스텐", "brushed", 0.05, 0.9, 0.2, ()),
        ("plastic", "플라스틱/PP", "smooth", 0.01, 0.45, -0.5, ()),
        ("ceramic", "도자기/세라믹", "smooth", 0.02, 0.8, 0.1, ()),
        ("enamel", "법랑/에나멜", "speckle", 0.07, 0.7, 0.1, ()),
        ("cast iron", "주물/무쇠", "hide", 0.09, 0.25, 0.5, WINTER),
        ("paper", "종이/한지", "slub", 0.07, 0.0, -0.3, ()),
    ]
}

BRANDS = words(
    "Haneul=하늘", "Monolog=모노로그", "Dasom=다솜", "Narae=나래", "Olive & Co=올리브앤코", "Purum=푸름",
    "Saebyeok=새벽", "Lumi=루미", "Baram=바람", "Nordhaus=노르드하우스", "Onda=온다", "Maru=마루",
    "Cotton Lab=코튼랩", "Yeoul=여울", "Bluebird=블루버드", "Gaon=가온", "Standard 9=스탠다드나인", "Miru=미루",
    "Root & Leaf=루트앤리프", "Ssol=쏠", "Arang=아랑", "Peony=피오니", "Dandi=단디", "Hoban=호반", "Kuru=쿠루", "Mellow=멜로우",
    "Sandeul=산들", "Tori=토리", "Nuri=누리", "Vela=벨라", "Jaru=자루", "Ondo=온도",
)  # fmt: skip
