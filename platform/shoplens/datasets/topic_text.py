"""Topic text as tokens in a fixed layout (CLIK). Missing fields are left blank:

[CLS] name [SEP] desc [SEP] season [SEP] cat1 [SEP] cat2 [SEP] cat3 [SEP] cat4 [SEP] kwds [SEP]

A tokenizer without [SEP], such as that of CLIP or SigLIP, encodes one text with the description last.
"""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np
from pydantic import Field
from tokenizers import Tokenizer

from shoplens.config import Config
from shoplens.datasets.tokenizers import tokenize
from shoplens.errors import ShoplensError
from shoplens.schema import TopicText

T = TypeVar("T")

FIELDS = ("name", "desc", "season", "cat1", "cat2", "cat3", "cat4", "kwds")
AS_ONE_TEXT = ("name", "season", "cat1", "cat2", "cat3", "cat4", "kwds", "desc")
CUT_FIRST = ("desc", "kwds", "name", "cat4", "cat3", "cat2", "cat1", "season")
WORDS = {
    "any": re.compile(r"(?:\d+[.,])*[^\W_]+"),
    "reference": re.compile(r"[a-zA-Z0-9가-\ud787ㄱ-ㅎㅏ-ㅣぁ-ゔァ-ヴー々〆〤一-龥]+"),
}
"""`any` keeps letters and digits of every script, and decimal numbers whole. `reference` is the reference implementation's
set: it misses the last 28 Hangul syllables and rare Chinese characters."""


REFERENCE = {
    "seasons": [season for season in ("봄", "여름", "가을", "겨울") for _ in range(3)],
    "words": "reference",
    "field_dropout": 0.0,
}
"""Settings of `TopicTextConfig` that repeat the reference implementation: each quarter is a season."""


class TopicTextConfig(Config):
    """Layout of a topic's text for the text tower."""

    seasons: tuple[str, ...] = Field(
        ("겨울", "겨울", "봄", "봄", "봄", "여름", "여름", "여름", "가을", "가을", "가을", "겨울"),
        min_length=12,
        max_length=12,
        description="the word for the season of each month, January first",
    )
    words: Literal["any", "reference"] = Field(
        "any",
        description="words that are kept: of `any` script, or those of the `reference` implementation, which keeps "
        "category names unchanged",
    )
    word_dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of tokens replaced by the unknown token in training; dropped if the tokenizer has none",
    )
    field_dropout: float = Field(
        0.1, ge=0, lt=1, description="share of fields left blank in training; the name is never left blank"
    )


def of_product(title: str, description: str, category_path: Sequence[str]) -> TopicText:
    """A product's title, description and category as topic text. Unlike many topics, it fills cat3, cat4 and desc."""
    path = dict(zip(("cat1", "cat2", "cat3", "cat4"), category_path, strict=False))
    return TopicText(name=title, desc=description, **path)


class TopicTokens:
    """Encodes topics with one tokenizer. Raises ShoplensError if its maximum length is too short for the fields."""

    def __init__(self, tokenizer: Tokenizer, config: TopicTextConfig) -> None:
        self._tokenizer, self._config = tokenizer, config
        self._max_tokens = tokenizer.truncation["max_length"] if tokenizer.truncation else 128
        self._pad = tokenizer.padding["pad_id"] if tokenizer.padding else 0
        start, end, self._unknown = map(tokenizer.token_to_id, ("[CLS]", "[SEP]", "[UNK]"))
        self._around = None if start is None or end is None else (start, end)
        if self._max_tokens <= len(FIELDS) + 1:
            raise ShoplensError(f"a topic needs more than {len(FIELDS) + 1} tokens: raise max_tokens of the text tower")

    def __call__(
        self,
        topics: Sequence[TopicText],
        today: datetime.date | None = None,
        rngs: Sequence[np.random.Generator] | None = None,
    ) -> dict[str, np.ndarray]:
        """`ids` int64 [n, t], `mask` bool [n, t] and `types` int64 [n, t] (0: the name, 1: the other fields).

        Rows are padded to the longest topic; a tokenizer without [SEP] pads as it is set to.

        today   date of topics that have none; without it their season is left blank
        rngs    one a topic: words and fields are dropped at random, as in training
        """
        drawn = [None] * len(topics) if rngs is None else rngs
        if self._around is None:
            texts = [self._as_one_text(topic, today, rng) for topic, rng in zip(topics, drawn, strict=True)]
            tokens, mask = tokenize(self._tokenizer, texts)
            return {"ids": tokens, "mask": mask, "types": np.zeros_like(tokens)}
        rows = [self._row(topic, today, rng, *self._around) for topic, rng in zip(topics, drawn, strict=True)]
        longest = max((len(ids) for ids, _ in rows), default=0)
        arrays = {
            "ids": np.full((len(rows), longest), self._pad, np.int64),
            "mask": np.zeros((len(rows), longest), bool),
            "types": np.zeros((len(rows), longest), np.int64),
        }
        for i, (ids, first) in enumerate(rows):
            arrays["ids"][i, : len(ids)] = ids
            arrays["mask"][i, : len(ids)] = True
            arrays["types"][i, first : len(ids)] = 1
        return arrays

    def _row(
        self, topic: TopicText, today: datetime.date | None, rng: np.random.Generator | None, start: int, end: int
    ) -> tuple[list[int], int]:
        """Token ids, and the number of them up to and including the [SEP] after the name."""
        texts = self._field_texts(topic, today)
        tokens = {
            name: self._tokenizer.encode(text, add_special_tokens=False).ids if text else []
            for name, text in texts.items()
        }
        if rng is not None:
            tokens = {name: self._dropped(name, ids, rng) for name, ids in tokens.items()}
        excess = sum(map(len, tokens.values())) + len(FIELDS) + 1 - self._max_tokens
        for name in CUT_FIRST:
            if excess <= 0:
                break
            kept = max(0, len(tokens[name]) - excess)
            excess -= len(tokens[name]) - kept
            tokens[name] = tokens[name][:kept]
        row = [start]
        for name in FIELDS:
            row += [*tokens[name], end]
        return row, len(tokens["name"]) + 2

    def _as_one_text(self, topic: TopicText, today: datetime.date | None, rng: np.random.Generator | None) -> str:
        texts = self._field_texts(topic, today)
        if rng is not None:
            words = {name: text.split() for name, text in texts.items()}
            texts = {name: " ".join(self._kept(name, words[name], rng)) for name in FIELDS}
        return ", ".join(filter(None, (texts[name] for name in AS_ONE_TEXT)))

    def _kept(self, name: str, words: Sequence[T], rng: np.random.Generator) -> list[T]:
        if name != "name" and rng.random() < self._config.field_dropout:
            return []
        return [
            word for word, draw in zip(words, rng.random(len(words)), strict=True) if draw >= self._config.word_dropout
        ]

    def _field_texts(self, topic: TopicText, today: datetime.date | None) -> dict[str, str]:
        categories = {name: getattr(topic, name) for name in ("cat1", "cat2", "cat3", "cat4")}
        if self._config.words == "any":
            categories = {name: self._cleaned(text) for name, text in categories.items()}
        month = month_of(topic.date, today)
        kwds = [word for phrase in topic.kwds for word in phrase.split(",")]
        return {
            "name": self._cleaned(topic.name),
            "desc": self._cleaned(topic.desc),
            "season": "" if month is None else self._config.seasons[month - 1],
            **categories,
            "kwds": " ".join(filter(None, map(self._cleaned, kwds))),
        }

    def _cleaned(self, text: str) -> str:
        if self._config.words == "any":
            text = unicodedata.normalize("NFKC", text)
        return " ".join(WORDS[self._config.words].findall(text))

    def _dropped(self, name: str, ids: list[int], rng: np.random.Generator) -> list[int]:
        if self._unknown is None:
            return self._kept(name, ids, rng)
        if name != "name" and rng.random() < self._config.field_dropout:
            return []
        dropped = rng.random(len(ids)) < self._config.word_dropout
        return [self._unknown if gone else token for token, gone in zip(ids, dropped, strict=True)]


def month_of(date: str | None, today: datetime.date | None = None) -> int | None:
    """The month, 1 to 12, of an ISO date, else of `today`. Raises ShoplensError if `date` is not an ISO date."""
    if not date:
        return None if today is None else today.month
    try:
        return datetime.date.fromisoformat(date[:10]).month
    except ValueError:
        raise ShoplensError(f"the topic's date {date!r} is not a date: write YYYY-MM-DD") from None
