"""What a figure wears: garments, their designs, and the pose. All is drawn from the settings and the outfit's number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from shoplens.synthetic.catalogue import Design, draw_design, stream
from shoplens.synthetic.outfits import wardrobe
from shoplens.synthetic.outfits.figure import Pose, draw_pose
from shoplens.synthetic.outfits.settings import Outfits
from shoplens.synthetic.outfits.wardrobe import RARE, Piece
from shoplens.synthetic.vocabulary import COLOURS, PATTERNS, Word

OUTFIT, GARMENT, SALE, PHOTO = range(20, 24)
"""Kinds of random streams, besides those of the shop."""
MOST_GARMENTS = 4
LONG_HEMS = ("long", "maxi")


@dataclass(frozen=True)
class Garment:
    """A worn product. `number` counts the products of the dataset."""

    number: int
    piece: Piece
    design: Design


@dataclass(frozen=True)
class Outfit:
    """A figure with 2 to `MOST_GARMENTS` garments, from the lowest layer to the highest."""

    number: int
    split: str
    garments: tuple[Garment, ...]
    pose: Pose


def draw_outfit(settings: Outfits, number: int) -> Outfit:
    """Draws outfit `number`. Each garment has a random stream of its own, so no attribute tells of another garment.

    There is one exception. No boots are worn under a long hem, because it would hide their height.
    """
    rng, split = stream(settings.seed, OUTFIT, number), settings.split(number)
    dressed, skirted, carried, tucked = rng.random(4) < (settings.dresses, settings.skirts, settings.bags, 0.4)
    bottom = wardrobe.SKIRT if skirted else wardrobe.TROUSERS
    pieces = [wardrobe.DRESS] if dressed else [wardrobe.TOPS[int(rng.integers(len(wardrobe.TOPS)))], bottom]
    worn = [_garment(settings, number, place, split, piece) for place, piece in enumerate(pieces)]
    long_hem = any(word.en in LONG_HEMS for garment in worn for word in garment.design.shape.values())
    choice = [shoes for shoes in wardrobe.SHOES if not (long_hem and shoes.leaf.id == "boots")]
    shoes = _garment(settings, number, 2, split, choice[int(rng.integers(len(choice)))])
    if not tucked:
        worn.reverse()
    worn.insert(len(worn) if bottom is wardrobe.TROUSERS and not dressed else 0, shoes)
    if carried:
        bag = wardrobe.BAGS[int(rng.integers(len(wardrobe.BAGS)))]
        worn.append(_garment(settings, number, 3, split, bag))
    return Outfit(number, split, tuple(worn), draw_pose(rng, {garment.piece.part: garment.design for garment in worn}))


def _garment(settings: Outfits, outfit: int, place: int, split: str, piece: Piece) -> Garment:
    number = MOST_GARMENTS * outfit + place
    rng = stream(settings.seed, GARMENT, number)
    known = wardrobe.values(piece)
    patterns = [word for word in known["pattern"] if word.en != "plain"]
    patterned = rng.random() < settings.patterned
    design = draw_design(
        rng,
        number,
        piece.leaf,
        split,
        colour=_pick(settings, split, known["colour"], rng).en,
        pattern=_pick(settings, split, patterns, rng, settings.patterned).en if patterned else "plain",
        shape={key: _pick(settings, split, words, rng) for key, words in piece.leaf.shapes.items()},
    )
    return Garment(number, piece, replace(design, pattern_scale=piece.motifs * design.pattern_scale))


def _pick(settings: Outfits, split: str, values: Sequence[Word], rng: np.random.Generator, among: float = 1.0) -> Word:
    """Draws one of the values. `among`: share of the garments that draw at all."""
    allowed = [word for word in values if split == "test" or word.en not in settings.held_out]
    rare = np.array([word.en in RARE for word in allowed])
    share = min(settings.rare / among, 1 / len(allowed))
    weights = np.where(rare, share, (1 - share * rare.sum()) / max(1, (~rare).sum()))
    return allowed[int(rng.choice(len(allowed), p=weights / weights.sum()))]


def words_of(design: Design) -> dict[str, Word]:
    """The value of every judged attribute of a garment."""
    return {"colour": COLOURS[design.colour].word, "pattern": PATTERNS[design.pattern], **design.shape}
