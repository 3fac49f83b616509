"""Contraction of meaningless repetition."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shoplens.curation.text.repetition import contracted

FEW = st.text(st.sampled_from("aAㅋ가나! .-12xXILw\u0301😀"), max_size=30)
"""Texts of few characters repeat often."""
BUILT = st.lists(
    st.tuples(st.text(st.sampled_from("ab가나ㅋ!.1 "), min_size=1, max_size=6), st.integers(1, 5)), max_size=4
).map(lambda parts: "".join(unit * n for unit, n in parts))


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("ㅋㅋㅋㅋㅋ", "ㅋㅋ"),
        ("최고최고최고", "최고"),
        ("!!!!!!", "!"),
        ("★★★★★ 후기", "★ 후기"),
        ("goooood", "good"),
        ("안녕ㅋㅋㅋㅋ", "안녕ㅋㅋ"),
        ("~~~~~", "~"),
        ("......", "."),
        ("맛집 맛집 맛집 맛집", "맛집"),
        ("맛집 맛집 맛집", "맛집"),
        ("예쁜 원피스 원피스 원피스 세일", "예쁜 원피스 세일"),
        ("무료 배송 무료 배송 무료 배송", "무료 배송"),
        ("아이폰14 아이폰14 아이폰14", "아이폰14"),
        ("=-=-=-=-", "=-"),
        ("신상!! 신상!! 신상!!", "신상!!"),
        ("! ! !", "!"),
        ("하하하하", "하하"),
        ("ㅠㅠㅠㅠ 대박대박대박!!!!", "ㅠㅠ 대박!"),
        ("세일해요세일해요세일해요", "세일해요"),
        ("😀😀😀😀", "😀"),
        ("____", "_"),
        ("값5!!!!!3", "값5!3"),
        ("aaabaaabaaab", "aab"),
        ("가   나", "가 나"),
        ("", ""),
    ],
)
def test_repetition_is_contracted(text: str, becomes: str) -> None:
    assert contracted(text) == becomes


@pytest.mark.parametrize(
    "text",
    [
        "10000000원",
        "111-111-111",
        "111-111-111-111",
        "1.1.1.1",
        "1,000,000,000원",
        "10x10x10x10cm",
        "1+1+1 행사",
        "1 1 1",
        "1 + 1 + 1 + 1",
        "0000",
        "3...5",
        "바나나",
        "쓰담쓰담",
        "반짝반짝 작은 별",
        "ㅋㅋ",
        "good",
        "좋아 좋아",
        "무료 배송 무료 배송",
        "남성 티셔츠 XXXL",
        "xxxl",
        "마크 III",
        "AAA 건전지",
        "AAAA 건전지",
        "www.example.com",
        "!!",
        "🇰🇷🇰🇷",
    ],
)
def test_texts_that_stay(text: str) -> None:
    assert contracted(text) == text


@given(FEW | BUILT)
@example("가 가 가 가나 가나 가나")
@example("ab ab ab!!!ab ab")
def test_it_is_idempotent_and_never_longer(text: str) -> None:
    once = contracted(text)
    assert contracted(once) == once
    assert len(once) <= len(text)


@given(FEW | BUILT)
def test_no_digit_is_lost_inside_a_word(text: str) -> None:
    text = text.replace(" ", "")
    assert re.findall(r"\d", contracted(text)) == re.findall(r"\d", text)


@given(BUILT)
def test_what_the_fast_test_lets_pass_has_no_repetition(text: str) -> None:
    if contracted(text) == text:
        found = [m[1] for m in re.finditer(r"(?=([^\d]{2,6}?)\1\1)", text)]
        assert [unit for unit in found if not re.fullmatch("[xX]+", unit)] == []


@given(st.sampled_from(["최고", "대박", "ㅋ", "!", "가나다"]), st.integers(3, 9))
def test_the_number_of_copies_does_not_matter(unit: str, copies: int) -> None:
    assert contracted(f"앞 {unit * copies} 뒤") == contracted(f"앞 {unit * 3} 뒤")
