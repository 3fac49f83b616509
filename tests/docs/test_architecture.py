"""The architecture page shows the rooms that there are, in the order in which they import."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text("utf-8")
LISTED = re.findall(r"^\| `(\w+)` \|", PAGE.partition("## Rooms")[2].partition("\n## ")[0], re.MULTILINE)


def test_the_table_has_every_room() -> None:
    folder = ROOT / "platform/shoplens"
    packages = {path.parent.name for path in folder.glob("*/__init__.py")}
    modules = {path.stem for path in folder.glob("*.py") if path.stem != "__init__"}
    assert sorted(LISTED) == sorted(packages | modules)


def test_the_table_is_in_import_order() -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    order = [[name.strip().removeprefix("shoplens.") for name in layer.split("|")] for layer in reversed(layers)]
    place = {room: at for at, layer in enumerate(order) for room in layer}
    ordered = [room for room in LISTED if room in place]
    assert sorted(ordered, key=place.__getitem__) == ordered


def test_the_drawing_has_every_room() -> None:
    drawn = re.findall(r'<text class="name"[^>]*>(\w+)<', (ROOT / "docs/images/rooms.svg").read_text("utf-8"))
    assert set(LISTED) | {"workloads", "serve_apps"} == set(drawn)
