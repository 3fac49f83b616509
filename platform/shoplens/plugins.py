"""Recipes that other installed distributions bring, by the entry point group `shoplens.recipes`.

A shop keeps its own model in its own repository, and names it in that repository's pyproject.toml:

    [project.entry-points."shoplens.recipes"]
    my_model = "my_shop.my_model"
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

GROUP = "shoplens.recipes"


@cache
def recipe_modules() -> dict[str, str]:
    """Name of each recipe that a plug-in brings -> its module."""
    return {point.name: point.module for point in entry_points(group=GROUP)}


def trusted(module: str) -> bool:
    """Whether a package may name a class of this module: one of shoplens, or of a plug-in that is installed here.

    A package comes out of a registry that many people can write to. Importing whatever module it names would run
    code of their choice.
    """
    root = module.partition(".")[0]
    return root == "shoplens" or root in {plugin.partition(".")[0] for plugin in recipe_modules().values()}
