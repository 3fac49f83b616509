"""Titles of a design: clean ones in two languages, and a seller's noisy one from the same facts."""

from __future__ import annotations

import numpy as np

from shoplens.synthetic.catalogue import Design
from shoplens.synthetic.sellers import Seller, TitleHabit
from shoplens.synthetic.vocabulary import COLOURS, MATERIALS, PATTERNS, Word

LEFT_OUT = {
    "brand": 0.25,
    "group": 0.4,
    "colour": 0.05,
    "pattern": 0.10,
    "material": 0.30,
    "shape": 0.30,
    "category": 0.0,
}
"""Probability that a seller leaves a fact out of the title. A plain pattern is left out with probability 0.7."""


def facts(design: Design) -> dict[str, list[Word]]:
    """Words for a design that a title can contain, by field."""
    return {
        "brand": [design.brand],
        "group": [design.leaf.group],
        "colour": [COLOURS[design.colour].word],
        "pattern": [PATTERNS[design.pattern]],
        "material": [MATERIALS[design.material].word],
        "shape": list(design.shape.values()),
        "category": [design.leaf.words],
    }


def clean_titles(design: Design) -> dict[str, str]:
    """`title_ko` and `title_en`, with each fact once and nothing else."""
    known = facts(design)
    if design.pattern == "plain":
        known["pattern"] = []
    head = [word for field in ("brand", "group", "colour", "pattern", "material", "category") for word in known[field]]
    return {
        "title_ko": " ".join(word.korean for word in [*head, *known["shape"]]),
        "title_en": " ".join(word.en for word in head) + ", " + ", ".join(word.en for word in known["shape"]),
    }


def seller_title(design: Design, style: Seller, rng: np.random.Generator) -> str:
    """A title in the style of the seller `style`: its language, order and words, with missing facts and noise."""
    habit = style.title
    words: list[str] = []
    for field in habit.order:
        for word in facts(design)[field]:
            left_out = 0.7 if word.en in ("plain", "no stripe") else LEFT_OUT[field]
            if rng.random() >= left_out:
                words.append(_written(word, habit, rng))
    category = _written(design.leaf.words, habit, rng)
    if habit.repeats:
        place = int(rng.integers(len(words) + 1))
        words.insert(place, f"{_written(COLOURS[design.colour].word, habit, rng)}{category}")
        if rng.random() < 0.5:
            words.append(category)
    if rng.random() < 0.12 and len(words) > 2:
        place = int(rng.integers(len(words) - 1))
        words[place : place + 2] = [words[place] + words[place + 1]]
    if habit.shows_code:
        words.append(design.model_code)
    front = [badge for badge in habit.badges if rng.random() < 0.7]
    if habit.shows_name:
        front.insert(0, style.name)
    back = [tail for tail in habit.tails if rng.random() < 0.5]
    return " ".join(filter(None, [*front, habit.separator.join(words), *back]))


def description(design: Design) -> str:
    """A clean description: Korean and English sentences from the clean titles and the accent colour."""
    titles = clean_titles(design)
    accent = COLOURS[design.accent].word
    return f"{titles['title_ko']} 상품입니다. {accent.korean} 포인트. {titles['title_en']}; details in {accent.en}."


def attributes(design: Design) -> dict[str, tuple[str, ...]]:
    """The true attributes, in English."""
    return {
        "brand": (design.brand.en,),
        "colour": (design.colour,),
        "accent colour": (design.accent,),
        "pattern": (design.pattern,),
        "material": (design.material,),
        "group": (design.leaf.group.en,),
        "model code": (design.model_code,),
        **{key: (word.en,) for key, word in design.shape.items()},
    }


def _written(word: Word, habit: TitleHabit, rng: np.random.Generator) -> str:
    if habit.language == "en" or (habit.language == "mixed" and rng.random() < 0.5):
        return word.en
    return word.ko[habit.synonym % len(word.ko)]
