"""Photos of several products in layers, with the exact mask of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from shoplens.synthetic.outfits.figure import GROUND, figure_design, hand
from shoplens.synthetic.outfits.outfit import Garment, Outfit
from shoplens.synthetic.outfits.wardrobe import Place
from shoplens.synthetic.photography import View, develop, homography, light
from shoplens.synthetic.sellers import PhotoHabit
from shoplens.synthetic.surfaces import CutOut, paint

NOTHING, FIGURE = -1, 0
"""Owners of pixels, besides garments, which are counted from 1."""
WAIST = 0.395
"""Where the figure's top ends if it is tucked in."""
WHOLE = Place(0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Layer:
    """A painted drawing at a place. `owner` is what its pixels belong to; the drawing may be `mirrored` left to right."""

    cut: CutOut
    owner: int
    place: Place = WHOLE
    mirrored: bool = False


@dataclass(frozen=True)
class Scene:
    """A photo and what each pixel shows.

    owner     int8 [size, size]: the owner of the pixel, or `NOTHING`
    visible   share of each owner's area that no other owner hides
    """

    photo: Image.Image
    owner: np.ndarray
    visible: dict[int, float]


def photograph_layers(layers: Sequence[Layer], habit: PhotoHabit, taken: View, upright: bool, size: int) -> Scene:
    """Photo of `size` x `size` pixels of layers from back to front, rendered at twice that size and averaged down.

    A pixel belongs to the owner of most of its parts. Only their colours are averaged, so the colour of a garment
    changes no pixel of another.
    """
    frame = 2 * size
    owner = np.full((frame, frame), NOTHING, dtype=np.int8)
    colour = np.zeros((frame, frame, 3), dtype=np.uint8)
    own: dict[int, np.ndarray] = {}
    for layer in layers:
        lit = light(layer.cut, replace(habit, mirror=habit.mirror != layer.mirrored), taken)
        placed = np.asarray(
            lit.transform(
                (frame, frame),
                Image.Transform.PERSPECTIVE,
                _coefficients(layer, habit, taken, frame),
                Image.Resampling.BILINEAR,
            )
        )
        covered = placed[..., 3] >= 128
        owner[covered] = layer.owner
        colour[covered] = placed[covered, :3]
        own[layer.owner] = own[layer.owner] | covered if layer.owner in own else covered
    parts = owner.reshape(size, 2, size, 2)
    best = np.full((size, size), NOTHING, dtype=np.int8)
    most = np.zeros((size, size), dtype=np.int64)
    for number in own:
        parts_of = (parts == number).sum((1, 3))
        best[parts_of > most] = number
        most = np.maximum(most, parts_of)
    chosen = (parts == best[:, None, :, None]) & (best != NOTHING)[:, None, :, None]
    sums = (colour.reshape(size, 2, size, 2, 3).astype(np.float32) * chosen[..., None]).sum((1, 3))
    opacity = ((parts != NOTHING).sum((1, 3)) * 255 // 4).astype(np.uint8)
    photo = develop(sums / np.maximum(most, 1)[..., None], Image.fromarray(opacity), habit, taken, upright)
    visible = {number: float((owner == number).sum() / max(1, area.sum())) for number, area in own.items()}
    return Scene(photo, best, visible)


def _coefficients(layer: Layer, habit: PhotoHabit, taken: View, frame: int) -> list[float]:
    """Coefficients of Pillow's PERSPECTIVE transform, from a pixel of the frame to a pixel of the layer's cut-out."""
    to_scene = np.array([*homography(habit, taken, frame, 1), 1.0]).reshape(3, 3)
    place, side, (x, y) = layer.place, layer.cut.side, layer.cut.corner
    wide, high = side / place.width, side / place.height
    to_cut = np.array([[wide, 0, -place.left * wide - x], [0, high, -place.top * high - y], [0, 0, 1]])
    if layer.mirrored:
        to_cut[0] = [-wide, 0, side + place.left * wide - x]
    both = to_cut @ to_scene
    return [float(c) for c in (both / both[2, 2]).ravel()[:8]]


def layers_of(outfit: Outfit, size: int) -> list[Layer]:
    """The layers of an outfit from back to front, for a photo of `size` x `size` pixels. Garment k is owner k + 1."""
    pose = outfit.pose
    figure = Place(0.5 - pose.width / 2, 0.0, pose.width, 1.0)
    layers = [Layer(paint(figure_design(pose, False), 2 * size), FIGURE, figure)]
    for owner, garment in enumerate(outfit.garments, 1):
        layers += _worn(outfit, garment, owner, size)
    return [*layers, Layer(paint(figure_design(pose, True), 2 * size), FIGURE, figure)]


def _worn(outfit: Outfit, garment: Garment, owner: int, size: int) -> list[Layer]:
    pose, place = outfit.pose, garment.piece.place
    cut = paint(garment.design, max(96, -(-int(2 * size * place.height) // 32) * 32), worn=True)
    parts = [worn.piece.part for worn in outfit.garments]
    if garment.piece.part == "top" and parts.index("top") < max(map(parts.index, {"skirt", "trousers"} & {*parts})):
        cut = _tucked(cut, (WAIST - place.top) / place.height)
    if garment.piece.part == "shoes":
        return [
            Layer(cut, owner, _on_figure(place, 0.5 + pose.stance, GROUND, pose.width, False), False),
            Layer(cut, owner, _on_figure(place, 0.5 - pose.stance, GROUND, pose.width, True), True),
        ]
    x, y = hand(pose, pose.carries) if garment.piece.part == "bag" else (0.0, 0.0)
    return [Layer(cut, owner, _on_figure(place, x, y, pose.width, False))]


def _tucked(cut: CutOut, end: float) -> CutOut:
    """The top without the part of its torso that is lower than `end`, a fraction of its drawing. Sleeves stay."""
    alpha, (x, y) = cut.alpha.copy(), cut.corner
    torso = slice(max(0, round(0.23 * cut.side) - x), round(0.77 * cut.side) - x)
    alpha[max(0, round(end * cut.side) - y) :, torso] = 0
    return replace(cut, alpha=alpha)


def _on_figure(place: Place, x: float, y: float, width: float, mirrored: bool) -> Place:
    """`place` from the point (x, y) on, on a figure of the given width. A mirrored drawing lies left of the point."""
    left = x - place.left - place.width if mirrored else x + place.left
    return Place(0.5 + (left - 0.5) * width, y + place.top, place.width * width, place.height)
