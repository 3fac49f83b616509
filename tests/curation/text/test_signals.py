"""All signals of a text, and the cut by them."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoplens.curation.text.personal_data.found import Confidence
from shoplens.curation.text.signals import Cut, TextRules, cut, text_signals

TODAY = date(2026, 1, 1)
PIECES = st.sampled_from(
    [
        "검정 운동화",
        "ㅋㅋㅋㅋㅋ",
        "010-1234-5678",
        "900101-1******",
        "☎",
        "iPhone 14",
        "a@b.co.kr",
        "시발",
        "新",
        "로또",
        "!!!!",
        "９０",
        " ",
        "\u200b",
    ]
)


def kept(raw: str, **rules: object) -> Cut:
    return cut(text_signals(raw, {"nike", "iphone"}, today=TODAY), TextRules.model_validate(rules))


@pytest.mark.parametrize(
    ("raw", "rules", "text", "reasons"),
    [
        ("최고최고최고 검정 운동화!!!!", {}, "최고 검정 운동화!", []),
        ("문의 010-1234-5678 운동화", {}, None, [("personal_data", "phone")]),
        ("문의 010-1234-5678 운동화", {"personal_data": "mask"}, "문의 ***-****-**** 운동화", []),
        ("문의 010-1234-5678 운동화", {"personal_data": "tag"}, "문의 010-1234-5678 운동화", []),
        ("운동화 010-1234-5678", {"personal_kinds": ["email"]}, "운동화 010-1234-5678", []),
        ("문의 1588 1234", {"confidence": "high"}, "문의 1588 1234", []),
        # contraction would shorten what tells these numbers
        ("운동화 900101-1****** 후기", {}, None, [("personal_data", "resident_number")]),
        ("６６０９０５－１ＸＸＸＸＸＸ", {}, None, [("personal_data", "resident_number")]),
        ("공일공-이이공오-육육육육", {}, None, [("personal_data", "phone")]),
        (
            "hong@@@naver.com 문의",
            {},
            None,
            [("personal_data", "email"), ("characters", "latin")],
        ),  # and here it brings the form out
        ("간이영수증", {}, None, [("noise", "간이영수증")]),
        ("씨발 운동화", {}, None, [("offensive", "profanity")]),
        ("씨발 운동화", {"offensive": "tag"}, "씨발 운동화", []),
        ("ㅋㅋㅋㅋ 굿", {}, None, [("characters", "jamo")]),
        ("나이키 air max", {}, None, [("characters", "latin")]),
        ("나이키 air max", {"latin": "lone_letters"}, "나이키 air max", []),
        ("iPhone 14 케이스", {}, "iPhone 14 케이스", []),  # a brand
        ("가나ab!!", {}, "가나ab!!", []),
        ("가나ab!!", {"share_of": "sum"}, None, [("characters", "sum")]),
        ("新상 원피스", {}, None, [("script", "Han")]),
        ("新상 원피스", {"han": 0.2}, "新상 원피스", []),
        ("кожа 가방 검정색", {"han": 1}, None, [("script", "Cyrillic")]),
        ("로또 당첨번호", {}, None, [("noise", "로또")]),
        ("로또 당첨번호", {"noise": "keep"}, "로또 당첨번호", []),
        ("  \u200b ", {}, None, [("empty", "")]),
        (
            "로또 시발 010-1234-5678",
            {},
            None,
            [("personal_data", "phone"), ("offensive", "profanity"), ("noise", "로또")],
        ),
    ],
)
def test_the_cut(raw: str, rules: dict[str, object], text: str | None, reasons: list[tuple[str, str]]) -> None:
    found = kept(raw, **rules)
    assert found.text == text
    assert [(verdict.reason, verdict.detail) for verdict in found.verdicts] == reasons


def test_a_share_of_exactly_the_threshold_drops() -> None:
    assert kept("가a").verdicts == (("characters", 0.5, 0.5, "latin"),)
    assert kept("가나a").text == "가나a"


@given(st.lists(PIECES, max_size=6).map(" ".join))
def test_what_is_kept_is_kept_again_and_unchanged(raw: str) -> None:
    once = kept(raw)
    if once.text is not None:
        assert kept(once.text) == once


@given(st.lists(PIECES, max_size=6).map(" ".join))
def test_masking_leaves_no_data(raw: str) -> None:
    text = kept(raw, personal_data="mask", offensive="tag", share=1, han=1, noise="keep").text
    if text is not None:
        again = text_signals(text, today=TODAY).personal
        assert [one for one in again if one.confidence >= Confidence.MID] == []
