"""Invented personal data in Korean texts, of every kind that the specification names, plain and in disguise.

Sources of the forms: the resident registration act and its check digit; the codes of licence agencies; passport.go.kr; the
numbering plan of Korea (libphonenumber); UPU S10; ISO/IEC 7812-1; the forms in use of addresses, accounts and plates.

`dropped` says what the specification does by default: it drops what has a sure form, or a common form beside a word that names
it. A bare form that other numbers share is only tagged.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import NamedTuple

import numpy as np

DASHES = ("-", "-", "-", "-", "–", "—", "−", "﹣", "~", "〜", "ㅡ", "ᅳ", "·", "ㆍ", "・", "•", ".", "－", " ")
"""What is typed for a hyphen between digits, the hyphen most often."""
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
_WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F) if chr(code) not in "~*"} | {0x20: 0x3000}

Maker = Callable[[np.random.Generator], "Datum"]


class Datum(NamedTuple):
    """A number or an address, with the words around it: `frame` has `{}` in its place.

    dropped   whether the specification drops a text with it
    """

    number: str
    dropped: bool = True
    frame: str = "{}"


def personal_text(kind: str, rng: np.random.Generator) -> tuple[str, bool]:
    """(text, dropped) with data of a kind of `KINDS`, in half of the cases in disguise."""
    made = KINDS[kind](rng)
    return made.frame.replace("{}", _disguised(made.number, rng)), made.dropped


def _disguised(number: str, rng: np.random.Generator) -> str:
    """In full-width characters, with an invisible character inside, or as it is."""
    form = rng.random()
    if form < 0.2:
        return number.translate(_WIDE)
    if form < 0.4:
        at = int(rng.integers(1, len(number)))
        return number[:at] + one(rng, *_INVISIBLE) + number[at:]
    return number


def one(rng: np.random.Generator, *of: str) -> str:
    return of[int(rng.integers(len(of)))]


def digits(rng: np.random.Generator, count: int, first: str = "0123456789") -> str:
    return one(rng, *first) + "".join(map(str, rng.integers(0, 10, count - 1).tolist()))


def _joined(rng: np.random.Generator, *parts: str) -> str:
    return one(rng, *DASHES).join(parts)


def weighted(number: str, weights: str) -> int:
    return sum(int(a) * int(b) for a, b in zip(number, weights, strict=True))


def _person(rng: np.random.Generator, old: str, young: str, base: int, words: tuple[str, ...]) -> Datum:
    birth = date(1940, 1, 1) + timedelta(days=int(rng.integers(27_000)))
    head = f"{birth:%y%m%d}" + one(rng, *(old if birth.year < 2000 else young))
    body = head + digits(rng, 5)
    check = (base - weighted(body, "234567892345") % 11) % 10
    wrong = (check + int(rng.integers(1, 10))) % 10
    match one(rng, "checked", "random", "bare", "named", "masked", "low"):
        case "checked":
            return Datum(_joined(rng, head[:6], f"{head[6]}{body[7:]}{check}"))
        case "random":  # since October 2020 the last six digits are random
            return Datum(_joined(rng, head[:6], f"{head[6]}{digits(rng, 6)}"))
        case "bare":
            return Datum(f"{body}{check}")
        case "named":
            return Datum(f"{body}{wrong}", frame=f"{one(rng, *words)} {{}}")
        case "masked":
            return Datum(f"{head[:6]}-{head[6]}{one(rng, '*', 'X') * 6}")
        case _:
            return Datum(f"{body}{wrong}", False)


def _resident(rng: np.random.Generator) -> Datum:
    return _person(rng, "12", "34", 11, ("주민등록번호", "주민번호"))


def _foreigner(rng: np.random.Generator) -> Datum:
    return _person(rng, "56", "78", 13, ("외국인등록번호",))


def _licence(rng: np.random.Generator) -> Datum:
    agency = str(rng.choice([*range(11, 27), 28]))
    parts = digits(rng, 2), digits(rng, 6), digits(rng, 2)
    match int(rng.integers(4)):
        case 0:
            return Datum(agency + "".join(parts), frame=one(rng, "면허번호 {}", "운전면허증 {}", "{} 운전면허"))
        case 1:
            return Datum(f"{one(rng, '서울', '부산', '경기', '대구', '제주', '강원')} {'-'.join(parts)}")
        case 2:
            return Datum(agency + "".join(parts), False)
        case _:
            return Datum(_joined(rng, agency, *parts))


def _passport(rng: np.random.Generator) -> Datum:
    frame = one(rng, "{}", "여권번호 {}", "여권 {}")
    if rng.random() < 0.5:
        return Datum(
            f"{one(rng, *'MSRGD')}{digits(rng, 3)}{one(rng, *'ABCDEFGHJKLMNPRSTUVWXYZ')}{digits(rng, 4)}", frame=frame
        )
    return Datum(f"{one(rng, *'MSRGDO')}{digits(rng, 8)}", frame=frame)


_AREAS = ("02", *map("0{}".format, (31, 32, 33, 41, 42, 43, 44, 51, 52, 53, 54, 55, 61, 62, 63, 64)))
_COMPANIES = tuple(
    map(str, (1522, 1533, 1544, 1566, 1577, 1588, 1599, 1600, 1644, 1661, 1666, 1670, 1688, 1800, 1833, 1855, 1877))
)


def _phone(rng: np.random.Generator) -> Datum:
    frame = one(rng, "{}", "문의 {}", "연락처 {}", "{} 전화주세요")
    last = digits(rng, 4)
    gap = one(rng, *DASHES, "")
    match int(rng.integers(10)):
        case 0 | 1 | 2:
            return Datum(gap.join(["010", digits(rng, 4, "23456789"), last]), frame=frame)
        case 3:
            head = one(rng, "+82 10", "+82-10", "0082-10", "+82 (0)10", "+8210")
            return Datum("-".join([head, digits(rng, 4, "23456789"), last]), frame=frame)
        case 4:
            legacy = one(rng, "011", "016", "017", "018", "019")
            return Datum(_joined(rng, legacy, digits(rng, int(rng.integers(3, 5)), "23456789"), last), frame=frame)
        case 5:
            area = one(rng, *_AREAS)
            parts = digits(rng, int(rng.integers(3, 5)), "23456789"), last
            return Datum(one(rng, f"{area})" + "-".join(parts), _joined(rng, area, *parts)), frame=frame)
        case 6:
            head = one(rng, "070", "0502", "0504", "0505", "0507")
            return Datum(_joined(rng, head, digits(rng, 4, "23456789"), last), frame=frame)
        case 7:
            return Datum(_joined(rng, one(rng, "080", "060"), digits(rng, 3, "23456789"), last), frame=frame)
        case 8:
            return _spoken_phone(rng)
        case _:
            head = one(rng, *_COMPANIES)
            return Datum(f"{head}-{digits(rng, 4, '3456789')}", frame=frame)


def _spoken_phone(rng: np.random.Generator) -> Datum:
    numerals = str.maketrans("0123456789", one(rng, "공일이삼사오육칠팔구", "영일이삼사오육칠팔구"))
    parts = "010", digits(rng, 4, "23456789"), digits(rng, 4)
    return Datum(
        one(rng, " ", "", "-").join(parts).translate(numerals), frame=one(rng, "연락처 {}", "{} 로 문자주세요")
    )


def _waybill(rng: np.random.Generator) -> Datum:
    match int(rng.integers(4)):
        case 0:
            body = digits(rng, 11, "123456789")
            number = f"{body}{int(body) % 7}"
            return Datum("-".join([number[:4], number[4:8], number[8:]]))
        case 1:
            body = digits(rng, 8)
            check = 11 - weighted(body, "86423597") % 11
            return Datum(f"{one(rng, *'ERCLV')}{one(rng, *'ABEFGMS')}{body}{ {10: 0, 11: 5}.get(check, check) }KR")
        case 2:
            return Datum(digits(rng, 12, "4689"), False)
        case _:
            carrier = one(
                rng,
                "운송장 {}",
                "송장번호 {}",
                "CJ대한통운 {}",
                "한진택배 {}",
                "롯데택배 {}",
                "{} 배송조회",
                "등기번호 {}",
            )
            return Datum(digits(rng, int(rng.choice([10, 11, 12, 13, 14])), "346"), frame=carrier)


_PLACES = (
    ("서울특별시 중구 세종대로", "110"), ("서울 종로구 사직로8길", "60"), ("부산광역시 연제구 중앙대로", "1001"),
    ("대구 중구 공평로", "88"), ("인천광역시 남동구 정각로", "29"), ("광주광역시 서구 내방로", "111"),
    ("대전 서구 둔산로", "100"), ("울산 남구 중앙로", "201"), ("세종특별자치시 한누리대로", "2130"),
    ("경기도 수원시 영통구 도청로", "30"), ("강원특별자치도 춘천시 중앙로", "1"), ("충북 청주시 상당구 상당로", "82"),
    ("충청남도 홍성군 홍북읍 충남대로", "21"), ("전북특별자치도 전주시 완산구 효자로", "225"),
    ("전라남도 무안군 삼향읍 오룡길", "1"), ("경북 안동시 풍천면 도청대로", "455"), ("경남 창원시 의창구 중앙대로", "300"),
    ("제주특별자치도 제주시 문연로", "6"), ("경기 성남시 분당구 판교역로146번길", "20"), ("서울 강남구 역삼동", "736-1"),
    ("경기도 양평군 서종면 문호리", "산12-3"), ("서울 성동구 성수동1가", "685-20"), ("강남구 테헤란로", "152"),
    ("성남시 분당구 불정로", "6"), ("해운대구 우동", "1500"), ("마포구 월드컵북로", "396"),
)  # fmt: skip
"""Streets and lots of public offices and companies."""


def _address(rng: np.random.Generator) -> Datum:
    if rng.random() < 0.1:
        return Datum(digits(rng, 5, "0123456"), frame=one(rng, "우편번호 {}", "(우) {}"))
    place, number = _PLACES[int(rng.integers(len(_PLACES)))]
    tail = one(rng, "", "", " 3층", ", 101동 1203호", " 2001호")
    return Datum(f"{place} {number}{tail}", frame=one(rng, "{}", "배송지 {}", "주소: {}", "매장 {}"))


def _email(rng: np.random.Generator) -> Datum:
    local = one(rng, "hong", "kim.minsu", "lee_78", "park-99", "a1b2c3", "shop+kr") + digits(
        rng, int(rng.integers(1, 5))
    )
    domain = one(rng, "naver.com", "gmail.com", "hanmail.net", "daum.net", "example.ac.kr", "my-shop.co.kr")
    frame = one(rng, "{}", "메일 {}", "문의는 {} 로")
    match int(rng.integers(4)):
        case 0:
            return Datum(f"{local}{one(rng, '(at)', '[at]', '골뱅이', ' @ ')}{domain}", frame=frame)
        case 1:
            return Datum(f"{local}{one(rng, '골뱅이', '@')}{one(rng, '네이버', '다음', '지메일')}닷컴", frame=frame)
        case _:
            return Datum(f"{local}@{domain}", frame=frame)


def _url(rng: np.random.Generator) -> Datum:
    domain = one(rng, "example.com", "my-shop.co.kr", "brand.store", "item.shop", "bit.ly", "abc.io", "twitch.tv")
    path = one(rng, "", f"/item/{digits(rng, 5)}", f"/?q={digits(rng, 3)}")
    frame = one(rng, "{}", "구매 {}", "링크 {} 참고")
    match int(rng.integers(4)):
        case 0:
            return Datum(f"{one(rng, 'http', 'https')}://{domain}{path}", frame=frame)
        case 1:
            return Datum(f"www.{domain}{path}", frame=frame)
        case 2:
            return Datum(f"{one(rng, '네이버', '쿠팡', '다음')}.com", False)
        case _:
            return Datum(f"{domain}{path}", frame=frame)


def _card(rng: np.random.Generator) -> Datum:
    body = digits(rng, 15, "3456")
    doubled = sum(sum(divmod(int(digit) * 2, 10)) for digit in body[::2]) + sum(map(int, body[1::2]))
    number = f"{body}{-doubled % 10}"
    frame = one(rng, "{}", "카드번호 {}", "결제 {}")
    if body[0] == "3" or rng.random() < 0.3:
        return Datum(number, frame=frame)
    return Datum(_joined(rng, *(number[at : at + 4] for at in range(0, 16, 4))), frame=frame)


def _business(rng: np.random.Generator) -> Datum:
    body = digits(rng, 9, "123456")
    number = f"{body}{-(weighted(body, '137137135') + int(body[8]) * 5 // 10) % 10}"
    if rng.random() < 0.3:
        return Datum(number, frame="사업자등록번호 {}")
    return Datum(_joined(rng, number[:3], number[3:5], number[5:]), frame=one(rng, "{}", "사업자 {}"))


def _corporate(rng: np.random.Generator) -> Datum:
    body = f"{one(rng, '1101', '1301', '1801', '1201', '1701', '2001')}{one(rng, '11', '21', '31')}0{digits(rng, 5)}"
    number = f"{body}{-weighted(body, '121212121212') % 10}"
    return Datum(_joined(rng, number[:6], number[6:]), frame=one(rng, "{}", "법인등록번호 {}"))


def _account(rng: np.random.Generator) -> Datum:
    bank = one(rng, "국민은행", "신한은행", "농협", "카카오뱅크", "우리은행", "하나은행", "새마을금고")
    number = one(
        rng,
        f"{digits(rng, 6, '23456789')}-{digits(rng, 2)}-{digits(rng, 6)}",
        f"{digits(rng, 3, '123456789')}-{digits(rng, 3)}-{digits(rng, 6)}",
        f"3333-{digits(rng, 2)}-{digits(rng, 7)}",
    )
    if rng.random() < 0.5:
        return Datum(number, frame=one(rng, f"계좌번호 {bank} {{}}", f"입금 {bank} {{}}", f"{bank} {{}} 예금주 홍길동"))
    return Datum(number, False, f"{bank} {{}}")


def _plate(rng: np.random.Generator) -> Datum:
    number = f"{digits(rng, int(rng.integers(2, 4)), '123456789')}{one(rng, *'가나다라마거너더러머하허호')}{digits(rng, 4, '123456789')}"
    if rng.random() < 0.5:
        return Datum(number, frame=one(rng, "차량번호 {}", "주차 {}", "번호판 {}"))
    return Datum(number, False)


def _machine(rng: np.random.Generator) -> Datum:
    number = ".".join(map(str, [int(rng.integers(11, 224)), *rng.integers(0, 256, 3).tolist()]))
    return Datum(number, frame=one(rng, "서버 {}", "IP {}")) if rng.random() < 0.5 else Datum(number, False)


KINDS: dict[str, Maker] = {
    "resident_number": _resident,
    "foreigner_number": _foreigner,
    "driver_licence": _licence,
    "passport": _passport,
    "phone": _phone,
    "waybill": _waybill,
    "address": _address,
    "email": _email,
    "url": _url,
    "card": _card,
    "business_number": _business,
    "corporate_number": _corporate,
    "account": _account,
    "plate": _plate,
    "ip_address": _machine,
}
"""Each kind that the specification names."""
