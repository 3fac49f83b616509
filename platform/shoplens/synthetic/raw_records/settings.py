"""Settings of raw records."""

from __future__ import annotations

from pydantic import Field, field_validator

from shoplens.config import Config


class RawRecords(Config):
    """Settings of raw records. Equal settings give equal files."""

    records: int = Field(default=20_000, ge=1, le=5_000_000, description="Documents, each with a title and photos.")
    seed: int = Field(default=7, ge=0, description="Seed of all random draws.")
    photos: tuple[float, ...] = Field(
        default=(0.7, 0.2, 0.07, 0.03), description="Shares of documents with 1, 2, 3 ... photos; their sum is 1."
    )
    image_size: int = Field(
        default=240,
        ge=200,
        le=1024,
        description="Width and height of most photos, in pixels. A curation drops photos below 200.",
    )
    documents_per_product: int = Field(default=4, ge=1, description="Documents about one product, at the most usual.")
    photo_flaws: float = Field(default=0.25, ge=0, le=1, description="Share of photos with a flaw, each kind as often.")
    text_flaws: float = Field(default=0.2, ge=0, le=1, description="Share of titles and of queries with a flaw.")
    hard_texts: float = Field(
        default=0.08,
        ge=0,
        le=1,
        description="Share of titles and queries without flaw that hold what looks like one, such as a date.",
    )
    duplicates: float = Field(
        default=0.05, ge=0, lt=1, description="Share of documents whose first photo is a copy of another's, coded anew."
    )
    mismatched: float = Field(
        default=0.1, ge=0, le=1, description="Share of documents whose title and photos show different products."
    )
    queries: float = Field(default=2.5, ge=0, le=100, description="Mean number of queries that lead to a document.")
    mismatched_queries: float = Field(
        default=0.15, ge=0, le=1, description="Share of clicks from a query for another product."
    )
    useless_queries: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of documents that a query leads to with a word that tells nothing about photos and is not listed.",
    )
    skew: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Share of documents that one and the same query leads to. As many queries lead to one photo.",
    )

    @field_validator("photos")
    @classmethod
    def _is_distribution(cls, photos: tuple[float, ...]) -> tuple[float, ...]:
        if not photos or min(photos) < 0 or abs(sum(photos) - 1) > 1e-6:
            raise ValueError("shares of documents are not negative and add up to 1")
        return photos
