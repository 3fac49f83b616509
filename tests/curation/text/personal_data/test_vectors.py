"""Examples of each kind, and numbers that are none."""

from __future__ import annotations

from datetime import date

import pytest

from shoplens.curation.text.normal_form import normal_form
from shoplens.curation.text.personal_data.detection import masked, personal_data
from shoplens.curation.text.personal_data.found import Confidence, Found

LOW, MID, HIGH = Confidence.LOW, Confidence.MID, Confidence.HIGH
TODAY = date(2026, 6, 1)


def matches(text: str, today: date = TODAY) -> list[tuple[str, str, Confidence, str]]:
    normal = normal_form(text)
    found = personal_data(normal, today=today)
    return [(match.kind, normal[match.start : match.end], match.confidence, match.detail) for match in found]


# Facts from the tests of microsoft/presidio (MIT; test_kr_rrn, brn, driver_license, passport): synthetic numbers, or those of
# companies. Differences: Presidio leaves foreigners' numbers to another recogniser, and takes 12 digits for a licence.
PRESIDIO = [
    ("000505-3637892", [("resident_number", MID)]),
    ("His Korean RRN is 960121-1234567", [("resident_number", MID)]),
    ("960121-1021413", [("resident_number", HIGH)]),
    ("9601211021413", [("resident_number", MID)]),
    ("His RRN is 9601211021413", [("resident_number", HIGH)]),
    ("0013321234567", []),
    ("960303-0021413", []),
    ("760413-5212134", [("foreigner_number", MID)]),
    ("000402-6214431", [("foreigner_number", HIGH)]),
    ("104-86-56659", [("business_number", HIGH)]),
    ("104-82-13138", [("business_number", HIGH)]),
    ("110-81-4127", []),
    ("110-81-4127A", []),
    ("123-45-67890", []),
    ("112212345612", [("driver_licence", LOW)]),
    ("99-22-123456-12", []),
    ("11-22-12345-12", []),
    ("11-22-123A56-12", []),
    ("11-22-123456-123", []),
    ("M12345678", [("passport", HIGH)]),
    ("M123A4567 and M456B7890", [("passport", HIGH), ("passport", HIGH)]),
    ("A123B4567", []),
    ("M12A4567", []),
    ("MM123A4567", []),
]

# Invented numbers with their check digits computed by the published rules; 971013-9019902 is python-stdnum's example, and the
# business and corporate numbers are of companies. 971013-9019902 passes the corporate rule too.
RULES = [
    ("900101-1234568", [("resident_number", HIGH)]),
    ("030405-3123453", [("resident_number", HIGH)]),
    ("000101-4000001", [("resident_number", HIGH)]),
    ("주민등록번호 971013-9019902", [("resident_number", HIGH)]),
    ("971013-9019902", [("corporate_number", HIGH)]),
    ("900101-5234561", [("foreigner_number", HIGH)]),
    ("850505-6123459", [("foreigner_number", HIGH)]),
    ("900101-2000000", [("resident_number", MID)]),
    ("9001012000000", [("resident_number", LOW)]),
    ("991332-1234567", []),
    ("900101-1******", [("resident_number", MID)]),
    ("900101-1XXXXXX", [("resident_number", MID)]),
    ("９００１０１－１２３４５６８", [("resident_number", HIGH)]),
    ("900101 - 1234568", [("resident_number", HIGH)]),
    ("270101-3123456", []),
    ("서울 95-123456-78", [("driver_licence", HIGH)]),
    ("11-22-123456-12", [("driver_licence", HIGH)]),
    ("운전면허 112212345612", [("driver_licence", MID)]),
    ("운전면허를 땄던 날의 사진과 번호는 112212345612", [("driver_licence", LOW)]),
    ("M123A4567", [("passport", HIGH)]),
    ("S12345678", [("passport", MID)]),
    ("여권 S12345678", [("passport", HIGH)]),
    ("WM-S12345678", []),
    ("010ㅡ1234ㅡ5678", [("phone", HIGH)]),
    ("010.1234.5678", [("phone", HIGH)]),
    ("01\u200b0-1234-5678", [("phone", HIGH)]),
    ("공일공 일이삼사 5678", [("phone", HIGH)]),
    ("010-1234-5678·010-2345-6789", [("phone", HIGH), ("phone", HIGH)]),
    ("02-123-4567~8", [("phone", MID)]),
    ("1588-1234", [("phone", MID)]),
    ("15881234", []),
    ("EE473124829KR", [("waybill", HIGH)]),
    ("EE473124828KR", []),
    ("1234-5678-9013", [("waybill", MID)]),
    ("4012-3456-7893", [("waybill", MID)]),
    ("4012-3456-7894", []),
    ("운송장 4012-3456-7894", [("waybill", HIGH)]),
    ("운송장을 찾을 수 없다고 합니다 4012-3456-7894", []),
    ("서울 강남구 테헤란로 152", [("address", HIGH)]),
    ("서울 강남구 역삼동 123-4번지 101동 1203호", [("address", HIGH)]),
    ("서울 중구 을지로3가 5", [("address", HIGH)]),
    ("강원특별자치도 춘천시 중앙로 1", [("address", HIGH)]),
    ("전북특별자치도 전주시 완산구 효자로 225", [("address", HIGH)]),
    ("경기도 양평군 서종면 문호리 123", [("address", HIGH)]),
    ("강남구 테헤란로 152", [("address", MID)]),
    ("배송지 역삼로 12-3", [("address", MID)]),
    ("정자일로95번길 12", [("address", MID)]),
    ("서울 테헤란로 152", [("address", LOW)]),
    ("우편번호 06236", [("address", MID)]),
    ("(우)06236", [("address", MID)]),
    ("06236", []),
    ("hong.gildong@naver.com", [("email", HIGH)]),
    ("hong(at)naver.com", [("email", MID)]),
    ("hong[at]naver.com", [("email", MID)]),
    ("hong골뱅이네이버닷컴", [("email", MID)]),
    ("hong @ naver.com", [("email", MID)]),
    ("hong{at}naver{dot}com", [("email", MID)]),
    ("hong@naver", [("email", LOW)]),
    ("https://smartstore.naver.com/shop?id=1 좋아요", [("url", HIGH)]),
    ("www.shop.co.kr에서", [("url", HIGH)]),
    ("shop.co.kr", [("url", MID)]),
    ("네이버.com", [("url", LOW)]),
    ("4111-1111-1111-1111", [("card", HIGH)]),
    ("4111-1111-1111-1111 4단 서랍장", [("card", HIGH)]),
    ("4111-1111-1111-1112", []),
    ("4111111111111111", [("card", MID)]),
    ("카드 50992060209415", [("card", MID)]),
    ("50992060209415", [("card", LOW)]),
    ("3782-822463-10005", [("card", HIGH)]),
    ("124-81-00998", [("business_number", HIGH)]),
    ("220-81-62517", [("business_number", HIGH)]),
    ("130111-0006246", [("corporate_number", HIGH)]),
    ("국민은행 123456-78-901234", [("account", LOW)]),
    ("입금 계좌 국민은행 123456-78-901234", [("account", MID)]),
    ("차량 12가3456", [("plate", MID)]),
    ("123가4567", [("plate", LOW)]),
    ("IP 192.168.0.1", [("ip_address", MID)]),
]


@pytest.mark.parametrize(("text", "expected"), PRESIDIO + RULES)
def test_examples(text: str, expected: list[tuple[str, Confidence]]) -> None:
    assert [(kind, confidence) for kind, _, confidence, _ in matches(text)] == expected


@pytest.mark.parametrize(
    ("text", "number", "detail"),
    [
        ("연락처는 010-1234-5678 입니다", "010-1234-5678", "mobile"),
        ("011-234-5678", "011-234-5678", "mobile"),
        ("+82 (0)10-1234-5678", "+82 (0)10-1234-5678", "mobile"),
        ("0082 2 123 4567", "0082 2 123 4567", "landline"),
        ("02)123-4567", "02)123-4567", "landline"),
        ("070-1234-5678", "070-1234-5678", "internet"),
        ("0507-1234-5678", "0507-1234-5678", "safe"),
        ("080-123-4567", "080-123-4567", "free"),
        ("060-123-4567", "060-123-4567", "paid"),
        ("고객센터 1588 1234", "1588 1234", "business"),
        ("롯데택배 401234567894", "401234567894", "lotte"),
        ("CJ대한통운 4012-3456-7894", "4012-3456-7894", "cj"),
        ("우체국택배 1234567890123", "1234567890123", "korea_post"),
        ("택배 문의 010-1234-5678", "010-1234-5678", "mobile"),
    ],
)
def test_the_detail_tells_phones_and_carriers_apart(text: str, number: str, detail: str) -> None:
    assert [(found, what) for _, found, _, what in matches(text)] == [(number, detail)]


def test_a_person_is_not_born_after_today() -> None:
    assert [match[0] for match in matches("250101-3123456", date(2025, 1, 1))] == ["resident_number"]
    assert matches("250101-3123456", date(2024, 12, 31)) == []


def test_digits_that_could_be_a_company_or_a_person_are_a_persons() -> None:
    """110111-1000001 passes the corporate rule; 11 January 1911 is a day."""
    number = "110111-1000001"
    assert [match[0] for match in matches(number)] == ["resident_number"]
    assert [match[0] for match in matches(f"법인등록번호 {number}")] == ["corporate_number"]


def test_masking_keeps_length_and_separators() -> None:
    text = "문의 010-1234-5678, a.b@naver.com"
    assert masked(text, personal_data(text)) == "문의 ***-****-****, *.*@*****.***"
    assert masked(text, []) == text
    assert masked("가-1", [Found("phone", 0, 3, HIGH)]) == "*-*"


def test_the_more_certain_match_wins_then_the_longer() -> None:
    assert [match[:2] for match in matches("https://shop.kr/010-1234-5678")] == [
        ("url", "https://shop.kr/010-1234-5678"),
    ]
    assert [match[:2] for match in matches("신한은행 010-1234-5678")] == [("phone", "010-1234-5678")]
