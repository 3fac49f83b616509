"""How well the text boxes of two detectors rank photos by the text that was drawn on them.

    python benchmarks/text_boxes.py --dataset FOLDER [--photos 300] [--seed 0] [--out docs/results/text_boxes.json]

FOLDER is a dataset of shoplens, for example the imported grocery photos. Each photo is enlarged to a longer side of 256
to 768 pixels. Then 0 to 8 lines of Korean or English are drawn on it: random size, colour, outline, panel and slope.
Every line has a known quad around its ink, so the share of the photo that text covers is known. The photo is saved as a
JPEG and read again, as a shop's photos are.

Photos of products have text of their own, on labels and price tags, which nobody counted. So each figure is given twice:
`plain` compares the found share with the drawn share; `added` compares the found share minus the found share of the
same photo without drawing. Correlations are Spearman's, with 95 % intervals, a bootstrap over photos. `found_without`
says how much the detectors find on the photos as they are: text of their own and errors.

Duration at the default size: about a minute of one core.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from arms import command
from PIL import Image, ImageDraw, ImageFont
from scipy.stats import rankdata

from shoplens.curation.photo.text_boxes import Detector, Morphology, RapidOcr, TextBoxes, measured
from shoplens.datasets.contact_sheet import FONTS
from shoplens.datasets.format import Dataset
from shoplens.datasets.images import decode
from shoplens.errors import ShoplensError
from shoplens.statistics.bootstrap import interval_of_draws

LINES = (
    "오늘만 특가",
    "무료배송",
    "신선한 제철 과일",
    "국내산 100%",
    "당일 출고 새벽 도착",
    "최대 50% 할인",
    "유기농 인증",
    "한정 수량 판매",
    "맛있는 우리 농산물",
    "리뷰 이벤트 진행중",
    "SALE",
    "FREE SHIPPING",
    "New arrival",
    "Best of 2024",
    "100% organic",
    "BUY 1 GET 1",
    "limited offer",
    "www.example.com",
)
RESAMPLES = 1000


class Drawn(NamedTuple):
    """A photo with text drawn on it, the photo without, and the text: its quads and shares."""

    with_text: Image.Image
    without: Image.Image
    text: TextBoxes


def korean_font() -> str:
    """A font file with Korean letters. Raises ShoplensError if none is installed."""
    for name in FONTS:
        try:
            ImageFont.truetype(name, 12)
        except OSError:
            continue
        return name
    raise ShoplensError("no font with Korean letters is installed: apt-get install fonts-nanum")


def draw(photo: Image.Image, rng: np.random.Generator, font: str) -> Drawn:
    """`photo` enlarged, and with 0 to 8 lines of text that do not overlap. The quads enclose the ink of each line."""
    scale = rng.uniform(256, 768) / max(photo.size)
    without = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BICUBIC)
    canvas, quads = without.copy(), np.empty((0, 4, 2), np.float32)
    taken = np.zeros((canvas.height, canvas.width), dtype=bool)
    for _ in range(int(rng.integers(0, 9))):
        layer, quad = line(LINES[rng.integers(len(LINES))], canvas.size, rng, font)
        room = np.array(canvas.size) - layer.size
        if (room < 1).any():
            continue
        for _ in range(20):
            left, top = rng.integers(0, room).tolist()
            under = taken[top : top + layer.height, left : left + layer.width]
            if not under.any():
                under[:] = True
                canvas.paste(layer, (left, top), layer)
                quads = np.concatenate([quads, (quad + (left, top))[None].astype(np.float32)])
                break
    return Drawn(saved(canvas), saved(without), measured(quads, canvas.size))


def line(text: str, size: tuple[int, int], rng: np.random.Generator, font: str) -> tuple[Image.Image, np.ndarray]:
    """One line of text as an RGBA picture, and the quad [4, 2] around its ink in pixels of that picture."""
    letters = ImageFont.truetype(font, round(max(10, min(size) * 0.04 * 3.5 ** rng.uniform())))
    outline = int(rng.uniform() < 0.3) * max(1, round(letters.size / 12))
    left, top, right, bottom = letters.getbbox(text, stroke_width=outline)
    margin = round(letters.size * 0.5)
    layer = Image.new("RGBA", (round(right - left) + 2 * margin, round(bottom - top) + 2 * margin))
    dark, bright = rng.integers(0, 90, 3), rng.integers(165, 256, 3)
    ink, ground = (dark, bright) if rng.uniform() < 0.5 else (bright, dark)
    if outline == 0 and rng.uniform() < 0.6:
        alpha = int(rng.integers(140, 256))
        layer.paste((*map(int, ground), alpha), (margin // 2, margin // 2, *(n - margin // 2 for n in layer.size)))
    ImageDraw.Draw(layer).text(
        (margin - left, margin - top),
        text,
        fill=(*map(int, ink), 255),
        font=letters,
        stroke_width=outline,
        stroke_fill=(*map(int, ground), 255),
    )
    (x0, y0), (x1, y1) = (margin, margin), (layer.width - margin, layer.height - margin)
    quad = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=np.float64)
    if rng.uniform() < 0.15:
        degrees = rng.uniform(-15, 15)
        turned = layer.rotate(degrees, Image.Resampling.BICUBIC, expand=True)
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        centred = quad - np.array(layer.size) / 2
        return turned, centred @ np.array([[cos, -sin], [sin, cos]]) + np.array(turned.size) / 2
    return layer, quad


def saved(image: Image.Image) -> Image.Image:
    """`image` as a JPEG file shows it."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return Image.open(out).convert("RGB")


def correlation(a: np.ndarray, b: np.ndarray, resamples: int = RESAMPLES) -> dict[str, float]:
    """Spearman's rank correlation of a [n] and b [n] with its interval over resampled photos."""
    rng = np.random.default_rng(0)
    draws = np.array([spearman(a[rows], b[rows]) for rows in rng.integers(len(a), size=(resamples, len(a)))])
    low, high = interval_of_draws(draws, len(a), limits=(-1.0, 1.0))
    return {"value": round(spearman(a, b), 4), "low": round(low, 4), "high": round(high, 4)}


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1]) if np.ptp(a) and np.ptp(b) else math.nan


def found(detector: Detector, photos: Sequence[Image.Image]) -> tuple[np.ndarray, float]:
    """Boxes and union of each photo [n, 2], and the CPU seconds that they took."""
    start = time.process_time()
    boxes = [detector.detect(photo) for photo in photos]
    return np.array([(each.boxes, each.union) for each in boxes]), time.process_time() - start


def judged(drawn: Sequence[Drawn], with_text: np.ndarray, without: np.ndarray) -> dict[str, Any]:
    """The figures of one detector from its boxes and unions [n, 2] with and without the drawing."""
    union = np.array([each.text.union for each in drawn])
    boxes = np.array([each.text.boxes for each in drawn], dtype=np.float64)
    lettered = boxes > 0
    return {
        "union_plain": correlation(union, with_text[:, 1]),
        "union_added": correlation(union, with_text[:, 1] - without[:, 1]),
        "boxes_plain": correlation(boxes, with_text[:, 0]),
        "boxes_added": correlation(boxes, with_text[:, 0] - without[:, 0]),
        "photos_with_text_that_have_a_box": share(with_text[lettered, 0] > 0),
        "mean_union": {"drawn": share(union), "found_added": share(with_text[:, 1] - without[:, 1])},
        "found_without": {
            "photos_with_a_box": share(without[:, 0] > 0),
            "boxes_per_photo": share(without[:, 0]),
            "union": share(without[:, 1]),
            "union_above_0.15": share(without[:, 1] > 0.15),
        },
    }


def share(of: np.ndarray) -> float:
    return round(float(of.mean()), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="folder of a dataset with photos")
    parser.add_argument("--photos", type=int, default=300, help="photos to draw on")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of photos and of the drawing")
    parser.add_argument("--out", type=Path, help="file of the result (JSON); it is also printed")
    options = parser.parse_args()

    rng, font = np.random.default_rng(options.seed), korean_font()
    dataset = Dataset(options.dataset)
    chosen = rng.permutation(dataset.images.num_rows)[: options.photos].tolist()
    drawn = [draw(decode(dataset.read_image(sample)).image, rng, font) for sample in chosen]
    detectors: tuple[Detector, ...] = (RapidOcr(threads=1), Morphology())
    results: dict[str, Any] = {}
    unions = []
    for detector in detectors:
        detector.detect(drawn[0].without)
        with_text, seconds = found(detector, [each.with_text for each in drawn])
        without, _ = found(detector, [each.without for each in drawn])
        unions.append((with_text[:, 1], without[:, 1]))
        results[detector.name] = {
            **judged(drawn, with_text, without),
            "photos_per_second_and_core": round(len(drawn) / seconds, 1),
        }
        print(detector.name, json.dumps(results[detector.name], indent=1), flush=True)
    (ocr, ocr_without), (plain, plain_without) = unions
    result = {
        "benchmark": "text_boxes",
        "command": command(),
        "photos": len(drawn),
        "lines_drawn": sum(each.text.boxes for each in drawn),
        "detectors": results,
        "between_the_detectors": {
            "union_with_text": correlation(ocr, plain),
            "union_without": correlation(ocr_without, plain_without),
        },
    }
    text = json.dumps(result, indent=1)
    if options.out:
        options.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
