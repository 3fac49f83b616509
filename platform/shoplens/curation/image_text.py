"""One curated record: a photo with a title and queries, as a member of a shard.

The keys, their order and their units are those of NAVER Search's shards: `NNNNNNNNNN.jpg` and `NNNNNNNNNN.json` side by
side in a tar, which `webdataset` and open_clip read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from shoplens.errors import ShoplensError

DIGITS = 10


@dataclass(frozen=True)
class Query:
    """A query that led to the photo: its text, its clicks, and the score of photo and text; None if not scored."""

    text: str
    count: int
    score: float | None = None


@dataclass(frozen=True)
class ImageText:
    """A photo and its texts.

    number       of the photo: the members are named by its ten digits
    size         width and height in pixels
    title_score  score of photo and title; scores of different scorers do not compare
    white        share of white pixels, 0 to 1
    watermark    probability of a watermark, 0 to 1; None if not measured
    boxes        text boxes found in the photo; None if not measured
    boxes_area   share of the photo that they cover together, 0 to 1; in the JSON it is in per cent
    further      entries behind those of the format, in their order; a reader keeps what it does not know

    Raises ShoplensError for a number of more than ten digits, a share outside 0 to 1, or an entry that the format has.
    """

    number: int
    url: str
    size: tuple[int, int]
    title: str
    queries: tuple[Query, ...] = ()
    title_score: float | None = None
    white: float | None = None
    watermark: float | None = None
    boxes: int | None = None
    boxes_area: float | None = None
    further: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.number < 10**DIGITS:
            raise ShoplensError(f"the number of a photo has at most {DIGITS} digits, not {self.number}")
        for name in ("white", "watermark", "boxes_area"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise ShoplensError(f"{name} of photo {self.number} is {share}: a share is 0 to 1")
        if known := _KEYS & self.further.keys():
            raise ShoplensError(
                f"photo {self.number} has further entries that the format has: {', '.join(sorted(known))}"
            )

    @property
    def name(self) -> str:
        """The name of the members, without suffix."""
        return f"{self.number:0{DIGITS}d}"

    def to_json(self) -> str:
        """Strict JSON in one line, keys in the order of the format, UTF-8 text as it is."""
        entries = {
            "image_hash": self.name,
            "image_url": self.url,
            "image_size": list(self.size),
            "title": self.title,
            "query": [query.text for query in self.queries],
            "title_kelip_score": self.title_score,
            "query_count": [query.count for query in self.queries],
            "query_kelip_score": [query.score for query in self.queries],
            "image_white_pixel_ratio": self.white,
            "watermark_score": self.watermark,
            "ocr_num_box": self.boxes,
            "ocr_ratio_box": None if self.boxes_area is None else 100 * self.boxes_area,
        }
        return json.dumps({**entries, **self.further}, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ImageText:
        """The record of a member. Raises ShoplensError if a key is missing, a value is of another kind, or the three lists
        of queries differ in length."""
        try:
            entries = json.loads(text)
            texts, counts, scores = (entries[f"query{name}"] for name in ("", "_count", "_kelip_score"))
            if not len(texts) == len(counts) == len(scores):
                raise ShoplensError(f"{len(texts)} queries with {len(counts)} counts and {len(scores)} scores")
            width, height = entries["image_size"]
            area = entries["ocr_ratio_box"]
            return cls(
                number=int(entries["image_hash"].strip()),
                url=entries["image_url"].strip(),
                size=(int(width), int(height)),
                title=entries["title"],
                queries=tuple(map(Query, texts, counts, scores)),
                title_score=entries["title_kelip_score"],
                white=entries["image_white_pixel_ratio"],
                watermark=entries["watermark_score"],
                boxes=entries["ocr_num_box"],
                boxes_area=None if area is None else area / 100,
                further={key: value for key, value in entries.items() if key not in _KEYS},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ShoplensError(
                f"the text is not a record of a photo and its texts ({error!r}): {text:.100}"
            ) from error


_KEYS = frozenset(
    [
        "image_hash",
        "image_url",
        "image_size",
        "title",
        "query",
        "title_kelip_score",
        "query_count",
        "query_kelip_score",
        "image_white_pixel_ratio",
        "watermark_score",
        "ocr_num_box",
        "ocr_ratio_box",
    ]
)
