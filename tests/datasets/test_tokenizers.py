from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shoplens.datasets.tokenizers import CLS, PAD, SEP, pretrained_tokenizer, tokenize, train_tokenizer
from shoplens.errors import ShoplensError

CORPUS = [
    "빨간 스트라이프 원피스 무료배송",
    "red striped dress",
    "[정품] 나이키 에어 270 화이트",
    "머그컵 350ml 화이트",
] * 5
TOKENIZER = train_tokenizer(CORPUS, 500, 64)


@settings(deadline=None)
@given(st.text(max_size=40))
def test_no_character_of_any_script_is_lost(text: str) -> None:
    """What is decoded is the normalised text: NFKC and lower case, as sent to the model.

    A special token in a text is read as such, as transformers' tokenizers do.
    """
    assume(not any(token in text for token in (PAD, CLS, SEP)))
    ids = TOKENIZER.encode(text).ids
    if len(ids) < 64:
        assert TOKENIZER.decode(ids).strip() == TOKENIZER.normalizer.normalize_str(text).strip()


def test_training_is_repeatable_and_learns_the_shops_words() -> None:
    assert train_tokenizer(CORPUS, 500, 64).to_str() == TOKENIZER.to_str()
    assert len(TOKENIZER.encode("원피스").ids) < len("원피스".encode()) + 2


def test_padding_is_masked_and_long_texts_are_cut() -> None:
    ids, mask = tokenize(TOKENIZER, ["원피스", "빨간 스트라이프 " * 50])
    assert ids.shape == mask.shape == (2, 64)
    assert mask[0].sum() < 64
    assert mask[1].all()


def test_an_unknown_tokenizer_is_said(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(ShoplensError, match="cannot load the tokenizer"):
        pretrained_tokenizer(str(tmp_path_factory.mktemp("none")), 16)
