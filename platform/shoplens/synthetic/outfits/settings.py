"""Settings of the outfits."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from shoplens.config import Config
from shoplens.synthetic.catalogue import Catalogue
from shoplens.synthetic.outfits.wardrobe import RARE, VALUES


class Outfits(Config):
    """Settings of a dataset of outfits. Equal settings give equal datasets."""

    outfits: int = Field(default=2000, ge=1, le=10_000_000, description="Photos of a figure with garments.")
    seed: int = Field(default=7, ge=0, description="Seed of all random draws.")
    sellers: int = Field(default=24, ge=1, le=4096, description="Sellers, each with a style of photos and titles.")
    image_size: int = Field(default=224, ge=96, le=1024, description="Width and height of a photo in pixels.")
    dresses: float = Field(default=0.25, ge=0, le=1, description="Share of outfits with a dress, not top and bottom.")
    skirts: float = Field(default=0.5, ge=0, le=1, description="Share of bottoms that are skirts, not trousers.")
    bags: float = Field(default=0.6, ge=0, le=1, description="Share of outfits with a bag.")
    patterned: float = Field(default=0.6, ge=0, le=1, description="Share of garments with a pattern.")
    rare: float = Field(
        default=0.02, ge=0, le=0.2, description="Share of each rare value among the garments that can have it."
    )
    held_out: tuple[str, ...] = Field(
        default=("leaf print", "square neck", "tiered", "square toe"),
        description="Values, in English, that only the split `test` has.",
    )
    language: Literal["en", "ko"] = Field(
        default="en", description="Language of keys and values in `attributes`: `en` as in the shop, or `ko`."
    )
    val: float = Field(default=0.1, ge=0, lt=1, description="Share of outfits in the split `val`.")
    test: float = Field(default=0.1, ge=0, lt=1, description="Share of outfits in the split `test`.")

    @field_validator("held_out")
    @classmethod
    def _are_known(cls, held_out: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(held_out) - (VALUES - RARE - {"plain"})):
            raise ValueError(f"{unknown[0]!r} cannot be held out: name values of the wardrobe that are not rare")
        return held_out

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> Outfits:
        if self.val + self.test >= 1:
            raise ValueError("val and test together leave nothing to train on: their sum must be less than 1")
        return self

    def split(self, outfit: int) -> str:
        """The split of a whole outfit. Every block of 20 outfits has the shares of the splits."""
        shares = (("train", 1 - self.val - self.test), ("val", self.val), ("test", self.test))
        return Catalogue(self.seed, self.outfits, 1, shares).split(outfit)
