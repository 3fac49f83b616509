"""The configuration of a curation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from shoplens.config import Config
from shoplens.curation.photo.signals import PhotoCut
from shoplens.curation.text import noise_words
from shoplens.curation.text.signals import TextRules

RAW_TABLES = ("photos", "documents", "clicks")
SUFFIXES = (".parquet", ".csv", ".jsonl")


class RawTables(Config):
    """Tables as Parquet, CSV or JSON lines. A path may have `*` for many files."""

    photos: str = Field(
        description="Photos: `image` (a path, `ARCHIVE.tar/MEMBER`, or a URL), `document_id`, and if known `position` "
        "in the document and `url`."
    )
    documents: str = Field(description="Documents: `document_id`, `title`, and if known `source`, such as blog.")
    clicks: str | None = Field(
        None,
        description="Clicks: `query`, `document_id`, and if known `image` and `clicks`. null: there are none.",
    )
    images: str | None = Field(None, description="Folder that relative paths start at. null: that of `photos`.")

    @model_validator(mode="before")
    @classmethod
    def _folder(cls, tree: Any) -> Any:
        """A folder stands for the tables in it that have the usual names."""
        if not isinstance(tree, str):
            return tree
        return {name: path for name in RAW_TABLES if (path := _table_in(tree, name)) is not None}


def _table_in(folder: str, name: str) -> str | None:
    paths = [os.path.join(folder, name + suffix) for suffix in SUFFIXES]
    return next((path for path in paths if Path(path).exists()), None)


class Fetching(Config):
    """How photos are fetched from URLs."""

    allow_hosts: tuple[str, ...] | None = Field(
        None, description="Hosts that photos are fetched from; `.shop.kr` stands for all subdomains. null: any."
    )
    allow_private: bool = Field(False, description="Whether private addresses may be fetched from.")
    timeout_s: float = Field(20.0, gt=0, description="Seconds for one attempt.")
    attempts: int = Field(3, ge=1, description="Attempts at a photo of a busy host.")


class Texts(Config):
    """What keeps titles and queries, and what is exempt."""

    title: TextRules = Field(TextRules(), description="Rules for titles.")
    query: TextRules = Field(TextRules(), description="Rules for queries.")
    brands: tuple[str, ...] = Field(
        (), description="Words that do not count as Latin letters, such as names of brands and products."
    )
    noise_words: tuple[str, ...] = Field(
        (*noise_words.LISTED, *noise_words.COMPOUNDS),
        description="Words that say nothing about a picture, found at the start of words.",
    )


class WatermarkCut(Config):
    model: str = Field(description="Registered model that scores photos, such as one of the recipe `watermark`.")
    below: float = Field(0.9, gt=0, le=1, description="Score from which on a photo is dropped.")


class BoxesCut(Config):
    detector: Literal["rapidocr", "morphology"] = Field(
        "rapidocr", description="`rapidocr` needs the extra `shoplens[curation]`; `morphology` needs no weights."
    )
    most: int = Field(20, ge=0, description="Most text boxes of a photo.")
    area: float = Field(0.15, ge=0, le=1, description="Largest share of the photo that the boxes cover together.")


class AdultCut(Config):
    below: float = Field(0.5, gt=0, le=1, description="Score from which on a photo is dropped.")


class NoiseProposals(Config):
    """Which words are proposed as noise, for a person to review."""

    least_photos: int = Field(100, ge=2, description="Least photos that have a text with the word.")
    lift_share: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="A word is proposed if photos fit its texts better than other photos do by less than this share of "
        "what is usual.",
    )


class ScoreCut(Config):
    """The limit belongs to one model: scores of models do not compare."""

    model: str = Field(description="Registered model with vectors of photos and texts, such as eclip@champion.")
    scale: Literal["calibrated", "raw"] = Field(
        "calibrated",
        description="`calibrated`: standard deviations above the mean score of the same text with background photos; "
        "`raw`: the cosine.",
    )
    at_least: float = Field(1.0, description="Least score of a photo and a text.")
    background: int = Field(256, ge=16, le=4096, description="Photos that texts are calibrated against.")
    masked: bool = Field(
        False, description="Whether the score is that of the photo with its text boxes filled. Needs `boxes`."
    )
    noise_words: NoiseProposals = Field(NoiseProposals(), description="Which words are proposed as noise.")


class Learned(Config):
    """Signals that need a model. null: not measured."""

    watermark: WatermarkCut | None = Field(None, description="Score of a watermark.")
    boxes: BoxesCut | None = Field(None, description="Text boxes.")
    adult: AdultCut | None = Field(None, description="Score of adult content.")
    score: ScoreCut | None = Field(None, description="Score of a photo and a text.")

    @model_validator(mode="after")
    def _fits(self) -> Learned:
        if self.score and self.score.masked and not self.boxes:
            raise ValueError("score.masked fills text boxes: set boxes too")
        return self


class Texting(Config):
    """Which texts a photo gets."""

    titles: int = Field(5, ge=0, description="Most titles of a photo.")
    queries: int = Field(10, ge=0, description="Most queries of a photo, by clicks.")
    of_documents: Literal["best", "first", "all"] = Field(
        "best",
        description="Photos that get a query whose click names a document only: the one of the best score (the first "
        "one where nothing is scored), the first one, or all.",
    )


class Shards(Config):
    records: int = Field(10_000, ge=1, description="Records in a shard.")
    val: float = Field(0.01, ge=0, lt=1, description="Share of photos in the split `val`, by a hash of the file.")
    test: float = Field(0.01, ge=0, lt=1, description="Share of photos in the split `test`.")
    captions: bool = Field(
        False,
        description="Whether shards hold `NNNNNNNNNN.txt` too, the query of most clicks or else the title: open_clip up to "
        "3.3 reads captions from there.",
    )
    quality: int = Field(95, ge=1, le=100, description="JPEG quality of photos that are not JPEG in the source.")


class PartSizes(Config):
    """Rows of one part: the work of a task. Another size gives the same records."""

    photos: int = Field(1000, ge=1, description="Photos that are measured in a task.")
    texts: int = Field(20_000, ge=1, description="Texts that are measured in a task.")
    learned: int = Field(500, ge=1, description="Photos whose learned signals are measured in a task.")


class CurationConfig(Config):
    """A curation. What is measured without a model depends on `raw`, `fetching` and `texts.brands` only."""

    name: str = Field("curated", pattern=r"[\w.-]{1,100}", description="Name of the dataset.")
    raw: RawTables = Field(description="The raw tables, or a folder with photos, documents and clicks.")
    out: str = Field(description="Folder of the dataset; it appears when it is complete.")
    signals: str | None = Field(
        None,
        description="Folder of what was measured, which every node reaches. With other rules the same command "
        "measures nothing again. null: `OUT.signals`.",
    )
    fetching: Fetching = Field(Fetching(), description="How photos are fetched.")
    photo: PhotoCut = Field(PhotoCut(), description="What keeps a photo.")
    texts: Texts = Field(Texts(), description="What keeps a text.")
    learned: Learned = Field(Learned(), description="Signals that need a model, and their limits.")
    chosen: Texting = Field(Texting(), description="Which texts a photo gets.")
    held_out: tuple[str, ...] = Field(
        (), description="Datasets for evaluation: their photos, and copies of them, are left out."
    )
    memory: str = Field(
        "2GB",
        pattern=r"\d+ ?[KMGT]B",
        description="Memory of the joins, which spill to disk beyond it.",
    )
    shards: Shards = Field(Shards(), description="The shards.")
    parts: PartSizes = Field(PartSizes(), description="How the work is divided.")

    @model_validator(mode="after")
    def _signals_are_files(self) -> CurationConfig:
        if "://" in (self.signals or self.out):
            raise ValueError("signals must be a folder of files that every node reaches: set signals=")
        if set("[]*?") & set(self.out + (self.signals or "")):
            raise ValueError("out and signals may not have [, ], * or ? in their paths: choose another folder")
        return self

    @property
    def folder(self) -> str:
        """The folder of what was measured."""
        return os.path.abspath(self.signals or f"{self.out.rstrip('/')}.signals")

    def measured_with(self) -> Mapping[str, Any]:
        """The settings that decide what is measured of photos and texts without a model."""
        return self.model_dump(
            mode="json",
            include={"raw": True, "fetching": True, "texts": {"brands"}, "parts": {"photos", "texts"}},
        )
