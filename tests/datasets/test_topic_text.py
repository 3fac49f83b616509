"""The layout of a topic's text against the layouts that its specification gives, and for any fields at all."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from shoplens.datasets.tokenizers import pretrained_tokenizer, tokenize, train_tokenizer
from shoplens.datasets.topic_text import FIELDS, WORDS, TopicTextConfig, TopicTokens, month_of, of_product
from shoplens.datasets.topic_text import REFERENCE as SETTINGS
from shoplens.errors import ShoplensError
from shoplens.schema import TopicText
from tests.packages.pretrained.conftest import clip_tokenizer, siglip_tokenizer

REFERENCE = TopicTextConfig.model_validate(SETTINGS)
VOCABULARY = ["A", "B", "가을", "C1", "C2", "k1", "k2", "x", "k3", "D", "E"]


def word_level(max_tokens: int) -> Tokenizer:
    """Words numbered from 10 on in the order of `VOCABULARY`; [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3."""
    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, **{word: 10 + i for i, word in enumerate(VOCABULARY)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def test_the_golden_layout() -> None:
    topic = TopicText(name="A B", date="2021-08-30", cat1="C1", cat2="C2", kwds=("k1,k2 #x,k3",))
    written = TopicTokens(word_level(24), REFERENCE)([topic])
    assert written["ids"][0].tolist() == [2, 10, 11, 3, 3, 12, 3, 13, 3, 14, 3, 3, 3, 15, 16, 17, 18, 3]
    assert written["types"][0].tolist() == [0] * 4 + [1] * 14
    assert written["mask"].all()


def test_the_golden_truncation() -> None:
    """Description and keywords vanish, the name keeps one token, season and categories stay."""
    topic = TopicText(
        name="A B", desc="D D D", date="2021-08-30", cat1="C1 C1 C1", cat2="C2 C2", kwds=("k1", "k2", "k3")
    )
    ids = TopicTokens(word_level(16), REFERENCE)([topic])["ids"][0].tolist()
    assert ids == [2, 10, 3, 3, 12, 3, 13, 13, 13, 3, 14, 14, 3, 3, 3, 3]


def test_categories_that_overflow_are_cut_too() -> None:
    topic = TopicText(name="A", date="2021-08-30", cat1=" ".join(["C1"] * 9), cat2=" ".join(["C2"] * 9))
    written = TopicTokens(word_level(16), REFERENCE)([topic])
    assert written["ids"].shape == written["mask"].shape == written["types"].shape == (1, 16)
    assert (written["ids"] == 3).sum() == len(FIELDS)


def test_the_reference_loses_syllables_that_any_script_keeps() -> None:
    def kept(text: str, config: TopicTextConfig) -> str:
        return TopicTokens(word_level(16), config)._cleaned(text)

    assert [kept(word, REFERENCE) for word in ("하이힐", "힙합", "히트")] == ["하이", "합", "트"]
    assert [kept(word, TopicTextConfig()) for word in ("하이힐", "힙합", "히트")] == ["하이힐", "힙합", "히트"]
    assert kept("3.5cm 힐 / Café＃Ｗide", TopicTextConfig()) == "3.5cm 힐 Café Wide"


def test_the_reference_keeps_the_characters_of_its_list() -> None:
    """`remove_special_chars` of the reference implementation, range by range."""
    ranges = [
        "az",
        "AZ",
        "09",
        ("가", chr(0xD787)),
        "ㄱㅎ",
        "ㅏㅣ",
        "ぁゔ",
        "ァヴ",
        "ーー",
        "々々",
        "〆〆",
        "〤〤",
        "一龥",
    ]
    listed = {code for low, high in ranges for code in range(ord(low), ord(high) + 1)}
    kept = {code for code in range(0x20, 0xD800) if WORDS["reference"].fullmatch(chr(code))}
    assert kept == listed
    assert WORDS["reference"].findall("ㅋㅋ 스커트-スカート, 佐々木") == ["ㅋㅋ", "스커트", "スカート", "佐々木"]


@pytest.mark.parametrize(
    ("date", "by_reference", "by_default"),
    [
        ("2024-01-05", "봄", "겨울"),
        ("2024-05-31", "여름", "봄"),
        ("2024-09-01T10:00", "가을", "가을"),
        ("2024-12-24", "겨울", "겨울"),
    ],
)
def test_the_season_of_a_date(date: str, by_reference: str, by_default: str) -> None:
    month = month_of(date) or 0
    assert (REFERENCE.seasons[month - 1], TopicTextConfig().seasons[month - 1]) == (by_reference, by_default)


def test_a_topic_without_a_date_opens_today_if_that_is_told() -> None:
    today = datetime.date(2024, 10, 3)
    assert TopicTokens(word_level(24), REFERENCE)([TopicText()], today)["ids"].shape == (1, 9 + 1)
    assert TopicTokens(word_level(24), REFERENCE)([TopicText()])["ids"].shape == (1, 9)
    assert month_of(None, today) == 10
    with pytest.raises(ShoplensError, match="YYYY-MM-DD"):
        month_of("30.8.2021")


def test_a_product_tells_of_itself_in_the_same_layout() -> None:
    assert of_product("A", "D", ["C1", "C2", "x", "B"]) == TopicText(
        name="A", desc="D", cat1="C1", cat2="C2", cat3="x", cat4="B"
    )


def test_dropout_blanks_fields_and_hides_words_but_never_the_layout() -> None:
    topic = TopicText(name="A B", desc="D E", date="2021-08-30", cat1="C1", cat2="C2", kwds=("k1", "k2"))
    tokens = TopicTokens(
        word_level(32), TopicTextConfig.model_validate({**SETTINGS, "word_dropout": 0.3, "field_dropout": 0.3})
    )
    written = tokens([topic] * 400, rngs=[np.random.default_rng(i) for i in range(400)])
    assert ((written["ids"] == 3).sum(1) == len(FIELDS)).all()
    unknown = ((written["ids"] == 1) & written["mask"]).sum()
    content = (written["mask"] & ~np.isin(written["ids"], [2, 3])).sum()
    assert unknown / content == pytest.approx(0.3, abs=0.04)
    assert content / 400 == pytest.approx(2 + 0.7 * 7, abs=0.3)


def test_a_special_token_that_is_typed_is_text() -> None:
    typed = "[SEP] [CLS] x"
    topic = TopicText(name=typed, desc=typed, cat1=typed, kwds=(typed,))
    ids = TopicTokens(TOKENIZER, TopicTextConfig())([topic])["ids"]
    assert (ids == TOKENIZER.token_to_id("[SEP]")).sum() == len(FIELDS)
    assert (ids == TOKENIZER.token_to_id("[CLS]")).sum() == 1


def test_a_tokenizer_without_separators_gets_one_text(tmp_path: Path) -> None:
    """CLIP's pools the first end it finds: nothing of the topic may stand behind it; SigLIP's texts are of one length."""
    topic = TopicText(name="A B", desc="D", date="2021-08-30", cat1="C1", kwds=("k1", "k2"))
    for folder, tokenizer in (("clip", clip_tokenizer()), ("siglip", siglip_tokenizer())):
        tokenizer.save_pretrained(tmp_path / folder)
        own = pretrained_tokenizer(str(tmp_path / folder), 24, fixed_length=folder == "siglip")
        written = TopicTokens(own, REFERENCE)([topic, TopicText(name="A")])
        ids, mask = tokenize(own, ["A B, 가을, C1, k1 k2, D", "A"])
        np.testing.assert_array_equal(written["ids"], ids)
        np.testing.assert_array_equal(written["mask"], mask)
        assert written["types"].shape == ids.shape
    dropped = TopicTokens(own, REFERENCE.model_copy(update={"word_dropout": 0.5}))
    rows = dropped([topic] * 50, rngs=[np.random.default_rng(i) for i in range(50)])["ids"]
    assert len(np.unique(rows, axis=0)) > 10


words = st.text(max_size=40)


@given(
    topics=st.lists(
        st.builds(
            TopicText, name=words, desc=words, cat1=words, cat2=words, cat3=words, cat4=words,
            kwds=st.lists(words, max_size=4).map(tuple),
        ),
        min_size=1,
        max_size=4,
    ),
    longest=st.integers(10, 40),
)  # fmt: skip
def test_any_fields_fit(topics: list[TopicText], longest: int) -> None:
    tokens = TopicTokens(TOKENIZER, TopicTextConfig())
    tokens._max_tokens = longest
    written = tokens(topics, datetime.date(2024, 1, 1))
    shapes = {array.shape for array in written.values()}
    assert len(shapes) == 1
    assert shapes.pop()[1] <= longest
    end = TOKENIZER.token_to_id("[SEP]")
    assert ((written["ids"] == end).sum(1) == len(FIELDS)).all()


TOKENIZER = train_tokenizer(["봄 원피스 dress 2024"], 400, 48)
