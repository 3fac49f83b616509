"""What holds for every text: places of matches, masking, and the form of Unicode."""

from __future__ import annotations

import unicodedata
from datetime import date

from hypothesis import given, settings
from hypothesis import strategies as st

from shoplens.curation.text.normal_form import normal_form
from shoplens.curation.text.personal_data.detection import masked, personal_data
from shoplens.curation.text.personal_data.found import Confidence

TODAY = date(2026, 6, 1)
_PIECES = (
    "010 1234 5678 02 031 1588 0507 +82 (0) 82- 900101 1234568 1****** 3XXXXXX 5234561 130111 0006246 11 22 123456 12 124 81 00998 "
    "4111 1111 12가3456 M12345678 M123A4567 EE 473124829 KR 4012 3456 7893 운송장 택배 면허 여권 계좌 국민은행 법인 주민 문의 배송지 "
    "서울 강남구 세종시 서종면 테헤란로 역삼동 문호리 95번길 152 123-4 101동 1203호 3층 우편번호 06236 hong naver .com @ 골뱅이 (at) "
    "닷컴 네이버 www. https:// shop.kr / 192.168.0.1 IP 공일공 일이삼사 오육칠팔 원 가 a Z ●●●●●●"
)
PIECES = _PIECES.split()
SEPARATORS = ["", " ", "-", " - ", ".", "~", "ㅡ", "·", ")", ",", "*", "\u200b", "－"]
ASSEMBLED = st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(SEPARATORS)), max_size=14).map(
    lambda parts: "".join(piece + separator for piece, separator in parts)
)
DIGITS = st.text(st.sampled_from("0123456789- .~*)+ㅡ"), max_size=40)
ANY = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("０１９－@.가로길동12 ")), max_size=30)
TEXTS = st.one_of(ASSEMBLED, DIGITS, ANY).map(normal_form)


@settings(max_examples=1000, deadline=None)
@given(TEXTS)
def test_matches_lie_in_the_text_in_order_and_apart(text: str) -> None:
    found = personal_data(text, today=TODAY)
    assert all(0 <= match.start < match.end <= len(text) for match in found)
    assert all(text[match.start : match.end].strip() == text[match.start : match.end] for match in found)
    assert all(first.end <= second.start for first, second in zip(found, found[1:], strict=False))


@settings(max_examples=2000, deadline=None)
@given(TEXTS)
def test_masking_leaves_nothing_to_find(text: str) -> None:
    found = personal_data(text, today=TODAY)
    sure = [match for match in found if match.confidence >= Confidence.MID]
    for hidden in (masked(text, found), masked(text, sure)):
        assert len(hidden) == len(text)
        left = personal_data(hidden, today=TODAY)
        assert [match for match in left if match.confidence >= Confidence.MID] == []


@settings(max_examples=500, deadline=None)
@given(TEXTS)
def test_composed_and_decomposed_texts_have_the_same_matches(text: str) -> None:
    decomposed = normal_form(unicodedata.normalize("NFD", text))
    assert personal_data(decomposed, today=TODAY) == personal_data(text, today=TODAY)


@given(st.text(st.sampled_from("가나 다라운동화abc,!"), max_size=40))
def test_texts_without_a_hint_have_no_match(text: str) -> None:
    assert personal_data(normal_form(text), today=TODAY) == []
