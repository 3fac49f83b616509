"""The Python reference: a page for each room, which mkdocstrings fills from the docstrings."""

from __future__ import annotations

import pkgutil

import shoplens


def pages() -> list[tuple[str, str, str]]:
    return [(name, f"python/{name}", f"::: shoplens.{name}\n") for name in rooms()]


def rooms() -> list[str]:
    """The public modules and packages right under `shoplens`."""
    return sorted(module.name for module in pkgutil.iter_modules(shoplens.__path__) if not module.name.startswith("_"))
