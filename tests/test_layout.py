"""Rules of the source tree that no import contract can say: where `platform/` lies, how long a file is, who names a model.

`lint-imports` checks the order of the rooms and that imports make no circle.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

ASK = "import platform; print(platform.system(), platform.__file__)"


def test_platform_is_not_a_package() -> None:
    assert (ROOT / "platform" / "shoplens" / "__init__.py").is_file()
    assert not (ROOT / "platform" / "__init__.py").exists()


@pytest.mark.parametrize("python_path", ["", ".", f"{ROOT}", f"{ROOT}{os.pathsep}{ROOT / 'platform'}"])
def test_import_platform_is_the_standard_library(python_path: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert answer[0] == os.uname().sysname
    assert not Path(answer[1]).is_relative_to(ROOT / "platform")


def test_import_platform_in_a_ray_worker(ray_local: None) -> None:
    import ray

    @ray.remote(num_cpus=0.1, runtime_env={"env_vars": {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'platform'}"}})
    def where() -> tuple[str, str]:
        import platform

        import shoplens

        return str(platform.__file__), str(shoplens.__file__)

    standard, ours = ray.get(where.remote())
    assert not Path(standard).is_relative_to(ROOT / "platform")
    assert Path(ours).is_relative_to(ROOT / "platform")


SOURCES = {
    path.relative_to(ROOT).as_posix(): path
    for root in ("platform", "serve_apps", "workloads")
    for path in sorted((ROOT / root).rglob("*.py"))
}
LONGEST = 500
DRAWINGS = ("platform/shoplens/synthetic/departments.py", "platform/shoplens/synthetic/silhouettes/")
"""Data in the form of code: what the synthetic shop sells and looks like."""


def test_no_file_is_longer_than_a_reader_holds() -> None:
    lines = {name: len(path.read_text().splitlines()) for name, path in SOURCES.items()}
    assert len(lines) > 100
    assert [name for name, n in lines.items() if n > LONGEST and not name.startswith(DRAWINGS)] == []


CONFIGURATIONS = [yaml.safe_load(path.read_text()) for path in (ROOT / "workloads/configs").glob("*.yaml")]
MODELS = {tree["name"] for tree in CONFIGURATIONS if "recipe" in tree}
"""The names under which models are registered."""
REFERENCE = re.compile(rf"({'|'.join(map(re.escape, sorted(MODELS)))})(@.*|/\d*)?")
"""`eclip`, `eclip@champion`, `eclip/3`, and what an f-string begins with; not a metric's name, `similar/recall@1`."""
OF_MODELS = (
    "platform/shoplens/recipes/",
    "platform/shoplens/nn/",
    "platform/shoplens/objectives/",
    "platform/shoplens/sampling/",
)
SHOWN = {"description", "help", "epilog", "example", "examples", "surface"}
"""Keys, arguments and settings whose values are read by people, or name a place in the shop."""
EXAMPLES = {"BODY", "_PAGE"}
"""Constants of the endpoints that hold the examples of the API reference."""
NAMED = {
    ("platform/shoplens/evaluation/metric_space.py", "similar"),  # a task, whose metrics are called similar/...
    ("workloads/demo.py", "eclip"),
    ("workloads/demo.py", "clik"),
    ("workloads/demo.py", "similar"),
}
"""Where a model is named all the same."""


def literals(node: ast.AST) -> Iterator[str]:
    """The strings of a piece of code, without docstrings and without what is `SHOWN`."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in EXAMPLES:
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if key is not None:
                yield from literals(key)
            if not (isinstance(key, ast.Constant) and key.value in SHOWN):
                yield from literals(value)
    elif not (isinstance(node, ast.keyword) and node.arg in SHOWN) and not (
        isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id in SHOWN
    ):
        for child in ast.iter_child_nodes(node):
            yield from literals(child)


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("if name == 'eclip': pass", ["eclip"]),
        ("KEYS = {'clik': 1}", ["clik"]),
        ("def load(model='similar'): pass", ["similar"]),
        ("class Settings:\n    models: tuple[str, ...] = Field(('eclip',), description='eclip')", ["eclip"]),
        ("wait(f'eclip/{version}')", ["eclip/"]),
        ("client.load(reference='similar@champion')", ["similar@champion"]),
        ("def f():\n    'eclip'\n    # clik", []),
        ("{'examples': {'title': {'value': {'model': 'eclip'}}}, 'surface': 'similar'}", []),
        ("Field(examples=['eclip/3'])\nlog('similar/recall@1', 'dissimilar', 'eclip.yaml')", []),
    ],
)
def test_a_model_that_is_named_in_code_is_found(code: str, named: list[str]) -> None:
    assert [text for text in literals(ast.parse(code)) if REFERENCE.fullmatch(text)] == named


def test_only_recipes_and_configurations_name_a_model() -> None:
    assert {"eclip", "clik", "similar"} <= MODELS
    found = {
        (name, text)
        for name, path in SOURCES.items()
        if not name.startswith(OF_MODELS)
        for text in literals(ast.parse(path.read_text()))
        if REFERENCE.fullmatch(text)
    }
    assert found == NAMED


def classes_of(tree: ast.AST) -> Iterator[tuple[str, list[str]]]:
    """(class, the names it derives from)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name, [ast.unparse(base).rpartition(".")[2] for base in node.bases]


def packaged(trees: dict[str, ast.AST]) -> set[str]:
    """`PackagedModel` and all classes that derive from it, at however many removes."""
    bases = dict(found for tree in trees.values() for found in classes_of(tree))
    found = {"PackagedModel"}
    while more := {name for name, of in bases.items() if found.intersection(of)} - found:
        found |= more
    return found


def probes(tree: ast.AST, classes: set[str]) -> Iterator[str]:
    """Calls that ask which class a packaged model is of, or whether an object happens to have a method."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "hasattr":
                yield "hasattr"
            elif node.func.id in ("isinstance", "issubclass"):
                asked = (part for part in ast.walk(node.args[1]) if isinstance(part, ast.Name | ast.Attribute))
                yield from classes.intersection(part.id if isinstance(part, ast.Name) else part.attr for part in asked)


def test_what_a_packaged_model_can_do_is_declared_not_probed() -> None:
    """Outside recipes/ and packages/, code asks for a capability: a class would name the model, `hasattr` would guess."""
    trees: dict[str, ast.AST] = {name: ast.parse(path.read_text()) for name, path in SOURCES.items()}
    classes = packaged(trees)
    assert {"PackagedModel", "Embedder", "PhotoEmbedder", "Ranker"} <= classes
    code = "ok = hasattr(m, 'rank') or isinstance(m, str | clik.Ranker) or isinstance(m, (int, Embedder))"
    assert list(probes(ast.parse(code), classes)) == ["hasattr", "Ranker", "Embedder"]
    owners = ("platform/shoplens/recipes/", "platform/shoplens/packages/")
    found = {
        (name, probe) for name, tree in trees.items() if not name.startswith(owners) for probe in probes(tree, classes)
    }
    assert found == set()
