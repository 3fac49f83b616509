"""Trainable models, one file each. A recipe is found by the name of its file, or by a plug-in's entry point.

The file's `RECIPE` is a class that implements the contract of `recipes.base`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoplens.config import ConfigError
from shoplens.plugins import recipe_modules

if TYPE_CHECKING:
    from shoplens.datasets.format import Dataset
    from shoplens.evaluation.results import Evaluation
    from shoplens.recipes.base import Recipe

CONTRACT = {"base", "schedule"}
"""Modules of this folder that are no recipes."""


def names() -> list[str]:
    ours = {module.name for module in pkgutil.iter_modules(__path__)} - CONTRACT
    return sorted(ours | recipe_modules().keys())


def find(name: object) -> type[Recipe]:
    """The recipe of that name. Raises ConfigError listing the recipes there are."""
    if name not in names():
        raise ConfigError(f"there is no recipe {name!r}; `recipe:` is one of {', '.join(names())}")
    module = import_module(recipe_modules().get(str(name), f"{__name__}.{name}"))
    found: type[Recipe] = module.RECIPE
    return found


def evaluate(
    package: Path,
    dataset: Dataset,
    split: str,
    model: str,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[Evaluation, str]:
    """Judges a package by its own recipe; `model` names it in the figures. See `Recipe.evaluate`."""
    from shoplens.packages.model import read_config

    recipe = find(read_config(package).get("recipe"))
    return recipe.evaluate(package, dataset, split, {"model": model}, overrides)
