"""The setting that every evaluation has."""

from __future__ import annotations

from pydantic import Field

from shoplens.config import Config
from shoplens.schema import Split


class JudgingConfig(Config):
    """Base of a recipe's `evaluation:` settings."""

    split: Split = Field("val", description="Split of the dataset that is judged.")
