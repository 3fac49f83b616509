"""Invented personal data in the formats that official descriptions give, in disguises. Not made from the detectors' patterns.

Sources: python-stdnum for resident numbers; passport.go.kr; libphonenumber's metadata for KR; UPU S10; ISO/IEC 7812-1; addresses
of city halls and of public offices. Licences, accounts, plates, business and corporate numbers: the forms in use.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import NamedTuple

from shoplens.curation.text.personal_data.found import Confidence

LOW, MID, HIGH = Confidence.LOW, Confidence.MID, Confidence.HIGH
TODAY = date(2026, 6, 1)
DASHES = ["-", "–", "—", "−", "﹣", "~", "〜", "ㅡ", "ᅳ", "·", "ㆍ", "・", "•", ".", "－", " "]
AREAS = "02 031 032 033 041 042 043 044 051 052 053 054 055 061 062 063 064 070 080 0502 0505 0507"
COMPANIES = "1522 1533 1544 1566 1577 1588 1599 1600 1644 1660 1661 1666 1668 1670 1688 1800 1833 1855 1877 1899"


class Example(NamedTuple):
    """A number in a text. `kinds`: any of them is right."""

    text: str
    number: str
    kinds: tuple[str, ...]
    confidence: Confidence


class Case(NamedTuple):
    """A number as it is, before a disguise. A `{}` in `frame` is its place."""

    number: str
    confidence: Confidence
    frame: str = "{}"


def digits(r: random.Random, count: int, first: str = "0123456789") -> str:
    return r.choice(first) + "".join(r.choices("0123456789", k=count - 1))


def weighted(number: str, weights: str) -> int:
    return sum(int(a) * int(b) for a, b in zip(number, weights, strict=True))


def _person(r: random.Random, groups: tuple[str, str], base: int) -> Case:
    birth = date(1930, 1, 1) + timedelta(days=r.randrange(35_000))
    old, young = groups
    head = f"{birth:%y%m%d}" + r.choice(old if birth.year < 2000 else young)
    body = head + digits(r, 5)
    check = (base - weighted(body, "234567892345") % 11) % 10
    form = r.choice(["checked", "random", "bare", "masked"])
    if form == "masked":
        return Case(f"{head[:6]}-{head[6]}{r.choice('*X') * 6}", MID)
    if form == "bare":
        return Case(f"{body}{check}", MID)
    number = f"{body}{check}" if form == "checked" else f"{head}{digits(r, 6)}"
    return Case(f"{number[:6]}{r.choice(DASHES)}{number[6:]}", HIGH if form == "checked" else MID)


def resident(r: random.Random) -> Case:
    return _person(r, ("12", "34"), 11)


def foreigner(r: random.Random) -> Case:
    return _person(r, ("56", "78"), 13)


def licence(r: random.Random) -> Case:
    parts = [digits(r, 2), digits(r, 6), digits(r, 2)]
    agency = str(r.choice([*range(11, 27), 28]))
    form = r.randrange(3)
    if form == 0:
        return Case("".join([agency, *parts]), MID, r.choice(["면허번호 {}", "운전면허: {}", "{} (면허)"]))
    if form == 1:
        return Case(f"{r.choice(['서울', '부산', '경기', '대구', '제주'])} {r.choice(DASHES[:-1]).join(parts)}", HIGH)
    return Case(r.choice(DASHES).join([agency, *parts]), HIGH)


def passport(r: random.Random) -> Case:
    letter = r.choice("MSRGD")
    if r.random() < 0.5:
        return Case(f"{letter}{digits(r, 3)}{r.choice('ABCDEFGHJKLMNPRSTUVWXYZ')}{digits(r, 4)}", HIGH)
    return Case(f"{letter}{digits(r, 8)}", HIGH if letter in "MR" else MID)


def mobile(r: random.Random) -> Case:
    gap = r.choice([*DASHES, ""])
    if r.random() < 0.8:
        trunk = r.choice(["010", "010", "010", "+82 10", "+82-10", "0082-10", "+82 (0)10"])
        return Case(gap.join([trunk, digits(r, 4), digits(r, 4)]), HIGH)
    return Case(
        gap.join(
            [r.choice(["011", "016", "017", "018", "019"]), digits(r, r.choice([3, 4]), "23456789"), digits(r, 4)]
        ),
        MID,
    )


def fixed(r: random.Random) -> Case:
    area = r.choice(AREAS.split())
    middle = 4 if area == "070" or area.startswith("050") else r.choice([3, 4])
    parts = [digits(r, middle, "23456789"), digits(r, 4)]
    if area.startswith("050") or r.random() < 0.6:
        return Case(r.choice(DASHES).join([area, *parts]), MID)
    if r.random() < 0.5:
        return Case(f"{area}){r.choice(['', ' '])}{'-'.join(parts)}", MID)
    return Case("".join([area, *parts]), MID, "전화 {}")


def company_phone(r: random.Random) -> Case:
    prefix = r.choice(COMPANIES.split())
    if r.random() < 0.5:
        return Case(f"{prefix}-{digits(r, 4, '3456789')}", MID)
    return Case(f"{prefix}{r.choice(DASHES)}{digits(r, 4)}", MID, r.choice(["고객센터 {}", "문의 {}", "{} 상담"]))


def waybill(r: random.Random) -> Case:
    form = r.randrange(3)
    if form == 0:
        body = digits(r, 11, "123456789")
        number = f"{body}{int(body) % 7}"
        return Case("-".join([number[:4], number[4:8], number[8:]]), MID)
    if form == 1:
        body = digits(r, 8)
        check = {10: 0, 11: 5}.get(11 - weighted(body, "86423597") % 11, 11 - weighted(body, "86423597") % 11)
        return Case(f"{r.choice('ECRLV')}{r.choice('ABEFGMS')}{body}{check}KR", HIGH)
    frame = r.choice(["운송장 {}", "송장번호 {}", "CJ대한통운 {}", "한진택배 {}", "로젠 {}", "등기 {}", "{} 배송조회"])
    return Case(digits(r, r.choice([10, 11, 12, 13, 14]), "13456"), HIGH, frame)


def address(r: random.Random) -> Case:
    place, number, confidence = r.choice(
        [
            ("서울특별시 중구 세종대로", "110", HIGH),
            ("서울 종로구 사직로8길", "60", HIGH),
            ("부산광역시 연제구 중앙대로", "1001", HIGH),
            ("대구 중구 공평로", "88", HIGH),
            ("인천광역시 남동구 정각로", "29", HIGH),
            ("대전 서구 둔산로", "100", HIGH),
            ("경기도 수원시 영통구 도청로", "30", HIGH),
            ("강원특별자치도 춘천시 중앙로", "1", HIGH),
            ("충북 청주시 상당구 상당로", "82", HIGH),
            ("전북특별자치도 전주시 완산구 효자로", "225", HIGH),
            ("전라남도 무안군 삼향읍 오룡길", "1", HIGH),
            ("경북 안동시 풍천면 도청대로", "455", HIGH),
            ("제주특별자치도 제주시 문연로", "6", HIGH),
            ("세종특별자치시 한누리대로", "2130", HIGH),
            ("경기 성남시 분당구 판교역로146번길", "20", HIGH),
            ("서울 강남구 역삼동", "736-1", HIGH),
            ("경기도 양평군 서종면 문호리", "산12-3", HIGH),
            ("서울 성동구 성수동1가", "685-20", HIGH),
            ("강남구 테헤란로", "152", MID),
            ("성남시 분당구 불정로", "6", MID),
            ("해운대구 우동", "1500", MID),
        ]
    )
    tail = r.choice(["", "", " 3층", ", 101동 1203호", " 2001호"])
    return Case(f"{place}{r.choice([' ', ' ', '' if place[-1] in '로동' else ' '])}{number}{tail}", confidence)


def email(r: random.Random) -> Case:
    local = r.choice(["hong", "kim.minsu", "lee_78", "park-99", "a1b2c3", "shop+kr"]) + digits(r, r.randint(1, 4))
    domain = r.choice(["naver.com", "gmail.com", "hanmail.net", "daum.net", "snu.ac.kr", "my-shop.co.kr"])
    form = r.randrange(4)
    if form == 0:
        return Case(f"{local}{r.choice(['(at)', '[at]', '골뱅이', ' @ '])}{domain}", MID)
    if form == 1:
        return Case(f"{local}{r.choice(['골뱅이', '@'])}{r.choice(['네이버', '다음', '지메일'])}닷컴", MID)
    return Case(f"{local}@{domain}", HIGH)


def url(r: random.Random) -> Case:
    domain = r.choice(
        ["naver.com", "my-shop.co.kr", "brand.store", "item.shop", "bit.ly", "t.me", "twitch.tv", "abc.io"]
    )
    path = r.choice(["", "/item/", "/?q="])
    path += digits(r, 5) if path else ""
    form = r.randrange(3)
    if form == 0:
        return Case(f"{r.choice(['http', 'https'])}://{domain}{path}", HIGH)
    if form == 1:
        return Case(f"www.{domain}{path}", HIGH)
    return Case(f"{domain}{path}" if domain != "t.me" else f"t.me/{digits(r, 5)}", MID)


def card(r: random.Random) -> Case:
    body = digits(r, 15, "3456")
    doubled = sum(sum(divmod(int(digit) * 2, 10)) for digit in body[::2]) + sum(map(int, body[1::2]))
    number = f"{body}{-doubled % 10}"
    if body[0] == "3" or r.random() < 0.3:
        return Case(number, MID)
    return Case(r.choice(DASHES).join(number[at : at + 4] for at in range(0, 16, 4)), HIGH)


def business(r: random.Random) -> Case:
    body = digits(r, 9, "123456789")
    check = -(weighted(body, "137137135") + int(body[8]) * 5 // 10) % 10
    number = f"{body}{check}"
    if r.random() < 0.3:
        return Case(number, HIGH, "사업자번호 {}")
    return Case(r.choice(DASHES).join([number[:3], number[3:5], number[5:]]), HIGH)


def corporate(r: random.Random) -> Case:
    body = f"{r.choice(['1101', '1301', '1801', '1201', '1701', '2001'])}{r.choice(['11', '21', '31'])}0{digits(r, 5)}"
    number = f"{body}{-weighted(body, '121212121212') % 10}"
    if r.random() < 0.3:
        return Case(number, HIGH, "법인등록번호 {}")
    return Case(f"{number[:6]}{r.choice(DASHES)}{number[6:]}", HIGH)


def account(r: random.Random) -> Case:
    bank = r.choice(["국민은행", "신한은행", "농협", "카카오뱅크", "우리은행", "하나은행", "새마을금고"])
    number = r.choice(
        [
            f"{digits(r, 6, '23456789')}-{digits(r, 2)}-{digits(r, 6)}",
            f"{digits(r, 3, '123456789')}-{digits(r, 3)}-{digits(r, 6)}",
            f"3333-{digits(r, 2)}-{digits(r, 7)}",
            digits(r, 14, "2"),
        ]
    )
    if r.random() < 0.5:
        return Case(number, MID, f"계좌 {bank} {{}}")
    return Case(number, LOW, f"{bank} {{}}")


def plate(r: random.Random) -> Case:
    number = (
        f"{digits(r, r.choice([2, 3]), '123456789')}{r.choice('가나다라마거너더러머하허호')}{digits(r, 4, '123456789')}"
    )
    return Case(number, MID, "차량번호 {}") if r.random() < 0.5 else Case(number, LOW)


KINDS: dict[str, tuple[tuple[str, ...], Callable[[random.Random], Case]]] = {
    "resident_number": (("resident_number",), resident),
    "foreigner_number": (("foreigner_number",), foreigner),
    "driver_licence": (("driver_licence",), licence),
    "passport": (("passport",), passport),
    "mobile phone": (("phone",), mobile),
    "fixed phone": (("phone",), fixed),
    "company's phone": (("phone",), company_phone),
    "waybill": (("waybill",), waybill),
    "address": (("address",), address),
    "email": (("email",), email),
    "url": (("url",), url),
    "card": (("card",), card),
    "business_number": (("business_number",), business),
    "corporate_number": (("corporate_number",), corporate),
    "account": (("account",), account),
    "plate": (("plate",), plate),
}
FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F) if chr(code) != "~"}


def disguised(r: random.Random, number: str) -> str:
    form = r.randrange(4)
    if form == 0:
        return number.translate(FULL_WIDTH).replace(" ", "\u3000")
    if form == 1:
        at = r.randrange(1, len(number))
        return number[:at] + r.choice("\u200b\u2060\ufeff\u00ad") + number[at:]
    return unicodedata.normalize("NFD", number) if form == 2 else number


def examples(kind: str, count: int, seed: int = 0) -> Iterator[Example]:
    r = random.Random(f"{kind} {seed}")
    kinds, case = KINDS[kind]
    for _ in range(count):
        made = case(r)
        before, after = r.choice(
            [("", ""), ("검정 운동화 ", ""), ("", " 입니다"), ("새 상품: ", " 팝니다"), ("(", ")")]
        )
        text = before + made.frame.replace("{}", disguised(r, made.number)) + after
        yield Example(text, made.number, kinds, made.confidence)
