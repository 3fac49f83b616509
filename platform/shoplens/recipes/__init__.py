"""One file per trainable model. A recipe is found by its file's name; its module offers

`load(tree, where)`      the configuration, as YAML holds it -> a recipe ready to train (see `training.recipe.Recipe`)
`evaluate(package, dataset, split, about, overrides)`  -> `Evaluation` and the report's HTML
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from shoplens.config import ConfigError


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find(name: object) -> ModuleType:
    """The module of a recipe. Raises ConfigError listing the recipes there are."""
    if name not in names():
        raise ConfigError(f"there is no recipe {name!r}; `recipe:` is one of {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
