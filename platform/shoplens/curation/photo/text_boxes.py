"""Text boxes: where a photo has text drawn on it, how much of the photo they cover, and the photo without them.

Two detectors find boxes. `RapidOcr` is a neural network from a package and the better one. `Morphology` needs no weights
and no further package. Their figures differ, so a cut that was set for one does not hold for the other.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from shoplens.errors import ShoplensError

_LEAST_SIDE = 8
"""A photo with a shorter side of fewer pixels has no legible letter."""


class TextBoxes(NamedTuple):
    """The text boxes of a photo.

    boxes   how many
    union   share of the photo that they cover together, 0 to 1
    total   sum of the shares that each covers; above `union` where boxes overlap
    quads   their corners, float32 [boxes, 4, 2]: x and y in pixels of the photo, in order around the box
    """

    boxes: int
    union: float
    total: float
    quads: np.ndarray


class Detector(Protocol):
    """Finds the text boxes of photos. `name` holds the version: figures of different names do not compare."""

    @property
    def name(self) -> str: ...

    def detect(self, image: Image.Image) -> TextBoxes:
        """The text boxes of an RGB photo."""
        ...


def measured(quads: np.ndarray, size: tuple[int, int]) -> TextBoxes:
    """The shares that convex quads [n, 4, 2] cover of a photo with `size` (width, height) in pixels.

    Parts outside the photo do not count. The photo is cut at the height of every corner. Within such a strip the lengths
    that quads cover are added up along eight rows. That is exact for upright boxes; the error of others was under 0.0005.
    """
    width, height = size
    quads = np.asarray(quads, dtype=np.float32).reshape(-1, 4, 2)
    heights = np.unique(np.clip(np.append(quads[:, :, 1].ravel(), (0, height)), 0, height).astype(np.float64))
    strips = np.diff(heights) / _ROWS
    y = (heights[:-1, None] + strips[:, None] * (np.arange(_ROWS) + 0.5)).ravel()
    weight = np.repeat(strips, _ROWS)
    step = max(1, _CROSSINGS_AT_ONCE // max(len(quads), 1))
    union = total = 0.0
    for start in range(0, len(y), step):
        left, right = _crossings(quads.astype(np.float64), y[start : start + step], width)
        total += weight[start : start + step] @ (right - left).sum(axis=1)
        union += weight[start : start + step] @ _covered(left, right)
    area = width * height
    return TextBoxes(len(quads), min(float(union) / area, 1.0), float(total) / area, quads)


_ROWS = 8
_CROSSINGS_AT_ONCE = 1 << 18


def _crossings(quads: np.ndarray, y: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the rows at heights `y` [r] enter and leave each quad, [r, n]; equal where a row misses the quad."""
    x0, y0 = np.moveaxis(quads, 2, 0)
    x1, y1 = np.moveaxis(np.roll(quads, -1, axis=1), 2, 0)
    rows = y[:, None, None]
    crossed = (rows > np.minimum(y0, y1)) & (rows < np.maximum(y0, y1))
    x = x0 + (rows - y0) * (x1 - x0) / np.where(y1 == y0, 1, y1 - y0)
    left = np.clip(np.where(crossed, x, np.inf).min(axis=2), 0, width)
    right = np.clip(np.where(crossed, x, -np.inf).max(axis=2), 0, width)
    return left, np.maximum(left, right)


def _covered(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Length [r] of the union of the intervals `left` to `right` [r, n] of each row."""
    order = left.argsort(axis=1)
    left, right = np.take_along_axis(left, order, axis=1), np.take_along_axis(right, order, axis=1)
    reached = np.zeros_like(right)
    reached[:, 1:] = np.maximum.accumulate(right, axis=1)[:, :-1]
    return np.maximum(right - np.maximum(left, reached), 0).sum(axis=1)


def filled(image: Image.Image, boxes: TextBoxes) -> Image.Image:
    """A copy of an RGB photo with each box filled by the mean colour around it.

    A score of this copy and a text does not count that the text is written in the photo (T-MARS, Maini et al. 2023).
    Around: the box enlarged by half its shorter side, without what lies in any box. If nothing is left, the mean colour
    of the photo outside all boxes fills the box, or that of the whole photo.
    """
    copy = image.copy()
    pixels, inside = np.asarray(image), _mask(boxes.quads, image.size)
    rest = pixels[~inside] if not inside.all() else pixels.reshape(-1, 3)
    pen = ImageDraw.Draw(copy)
    for quad in boxes.quads:
        ring = _mask(_enlarged(quad)[None], image.size) & ~inside
        colour = (pixels[ring] if ring.any() else rest).mean(axis=0)
        pen.polygon([(float(x), float(y)) for x, y in quad], fill=tuple(np.rint(colour).astype(int).tolist()))
    return copy


def _mask(quads: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels that quads touch, bool [height, width]."""
    drawn = Image.new("1", size)
    pen = ImageDraw.Draw(drawn)
    for quad in quads:
        pen.polygon([(float(x), float(y)) for x, y in quad], fill=1)
    return np.asarray(drawn)


def _enlarged(quad: np.ndarray) -> np.ndarray:
    across, down = quad[1] - quad[0], quad[3] - quad[0]
    sides = np.maximum([np.linalg.norm(across), np.linalg.norm(down)], 1e-6)
    middle = quad.mean(axis=0)
    margin = max(float(sides.min()) / 2, 2.0)
    grown = 1 + 2 * margin / sides
    along = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * grown / 2
    return middle + along[:, :1] * across + along[:, 1:] * down


class RapidOcr:
    """The text detector of the package rapidocr, PP-OCR's network; its recogniser does not run.

    threads   CPU threads of the network
    side      longer side of the picture that the network sees, in pixels; smaller photos are not enlarged

    In some photos without text the network takes the middle for one huge line, and its box then covers most of the photo:
    in 9 of 300 grocery photos of 256 pixels, and in 19 of 160 that were enlarged to 256 to 768. Its scores there, 0.5 to
    0.9, are those of true boxes, and it does so again in a smaller copy of the photo. True text that high is mostly
    missed anyway. So boxes whose shorter side is over half of the photo's shorter side are dropped: a photo that is one
    giant letter has no box here.

    Raises ShoplensError if the package is not installed.
    """

    def __init__(self, *, threads: int = 1, side: int = 512) -> None:
        try:
            from rapidocr import RapidOCR
        except ImportError as error:
            raise ShoplensError(
                'the text detector rapidocr needs the extra: pip install "shoplens[curation]"'
            ) from error
        self._side = side
        threads = max(1, min(threads, os.cpu_count() or 1))  # rapidocr takes all cores for a number beyond them
        self._engine: Any = RapidOCR(
            params={
                "Global.log_level": "critical",  # it warns of every photo without text
                "Global.use_cls": False,
                "Global.use_rec": False,
                "Global.use_preprocess_img": False,
                "Det.limit_type": "max",
                "Det.limit_side_len": max(side, 32) + 32,
                "EngineConfig.onnxruntime.intra_op_num_threads": threads,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )

    @property
    def name(self) -> str:
        return f"rapidocr {version('rapidocr')} at {self._side}"

    def detect(self, image: Image.Image) -> TextBoxes:
        if min(image.size) < _LEAST_SIDE:
            return measured(_NONE, image.size)
        scale = min(1.0, self._side / max(image.size))
        width, height = (max(32, round(n * scale / 32) * 32) for n in image.size)  # the network takes multiples of 32
        seen = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
        found = self._engine(np.ascontiguousarray(np.asarray(seen)[:, :, ::-1])).boxes
        quads = _NONE if found is None else found * (np.array(image.size) / (width, height))
        sides = np.linalg.norm(quads[:, (1, 3)] - quads[:, (0, 0)], axis=2)
        return measured(quads[sides.min(axis=1) <= min(image.size) / 2], image.size)


_NONE = np.empty((0, 4, 2))


class Morphology:
    """A detector without weights: thin strokes of high contrast that lie side by side.

    Top-hat and bottom-hat filters leave strokes that are brighter or darker than what is around them. Connected strokes
    of a letter's size with sharp edges are letters; letters near each other in a row are a line. It finds most drawn
    text, and little on photos without; it misses weak contrast and single letters, and boxes of sloped lines are upright.
    """

    name = "morphology 1"

    def detect(self, image: Image.Image) -> TextBoxes:
        if min(image.size) < _LEAST_SIDE:
            return measured(_NONE, image.size)
        scale = min(1.0, _SIDE / max(image.size))
        width, height = (max(1, round(n * scale)) for n in image.size)
        grey = np.asarray(image.convert("L").resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0))
        stroke = max(3, round(max(grey.shape) * _STROKE)) | 1
        signed = grey.astype(np.int16)
        slope = np.maximum(*(np.abs(ndimage.sobel(signed, axis)) for axis in (0, 1))) / 4
        found = [
            _lines(letters, grey.shape)
            for hat in (ndimage.white_tophat, ndimage.black_tophat)
            if len(letters := _letters(hat(grey, size=(stroke, stroke)) > _CONTRAST, slope))
        ]
        boxes = np.concatenate([np.empty((0, 4)), *found])
        quads = boxes[:, [(0, 1), (2, 1), (2, 3), (0, 3)]]
        return measured(quads * (np.array(image.size) / (width, height)), image.size)


_SIDE = 512
_STROKE = 1 / 20
"""Side of the square of the hat filters, as a share of the longer side: above the width of strokes."""
_CONTRAST = 60
"""Least grey levels between a stroke and what is around it."""
_SLOPE = 45
"""Least mean slope of a letter's pixels, in grey levels a pixel: drawn letters are sharper than things in a photo."""
_FILL = (0.12, 0.97)
"""Share of a letter's box that its strokes cover."""
_HEIGHTS = (4, 0.25)
"""Least height of a letter in pixels, and largest as a share of the photo's."""
_LINK = 0.6
"""Letters are of one line if the gap is under twice this share of their height."""
_LINE = 0.2
"""Least share of a line's box that the boxes of its letters cover."""


def _letters(mask: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Boxes int [n, 4] (left, top, right, bottom) of the connected parts of `mask` [height, width] that look like letters."""
    labels, n = ndimage.label(mask, np.ones((3, 3)))
    if not n:
        return np.empty((0, 4), dtype=np.int64)
    places = ndimage.find_objects(labels)
    boxes = np.array([(x.start, y.start, x.stop, y.stop) for y, x in places])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    of = labels[mask] - 1
    area = np.bincount(of, minlength=n)
    sharp = np.bincount(of, slope[mask], n) / area
    fill = area / (width * height)
    return boxes[
        (height >= _HEIGHTS[0])
        & (height <= _HEIGHTS[1] * mask.shape[0])
        & (width <= 0.5 * mask.shape[1])
        & (np.maximum(width, height) >= 6)
        & (fill > _FILL[0])
        & (fill < _FILL[1])
        & (sharp > _SLOPE)
    ]


def _lines(letters: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Boxes float [m, 4] of the lines that letters [n, 4] form in a picture of `shape` (height, width)."""
    near = np.zeros(shape, dtype=bool)
    for left, top, right, bottom in letters.tolist():
        high = max(bottom - top, min(right - left, 2 * (bottom - top)))
        reach = max(1, round(_LINK * min(high, 0.12 * shape[0])))
        near[top:bottom, max(0, left - reach) : right + reach] = True
    labels, n = ndimage.label(near)
    line = labels[(letters[:, 1] + letters[:, 3]) // 2, (letters[:, 0] + letters[:, 2]) // 2] - 1
    size = (letters[:, 2] - letters[:, 0]) * (letters[:, 3] - letters[:, 1])
    boxes = np.array([(*shape[::-1], 0, 0)] * n, dtype=np.float64)
    np.minimum.at(boxes[:, :2], line, letters[:, :2])
    np.maximum.at(boxes[:, 2:], line, letters[:, 2:])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    several = np.bincount(line, minlength=n) >= 2
    dense = np.bincount(line, size, n) >= _LINE * width * height
    return boxes[several & dense & (width >= 1.5 * height) & (height >= 6)]
