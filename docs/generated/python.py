"""The Python reference: a page for each room, which mkdocstrings fills from the docstrings."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import shoplens


def pages() -> list[tuple[str, str, str]]:
    return [(name, f"python/{name}", _page(f"shoplens.{name}")) for name in rooms()]


def rooms() -> list[str]:
    """The public modules and packages right under `shoplens`."""
    return sorted(module.name for module in pkgutil.iter_modules(shoplens.__path__) if not module.name.startswith("_"))


def _page(room: str) -> str:
    summary = inspect.getdoc(importlib.import_module(room)) or ""
    return f"# {room}\n\n{summary.partition(chr(10))[0]}\n\n::: {room}\n"
