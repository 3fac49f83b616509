"""Titles of documents, and queries as shoppers type them: clean ones, hard ones and flawed ones."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

import numpy as np

from shoplens.synthetic.catalogue import Design
from shoplens.synthetic.raw_records.hard_texts import hard_text
from shoplens.synthetic.raw_records.personal_data import one
from shoplens.synthetic.raw_records.settings import RawRecords
from shoplens.synthetic.raw_records.text_flaws import Text, flawed
from shoplens.synthetic.raw_records.text_shares import BROKEN, is_clear, shares
from shoplens.synthetic.sellers import seller
from shoplens.synthetic.titles import clean_titles, facts, seller_title
from shoplens.synthetic.vocabulary import Word

SOURCES = {"shop": 0.45, "blog": 0.3, "cafe": 0.15, "news": 0.1}
"""Where documents come from, with their shares."""
POPULAR = "선물 추천"
"""The query that leads to very many documents. It asks for nothing that a product could lack."""
_SELLERS = 96
_TRIES = 20
_MOST_OF_ONE = 50_000
"""More queries for one product than there are."""
_SEASONS = ("봄", "여름", "가을", "겨울", "간절기", "환절기")
_BLOG = (
    "{0} {1} 솔직 후기", "내돈내산 {2} {1} 리뷰", "{3}에 쓰기 좋은 {0} {1} 추천", "{0} {1} 한달 써본 느낌 :)", "요즘 매일 쓰는 {4} {1}",
    "{2} {0} {1} 개봉기 (사진 많음)", "{4} {1} 고르는 방법",
)  # fmt: skip
_CAFE = (
    "{0} {1} 어디꺼 사세요? ㅠㅠ", "{1} 추천 부탁드려요~", "이 {0} {1} 어때요 ㅎㅎ", "{2} {1} 써보신 분!", "[나눔] {0} {1} 드립니다",
    "{4} {1} 세탁 질문이요", "주말에 산 {0} {1} 자랑 ㅋㅋ",
)  # fmt: skip
_NEWS = (
    "{2}, {4} {1} 신제품 출시", "올 {3} 유행은 '{0} {1}'", "{2} {1} 판매 늘어", "[기획] {4} {1} 시장의 변화", "{0} {1} 찾는 소비자 늘었다",
)  # fmt: skip
_TEMPLATES = {"blog": _BLOG, "cafe": _CAFE, "news": _NEWS}


def title(design: Design, source: str, settings: RawRecords, rng: np.random.Generator) -> Text:
    """A title of a document of one of `SOURCES`."""
    base = _clear_title(design, source, rng)
    if rng.random() < settings.text_flaws:
        return flawed(base, _english_title(design, rng), rng)
    if rng.random() < settings.hard_texts:
        base = _with_hard(base, rng)
    return Text(base)


def query(design: Design, settings: RawRecords, rng: np.random.Generator) -> Text:
    """A query for a product. One in English has the flaw `characters`: the specification drops it."""
    if rng.random() < settings.text_flaws:
        return flawed(_clear_query(design, rng), _english_query(design, rng), rng)
    if rng.random() < 0.06:
        english = _english_query(design, rng)
        if shares(english)["latin"] >= BROKEN:
            return Text(english, "characters", "latin", True)
    text = _clear_query(design, rng)
    return Text(_with_hard(text, rng) if rng.random() < settings.hard_texts else text)


def many_queries(design: Design, count: int, rng: np.random.Generator) -> Iterator[Text]:
    """Distinct clear queries for one product, fewer than `count` only if it has no more words."""
    words = [one(rng, *word.ko) for field, known in facts(design).items() if field != "category" for word in known]
    seen: set[str] = set()
    for _ in range(20 * min(count, _MOST_OF_ONE)):
        if len(seen) == count:
            return
        chosen = rng.permutation(words)[: int(rng.integers(1, 5))].tolist()
        category = one(rng, *design.leaf.words.ko)
        text = " ".join([*chosen, category, *([one(rng, *_ENDINGS)] if rng.random() < 0.5 else [])])
        if text not in seen and is_clear(text):
            seen.add(text)
            yield Text(text)


def _clear_title(design: Design, source: str, rng: np.random.Generator) -> str:
    for _ in range(_TRIES):
        if source == "shop":
            style = seller(0, int(rng.integers(_SELLERS)))
            text = seller_title(design, style, rng) if style.title.language != "en" else ""
        else:
            known = facts(design)
            parts = (known["colour"], known["category"], known["brand"], [Word("", _SEASONS)], known["material"])
            said = [one(rng, *part[0].ko) for part in parts]
            text = one(rng, *_TEMPLATES[source]).format(*said)
        if text and is_clear(text):
            return text
    return clean_titles(design)["title_ko"]


def _english_title(design: Design, rng: np.random.Generator) -> str:
    for _ in range(_TRIES):
        style = seller(0, int(rng.integers(_SELLERS)))
        text = seller_title(design, style, rng) if style.title.language == "en" else ""
        if shares(text)["latin"] >= BROKEN:
            return text
    return clean_titles(design)["title_en"]


_ENDINGS = ("추천", "후기", "가격", "코디", "브랜드", "세일", "인기", "순위", "사이즈")


def _clear_query(design: Design, rng: np.random.Generator) -> str:
    known = facts(design)
    category = one(rng, *design.leaf.words.ko)

    def said(field: str) -> str:
        words = known[field]
        return one(rng, *words[int(rng.integers(len(words)))].ko)

    match int(rng.integers(12)):
        case 0 | 1:
            text = category
        case 2 | 3 | 4:
            text = f"{said('colour')} {category}"
        case 5 | 6:
            text = f"{said('brand')} {category}"
        case 7:
            text = f"{said('material')} {category}"
        case 8:
            text = f"{said('group')} {said('colour')} {category}"
        case 9:
            text = f"{said('shape')} {category}" if known["shape"] else category
        case 10:
            text = f"{category} {one(rng, *_ENDINGS)}"
        case _:
            text = f"{said('colour')} {said('pattern')} {said('material')} {category}"
    habit = rng.random()
    if habit < 0.08:
        text = text.replace(" ", "")
    elif habit < 0.16:
        text = _mistyped(text, rng)
    return text if is_clear(text) else design.leaf.words.korean


def _english_query(design: Design, rng: np.random.Generator) -> str:
    known = facts(design)
    word = known[one(rng, "colour", "material", "brand")][0].en
    return one(rng, f"{word} {design.leaf.words.en}", design.leaf.words.en).lower()


def _mistyped(text: str, rng: np.random.Generator) -> str:
    """With one slip: ㅐ for ㅔ or ㅔ for ㅐ, or a final consonant left out."""
    places = [at for at, c in enumerate(text) if "가" <= c <= "힣"]
    for at in rng.permutation(places).tolist():
        parts = list(unicodedata.normalize("NFD", text[at]))
        swapped = {"\u1162": "\u1166", "\u1166": "\u1162"}.get(parts[1])
        if swapped:
            parts[1] = swapped
        elif len(parts) == 3:
            del parts[2]
        else:
            continue
        return text[:at] + unicodedata.normalize("NFC", "".join(parts)) + text[at + 1 :]
    return text


def _with_hard(text: str, rng: np.random.Generator) -> str:
    for _ in range(_TRIES):
        piece = hard_text(rng)
        made = one(rng, f"{text} {piece}", f"{piece} {text}")
        if is_clear(made):
            return made
    return text
