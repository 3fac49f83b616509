"""What outfits wear: shares of values, values of one split, and garments that tell nothing of each other."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from pydantic import ValidationError

from shoplens.synthetic.outfits.outfit import Outfit, draw_outfit, words_of
from shoplens.synthetic.outfits.settings import Outfits
from shoplens.synthetic.outfits.wardrobe import KEYS, PIECES, RARE, values

SETTINGS = Outfits(outfits=1200, held_out=("leaf print", "square neck"), test=0.2)


@pytest.fixture(scope="module")
def worn() -> list[Outfit]:
    return [draw_outfit(SETTINGS, number) for number in range(SETTINGS.outfits)]


def test_a_figure_wears_what_people_wear(worn: list[Outfit]) -> None:
    parts = Counter(part for outfit in worn for part in {garment.piece.part for garment in outfit.garments})
    assert parts["shoes"] == len(worn)
    assert parts["top"] + parts["dress"] == parts["top"] + len(worn) - parts["skirt"] - parts["trousers"] == len(worn)
    assert [parts[part] / len(worn) for part in ("dress", "bag")] == pytest.approx([0.25, 0.6], abs=0.04)
    assert all(len({garment.piece.part for garment in outfit.garments}) == len(outfit.garments) for outfit in worn)
    numbers = [garment.number for outfit in worn for garment in outfit.garments]
    assert len(set(numbers)) == len(numbers)


def test_every_key_has_a_rare_value_and_its_share_is_that_of_the_settings(worn: list[Outfit]) -> None:
    possible, found = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for outfit in worn:
        for garment in outfit.garments:
            known = values(garment.piece)
            possible.update((key, word.en) for key in known for word in known[key])
            found.update((key, word.en) for key, word in words_of(garment.design).items())
    rare = [pair for pair in possible if pair[1] in RARE]
    assert {key for key, _ in rare} == KEYS.keys() == {key for key, _ in possible}
    for pair in rare:
        share, n = found[pair] / possible[pair], possible[pair]
        assert abs(share - 0.02) < 4 * np.sqrt(0.02 * 0.98 / n) + 1 / n, pair
    assert sum(found[pair] for pair in rare) / sum(possible[pair] for pair in rare) == pytest.approx(0.02, abs=0.004)
    ordinary = {pair: found[pair] / possible[pair] for pair in possible if pair[1] not in (*RARE, *SETTINGS.held_out)}
    assert min(ordinary.values()) > 0.03


def test_held_out_values_are_in_the_test_split_only(worn: list[Outfit]) -> None:
    splits = defaultdict(Counter)
    for outfit in worn:
        for garment in outfit.garments:
            assert garment.design.split == outfit.split
            splits[outfit.split].update(word.en for word in words_of(garment.design).values())
    for value in SETTINGS.held_out:
        assert splits["test"][value] > 5
        assert not splits["train"][value] and not splits["val"][value]
    assert splits["train"]["tiered"] > 5


def test_colour_and_pattern_of_a_garment_tell_nothing_of_another(worn: list[Outfit]) -> None:
    for key in ("colour", "pattern"):
        pairs = [
            tuple(words_of(garment.design)[key].en for garment in outfit.garments[:2])
            for outfit in worn
            if outfit.split == "train"
        ]
        one, other = (Counter(pair[place] for pair in pairs) for place in (0, 1))
        expected = sum(one[value] * other[value] for value in one) / len(pairs) ** 2
        equal = np.mean([a == b for a, b in pairs])
        assert abs(equal - expected) < 4 * np.sqrt(expected * (1 - expected) / len(pairs)), key


def test_no_boots_are_worn_under_a_long_hem() -> None:
    settings = Outfits(rare=0.2, seed=3)
    for outfit in (draw_outfit(settings, number) for number in range(200)):
        worn = {garment.piece.part: garment.design for garment in outfit.garments}
        hems = [worn[part].shape["length"].en for part in ("skirt", "dress") if part in worn]
        assert worn["shoes"].leaf.id != "boots" or not {"long", "maxi"} & {*hems}


def test_every_value_is_named_once_in_each_language() -> None:
    for piece in PIECES:
        for key, known in values(piece).items():
            assert len({word.en for word in known}) == len({word.korean for word in known}) == len(known), key


@pytest.mark.parametrize(
    ("options", "mistake"),
    [
        ({"held_out": ("heart",)}, "cannot be held out"),
        ({"held_out": ("tweed",)}, "cannot be held out"),
        ({"val": 0.5, "test": 0.5}, "nothing to train on"),
        ({"outfit": 3}, "outfit"),
    ],
)
def test_settings_that_cannot_be(options: dict[str, object], mistake: str) -> None:
    with pytest.raises(ValidationError, match=mistake):
        Outfits(**options)
