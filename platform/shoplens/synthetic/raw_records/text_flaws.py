"""Texts with a flaw, and what the specification does with them by default."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from shoplens.synthetic.raw_records.personal_data import KINDS, one, personal_text
from shoplens.synthetic.raw_records.text_shares import BROKEN, is_clear, shares

TEXT_FLAWS = {
    "personal_data": 0.32,
    "offensive": 0.15,
    "characters": 0.15,
    "script": 0.12,
    "noise": 0.09,
    "repetition": 0.08,
    "language": 0.05,
    "empty": 0.04,
}
"""Flaws and their shares. Each text has one at the most. Queries of `useless` have the flaw `useless` instead."""


class Text(NamedTuple):
    """A title or a query.

    flaw     one of `TEXT_FLAWS`, `useless`, or None
    detail   the kind of personal data; profanity or adult; jamo, latin or sign; the script; the noise word; the repeated unit;
             the language; the useless word
    dropped  whether the rules of the specification drop it with their default settings
    about    whether it says what the product is
    """

    text: str
    flaw: str | None = None
    detail: str = ""
    dropped: bool = False
    about: bool = True


def flawed(base: str, english: str, rng: np.random.Generator) -> Text:
    """A text with a flaw, drawn by the shares of `TEXT_FLAWS`.

    base      a clear text about the product in Korean
    english   the product in English, mostly Latin letters
    """
    flaw = str(rng.choice(list(TEXT_FLAWS), p=list(TEXT_FLAWS.values())))
    return _characters(english, rng) if flaw == "characters" else _MAKERS[flaw](base, rng)


def _personal(base: str, rng: np.random.Generator) -> Text:
    kind = str(rng.choice(list(KINDS)))
    while True:
        piece, dropped = personal_text(kind, rng)
        alone = rng.random() < 0.2
        text = piece if alone else one(rng, f"{base} {piece}", f"{piece} {base}")
        if dropped or is_clear(text):
            return Text(text, "personal_data", kind, dropped, not alone)


_PROFANITY = ("시발", "씨발", "병신", "지랄", "개새끼")
_INITIALS = ("ㅅㅂ", "ㅂㅅ", "ㅈㄹ", "ㄲㅈ")
_ADULT = ("섹스", "포르노", "야동")
_JAMO = {"시발": "ㅅㅣㅂㅏㄹ", "씨발": "ㅆㅣㅂㅏㄹ", "병신": "ㅂㅕㅇㅅㅣㄴ", "섹스": "ㅅㅔㄱㅅㅡ"}


def _offensive(base: str, rng: np.random.Generator) -> Text:
    if rng.random() < 0.35:
        word, kind = one(rng, *_ADULT), "adult"
    else:
        word, kind = one(rng, *_PROFANITY), "profanity"
    match int(rng.integers(6)):
        case 0:
            word = word[0] + one(rng, *"123*.-_!~") + word[1:]
        case 1:
            word = " ".join(word)
        case 2:
            word, kind = one(rng, *_INITIALS), "profanity"
        case 3:
            word, kind = (one(rng, "fuck", "bullshit"), "profanity") if kind == "profanity" else ("porn", "adult")
        case 4 if word in _JAMO:
            word = _JAMO[word]
        case _:
            pass
    while not is_clear(text := one(rng, f"{base} {word}", f"{word} {base}", f"이거 {word} 뭐냐 {base}")):
        base += " 후기"
    return Text(text, "offensive", kind, True)


_CHAT = ("ㅇㅈ", "ㄹㅇ", "ㄱㅅ", "ㅊㅋ", "ㅇㅋ", "ㄱㄱ", "ㄴㄴ", "ㅎㅇ", "ㅠㅠ", "ㅋㅋ", "ㅎㅎ", "ㅇㄷ")
_SIGNS = "★☆♥♡◆◇■□●○▶◀※→←!?#&%^/|=+"


def _characters(english: str, rng: np.random.Generator) -> Text:
    """Too much jamo, signs or Latin letters, and little else."""
    match int(rng.integers(3)):
        case 0 if shares(english)["latin"] >= BROKEN:
            return Text(english, "characters", "latin", True)
        case 1:
            text = " ".join(rng.permutation(_CHAT)[: int(rng.integers(2, 6))].tolist())
            return Text(text + one(rng, "", " 굿", " 이거"), "characters", "jamo", True, False)
        case _:
            signs = "".join(rng.permutation(list(_SIGNS))[: int(rng.integers(5, 12))].tolist())
            return Text(one(rng, f"{signs} 특가", f"세일 {signs}", signs), "characters", "sign", True, False)


_SCRIPTS = {
    "Han": ("新商品", "茶器", "大人氣", "中國", "韓服", "特價", "白", "連衣裙 黑色"),
    "Hiragana": ("かわいい", "おすすめ", "きれい", "あたたかい"),
    "Katakana": ("ワンピース", "スニーカー", "バッグ", "マグカップ"),
    "Cyrillic": ("платье", "красный", "сумка", "обувь"),
    "Arabic": ("فستان", "حقيبة", "أحمر"),
    "Thai": ("กระเป๋า", "รองเท้า", "เสื้อ"),
    "Devanagari": ("जूते", "लाल", "कपड़े"),
    "Greek": ("φόρεμα", "τσάντα"),
}


def _script(base: str, rng: np.random.Generator) -> Text:
    script = str(rng.choice(list(_SCRIPTS)))
    word = one(rng, *_SCRIPTS[script])
    text = one(rng, f"{word} {base}", f"{base} {word}", word)
    return Text(text, "script", script, True, text != word)


_LANGUAGES: dict[str, tuple[tuple[str, ...], ...]] = {
    "fr": (
        ("Robe longue", "Chemise à manches courtes", "Sac à main", "Lampe de chevet", "Casserole avec couvercle"),
        ("de très bonne qualité", "facile à nettoyer", "au meilleur prix", "avec une garantie de deux ans"),
        ("livraison gratuite", "pour toute la famille", "nouvelle collection d'été", "idée de cadeau pour Noël"),
    ),
    "vi": (
        ("Áo sơ mi dài tay", "Túi xách da thật", "Đèn ngủ để bàn", "Nồi cơm điện", "Giày thể thao"),
        ("chất lượng cao", "giá rẻ nhất", "dễ dàng vệ sinh", "bảo hành hai năm"),
        ("miễn phí vận chuyển", "cho cả gia đình", "hàng mới về mùa hè", "làm quà tặng sinh nhật"),
    ),
    "es": (
        ("Vestido largo", "Camisa de manga corta", "Bolso de mano", "Lámpara de noche", "Olla con tapa"),
        ("de muy buena calidad", "fácil de limpiar", "al mejor precio", "con garantía de dos años"),
        ("envío gratis", "para toda la familia", "nueva colección de verano", "regalo ideal para Navidad"),
    ),
    "de": (
        ("Langes Kleid", "Kurzarmhemd", "Handtasche", "Nachttischlampe", "Kochtopf mit Deckel"),
        ("in sehr guter Qualität", "leicht zu reinigen", "zum besten Preis", "mit zwei Jahren Garantie"),
        ("kostenloser Versand", "für die ganze Familie", "neue Sommerkollektion", "schönes Geschenk zu Weihnachten"),
    ),
    "id": (
        ("Gaun panjang", "Kemeja lengan pendek", "Tas tangan", "Lampu tidur", "Panci dengan tutup"),
        ("kualitas sangat bagus", "mudah dibersihkan", "dengan harga termurah", "bergaransi dua tahun"),
        ("gratis ongkos kirim", "untuk seluruh keluarga", "koleksi terbaru musim panas", "hadiah untuk ulang tahun"),
    ),
    "it": (
        ("Vestito lungo", "Camicia a maniche corte", "Borsa a mano", "Lampada da comodino", "Pentola con coperchio"),
        ("di ottima qualità", "facile da pulire", "al miglior prezzo", "con garanzia di due anni"),
        ("spedizione gratuita", "per tutta la famiglia", "nuova collezione estiva", "idea regalo per Natale"),
    ),
}
"""Titles in three parts. Each has 20 Latin letters and more, and none tells what the photos show."""


def _language(base: str, rng: np.random.Generator) -> Text:
    code = str(rng.choice(list(_LANGUAGES)))
    text = " ".join(one(rng, *part) for part in _LANGUAGES[code])
    return Text(one(rng, text, text, text.lower(), text.upper()), "language", code, True, False)


_NOISE = {
    "로또": ("로또 1083회 당첨번호", "로또 명당", "로또당첨번호", "이번주 로또"),
    "주가": ("전자 주가 전망", "주가지수", "오늘 주가", "반도체 주가"),
    "영수증": ("영수증 재발행", "현금 영수증 조회", "영수증사진"),
    "코로나 확진자": ("코로나 확진자 수", "오늘 코로나 확진자", "서울 코로나 확진자 동선"),
    "지원금": ("소상공인 지원금 신청", "재난지원금", "지원금 조회", "청년 지원금"),
    "악보": ("피아노 악보", "악보 다운로드", "바이올린 악보 무료"),
}
"""Texts that are searched for often, with the noise words that the specification lists."""


def _noise(base: str, rng: np.random.Generator) -> Text:
    word = str(rng.choice(list(_NOISE)))
    return Text(one(rng, *_NOISE[word]), "noise", word, True, False)


USELESS = {
    "운세": ("오늘의 운세", "띠별 운세", "운세 무료", "이번주 운세 보기"),
    "환율": ("환율 계산기", "달러 환율", "오늘 환율", "엔화 환율 전망"),
    "날씨": ("내일 날씨", "주말 날씨 예보", "날씨 미세먼지", "서울 날씨"),
}
"""Texts that are searched for often, with noise words that are not listed: a curation can learn them from scores."""


def useless(rng: np.random.Generator) -> Text:
    """A query with a word of `USELESS`, which leads to any photo."""
    word = str(rng.choice(list(USELESS)))
    return Text(one(rng, *USELESS[word]), "useless", word, about=False)


_REPEATED = ("최고", "대박", "강추", "ㅋ", "ㅎ", "ㅠ", "!", "~", "★", "♥", "^^")
_WORDS = ("추천", "세일", "특가")


def _repetition(base: str, rng: np.random.Generator) -> Text:
    """Kept, but shorter: what is repeated does not count against the text."""
    times = int(rng.integers(4, 12))
    unit = one(rng, *_REPEATED, *_WORDS)
    run = " ".join([unit] * times) if unit in _WORDS else unit * times
    while not is_clear(f"{base} {unit * 2}"):
        base += " 후기"
    return Text(one(rng, f"{base} {run}", f"{run} {base}"), "repetition", unit)


def _empty(base: str, rng: np.random.Generator) -> Text:
    return Text(one(rng, "", " ", "   ", "\u200b", "\u3000", "\u00a0 ", "\u2060\ufeff"), "empty", "", True, False)


_MAKERS: dict[str, Callable[[str, np.random.Generator], Text]] = {
    "personal_data": _personal,
    "offensive": _offensive,
    "script": _script,
    "noise": _noise,
    "repetition": _repetition,
    "language": _language,
    "empty": _empty,
}
