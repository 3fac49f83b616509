"""One form for texts that look alike."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoplens.curation.text.normal_form import normal_form

MESSY = st.text(
    st.one_of(
        st.characters(codec="utf-8"),
        st.sampled_from("가힣ㄱㅏㅋㆎﾡﾤￂ\u1100\u1161\u11a8각①㈜½㎏ＡＢ１　 \u200b\ufeff\u00ad…Å\u0301\ufb01ﷺ㉠"),
    ),
    max_size=24,
)


@pytest.mark.parametrize(
    ("given_", "becomes"),
    [
        ("９００１０１－１２３４５６８", "900101-1234568"),
        ("01\u200b0-1234-5678", "010-1234-5678"),
        ("ㅋㅋ ㄱㅏ ㅡ", "ㅋㅋ ㄱㅏ ㅡ"),
        ("ﾡￂ", "ㄱㅏ"),
        (unicodedata.normalize("NFD", "검정 운동화"), "검정 운동화"),
        ("  넓은\u3000치마\n2\u00a0벌 ", "넓은 치마 2 벌"),
        ("㎏ ℃ ① ㈜ ½", "kg °C 1 ㈜ ½"),
        ("", ""),
    ],
)
def test_examples(given_: str, becomes: str) -> None:
    assert normal_form(given_) == becomes


@given(MESSY)
def test_it_is_idempotent_and_adds_no_bytes(text: str) -> None:
    once = normal_form(text)
    assert normal_form(once) == once
    assert len(once.encode()) <= len(unicodedata.normalize("NFC", text).encode())


@given(MESSY)
def test_composed_and_decomposed_texts_agree(text: str) -> None:
    forms = {normal_form(unicodedata.normalize(form, text)) for form in ("NFC", "NFD")}
    assert len(forms) == 1


@given(st.text(st.sampled_from("ㄱㄴㅋㅎㅏㅡㅣㆍ가나 "), max_size=12))
def test_standalone_jamo_stay(text: str) -> None:
    assert normal_form(text) == " ".join(text.split())
