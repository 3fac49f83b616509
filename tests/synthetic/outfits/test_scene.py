"""Photos of outfits: exact masks, and attributes that can be seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoplens.synthetic.catalogue import Design
from shoplens.synthetic.outfits.figure import draw_pose
from shoplens.synthetic.outfits.job import photograph_outfit
from shoplens.synthetic.outfits.outfit import Garment, Outfit, draw_outfit
from shoplens.synthetic.outfits.scene import NOTHING, Scene
from shoplens.synthetic.outfits.settings import Outfits
from shoplens.synthetic.outfits.wardrobe import DRESS, PIECES, SHOES, SKIRT, TOPS, Piece
from shoplens.synthetic.sellers import seller
from shoplens.synthetic.vocabulary import PATTERNS

SIZE = 128


def scene(outfit: Outfit, by: int = 1, seed: int = 0) -> Scene:
    return photograph_outfit(outfit, seller(7, by), SIZE, np.random.default_rng(seed))


def changed(one: Scene, other: Scene) -> np.ndarray:
    return (np.asarray(one.photo) != np.asarray(other.photo)).any(2)


def with_design(outfit: Outfit, place: int, **changes: object) -> Outfit:
    """The outfit with another design of one garment, in the same pose."""
    garment = outfit.garments[place]
    other = replace(garment, design=replace(garment.design, **changes))
    return replace(outfit, garments=(*outfit.garments[:place], other, *outfit.garments[place + 1 :]))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 3), st.integers(0, 23), st.sampled_from(list(PATTERNS)))
def test_another_colour_and_pattern_change_the_pixels_of_the_mask_and_no_other(
    number: int, place: int, by: int, pattern: str
) -> None:
    outfit = draw_outfit(Outfits(), number)
    place %= len(outfit.garments)
    design = outfit.garments[place].design
    other = tuple(255 - channel for channel in design.rgb)
    before = scene(outfit, by)
    after = scene(with_design(outfit, place, rgb=other, accent_rgb=other, motif_rgb=design.rgb, pattern=pattern), by)
    mask = before.owner == place + 1
    assert np.array_equal(before.owner, after.owner)
    assert not (changed(before, after) & ~mask).any()
    assert changed(before, after)[mask].mean() > 0.4


def test_a_garment_that_is_not_worn_leaves_no_pixel_and_frees_those_it_hid() -> None:
    outfit = draw_outfit(Outfits(bags=1, dresses=0, skirts=1, rare=0), 4)
    whole = scene(outfit)
    without = scene(replace(outfit, garments=outfit.garments[:-1]))
    assert outfit.garments[-1].piece.part == "bag"
    bag = whole.owner == len(outfit.garments)
    assert np.array_equal(whole.owner[~bag], without.owner[~bag])
    assert (without.owner != len(outfit.garments)).all()
    assert whole.visible[len(outfit.garments)] > 0.9
    assert all(0 < share <= 1 for share in whole.visible.values())


def test_the_whole_figure_is_in_the_frame() -> None:
    for number in range(12):
        owner = scene(draw_outfit(Outfits(), number), by=number, seed=number).owner
        shown = owner != NOTHING
        assert 0.05 < shown.mean() < 0.6
        assert not shown[0].any() and not shown[-1].any() and not shown[:, [0, -1]].any()


def worn_with(piece: Piece) -> Outfit:
    """An outfit whose highest layer is the piece, from a fixed design."""
    others: dict[str, tuple[Piece, ...]] = {
        "top": (SKIRT, SHOES[0]),
        "skirt": (TOPS[0], SHOES[0]),
        "trousers": (TOPS[0], SHOES[0]),
        "dress": (SHOES[0],),
        "shoes": (DRESS,),
        "bag": (DRESS, SHOES[0]),
    }
    base = draw_outfit(Outfits(), 0).garments[0].design
    pieces = (*others[piece.part], piece)
    garments = tuple(Garment(number, worn, plain(base, worn)) for number, worn in enumerate(pieces))
    designs = {garment.piece.part: garment.design for garment in garments}
    return Outfit(0, "train", garments, draw_pose(np.random.default_rng(1), designs))


def plain(base: Design, piece: Piece) -> Design:
    return replace(
        base,
        leaf=piece.leaf,
        material="cotton",
        pattern="plain",
        rgb=(200, 60, 70),
        accent_rgb=(40, 60, 160),
        motif_rgb=(240, 240, 240),
        pattern_scale=piece.motifs,
        shape={key: words[0] for key, words in piece.leaf.shapes.items()},
    )


@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: piece.leaf.id)
def test_every_value_of_an_attribute_can_be_seen_on_the_garment(piece: Piece) -> None:
    outfit = worn_with(piece)
    place = len(outfit.garments) - 1
    design = outfit.garments[place].design
    versions: dict[str, list[Outfit]] = {
        "pattern": [with_design(outfit, place, pattern=pattern) for pattern in PATTERNS],
        **{
            key: [with_design(outfit, place, shape={**design.shape, key: word}) for word in words]
            for key, words in piece.leaf.shapes.items()
        },
    }
    for key, worn in versions.items():
        scenes = [scene(version) for version in worn]
        for i, one in enumerate(scenes):
            for other in scenes[:i]:
                area = (one.owner == place + 1) | (other.owner == place + 1)
                differs = np.abs(np.asarray(one.photo).astype(int) - np.asarray(other.photo)).sum(2) > 60
                assert (differs & area).sum() >= 10, (key, i)
