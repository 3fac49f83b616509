"""Shares of jamo, Latin letters and signs; scripts of other languages."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoplens.curation.text.characters import foreign_scripts, shares
from shoplens.curation.text.normal_form import normal_form

TEXTS = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("가ㅋㅏaZé1!★😀漢ひア я")), max_size=24).map(
    normal_form
)


@pytest.mark.parametrize(
    ("text", "jamo", "latin", "sign"),
    [
        ("", 0, 0, 0),
        ("검정 운동화", 0, 0, 0),
        ("ㅋㅋ 굿", 2 / 3, 0, 0),
        ("ㅇㄱㄹㅇ", 1, 0, 0),
        ("나이키 air max", 0, 6 / 9, 0),
        ("iPhone 14 Pro 케이스", 0, 9 / 14, 0),
        ("★★ 후기", 0, 0, 1 / 2),
        ("😀👍🏻 굿", 0, 0, 3 / 4),
        ("2024 12 25", 0, 0, 0),
        ("_-+", 0, 0, 1),
        ("café", 0, 1, 0),
        ("新 라면", 0, 0, 0),
        ("5μm 필터", 0, 1 / 5, 1 / 5),
        ("\u1100\u1161\u1112", 1 / 2, 0, 0),
    ],
)
def test_shares_of_characters_that_are_not_blank(text: str, jamo: float, latin: float, sign: float) -> None:
    found = shares(normal_form(text))
    assert (found.jamo, found.latin, found.sign) == pytest.approx((jamo, latin, sign))


@pytest.mark.parametrize(
    ("text", "exempt", "latin"),
    [
        ("나이키 air max", {"air", "max"}, 0),
        ("나이키 Air MAX", {"air"}, 3 / 9),
        ("iPhone 14 Pro 케이스", {"iphone"}, 3 / 14),
        ("LG 냉장고", {"lg"}, 2 / 5),
        ("airmax 운동화", {"air", "max"}, 6 / 9),
        ("Straße", {"strasse"}, 0),
        ("Nike신발", ["nike"], 0),
    ],
)
def test_exempt_words_of_three_letters_or_more_are_not_latin(text: str, exempt: set[str], latin: float) -> None:
    assert shares(text, exempt).latin == pytest.approx(latin)


@pytest.mark.parametrize(
    ("text", "every", "lone"),
    [
        ("나이키 air max", 6 / 9, 0),
        ("a b c 티셔츠", 3 / 6, 3 / 6),
        ("A4 용지", 1 / 4, 1 / 4),
        ("V넥 니트", 1 / 4, 1 / 4),
        ("x y zz", 1, 2 / 4),
    ],
)
def test_two_readings_of_the_rule(text: str, every: float, lone: float) -> None:
    assert shares(text).latin == pytest.approx(every)
    assert shares(text).lone_latin == pytest.approx(lone)


@pytest.mark.parametrize(
    ("text", "scripts"),
    [
        ("검정 운동화", []),
        ("Nike 에어 café 😀★ 100% ½", []),
        ("ㅋㅋ ㆍ", []),
        ("新라면", [("Han", 1 / 3)]),
        ("かわいい 인형", [("Hiragana", 4 / 6)]),
        ("アニメ の 피규어", [("Katakana", 3 / 7), ("Hiragana", 1 / 7)]),
        ("ラーメン 日本", [("Katakana", 4 / 6), ("Han", 2 / 6)]),
        ("Кофе", [("Cyrillic", 1)]),
        ("αβ 한", [("Greek", 2 / 3)]),
        ("สวัสดี", [("Thai", 1)]),
        ("مرحبا 가", [("Arabic", 5 / 6)]),
        ("हिन्दी", [("Devanagari", 1)]),
        ("佐々木", [("Han", 1)]),
        ("5μm 10kΩ", []),
        ("③ ㎏ ™ ①", []),
        ("🇰🇷 👨‍👩‍👧", []),
        ("a\u0324\u0348b", []),
    ],
)
def test_scripts_of_other_languages(text: str, scripts: list[tuple[str, float]]) -> None:
    found = foreign_scripts(normal_form(text))
    assert [s.script for s in found] == [name for name, _ in scripts]
    assert [s.share for s in found] == pytest.approx([share for _, share in scripts])


@given(TEXTS)
def test_shares_agree_with_the_general_categories(text: str) -> None:
    dense = [c for c in text if not c.isspace()]
    found = shares(text)
    assert shares("".join(dense))._replace(lone_latin=found.lone_latin) == found  # blanks divide letters
    if not dense:
        assert found == (0, 0, 0, 0)
        return
    signs = sum(unicodedata.category(c)[0] in "PS" for c in dense) / len(dense)
    latin = sum(unicodedata.category(c)[0] == "L" and "LATIN" in unicodedata.name(c, "") for c in dense) / len(dense)
    jamo = sum("\u3131" <= c <= "\u318e" or "\u1100" <= c <= "\u11ff" for c in dense) / len(dense)
    assert found.sign >= signs - 1e-9
    assert found.latin == pytest.approx(latin)
    assert found.jamo >= jamo - 1e-9
    assert sum(found) - found.lone_latin + sum(s.share for s in foreign_scripts(text)) <= 1 + 1e-9


@given(TEXTS)
def test_the_second_reading_never_counts_more(text: str) -> None:
    assert shares(text).lone_latin <= shares(text).latin
    assert shares(text, exempt={"zzz", "aaa"}).latin <= shares(text).latin
