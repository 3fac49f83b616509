"""Settings that a user writes in YAML or on a command line: one page for each tree of settings."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python

import serve_apps
import shoplens
import workloads
from generate.tables import code, table, type_of
from shoplens.config import Config

TITLES = {
    "shoplens.cluster.file": "Cluster file",
    "serve_apps.settings": "Cluster file: args of the application",
    "shoplens.search.build": "workloads.build_index",
    "shoplens.curation.pipeline.config": "workloads.curate",
    "shoplens.synthetic.shop": "shoplens dataset synthesize",
    "shoplens.synthetic.raw_records.settings": "shoplens dataset raw",
    "shoplens.synthetic.outfits.settings": "shoplens dataset outfits",
    "shoplens.search.lists.evaluation": "workloads.evaluate_lists",
    "shoplens.experiments.verdict": "workloads.analyze_ab",
}
RECORDS = ("shoplens.registry",)
"""Rooms whose own top settings are written by shoplens, not by a user."""


def pages() -> list[tuple[str, str, str]]:
    """(title, name, Markdown) of every page, recipes first."""
    roots = top_settings()
    of_module = Counter(model.__module__ for model in roots)
    titled = []
    for model in roots:
        room, _, name = model.__module__.rpartition(".")
        title = f"Recipe {name}" if room == "shoplens.recipes" else TITLES.get(model.__module__, model.__module__)
        titled.append((title if of_module[model.__module__] == 1 else f"{title}: {model.__name__}", model))
    titled.sort(key=lambda entry: (not entry[0].startswith("Recipe "), entry[0]))
    return [(title, f"settings/{_slug(title)}", page(title, model)) for title, model in titled]


def _slug(title: str) -> str:
    return re.sub(r"\W+", "_", title.lower().removeprefix("recipe "))


def all_settings() -> list[type[Config]]:
    """Every subclass of Config in the project, after every module was imported."""
    for package in (shoplens, serve_apps, workloads):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    ours = ("shoplens.", "serve_apps.", "workloads.")
    return [model for model in _subclasses(Config) if model.__module__.startswith(ours)]


def top_settings() -> list[type[Config]]:
    """Settings that are neither a section of others nor a base that others extend."""
    every = all_settings()
    inner = {model for outer in every for field in outer.model_fields.values() for model in models_in(field.annotation)}
    bases = {base for model in every for base in model.__mro__[1:]}
    return [
        model
        for model in every
        if model not in inner and model not in bases and not model.__module__.startswith(RECORDS)
    ]


def _subclasses(model: type[Config]) -> Iterator[type[Config]]:
    for sub in model.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The pydantic models that an annotation names, those inside `tuple[...]`, `dict[...]` and `X | None` too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_in(argument)]


def page(title: str, model: type[BaseModel]) -> str:
    return "\n".join([f"# {title}\n", *_section(model, "", None)])


def _section(model: type[BaseModel], prefix: str, given: BaseModel | None) -> Iterator[str]:
    """The settings of a model as a table, then a section for each model among them.

    `prefix` is the dotted key that leads here; `given` holds the values that the outer model sets by default.
    """
    if prefix:
        yield f"## {prefix.removesuffix('.')} {{: #{prefix.removesuffix('.').replace('[]', '')} }}\n"
    yield f"{own_docstring(model)}\n"
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    properties = schema["properties"] if "properties" in schema else definitions[model.__name__]["properties"]
    rows, inner = [], []
    for name, field in model.model_fields.items():
        default = (
            getattr(given, name)
            if given is not None
            else field.get_default(call_default_factory=True, validated_data={})
        )
        sections = [part for part in models_in(field.annotation) if part is not model]
        key = f"{prefix}{name}"
        rows.append(
            (
                f"`{key}`",
                type_of(properties[name], definitions, lambda _: "section"),
                _default(default, sections),
                description(model, name),
            )
        )
        inner += [(part, f"{key}{_step(field.annotation)}", default) for part in sections]
    yield table(("key", "type", "default", "description"), rows)
    for part, key, default in inner:
        yield from _section(part, f"{key}.", default if type(default) is part else None)


def description(model: type[BaseModel], name: str) -> str:
    """The description of a setting: its own, that of the base's field it narrows, or the start of its section's text."""
    for base in model.__mro__:
        field = getattr(base, "model_fields", {}).get(name)
        if field is not None and field.description:
            return str(field.description)
    sections = models_in(model.model_fields[name].annotation)
    return own_docstring(sections[0]).partition("\n\n")[0] if sections else ""


def own_docstring(model: type[BaseModel]) -> str:
    """Without that of a base, which pydantic and `inspect` would take instead."""
    return inspect.cleandoc(model.__dict__.get("__doc__") or "")


def _step(annotation: Any) -> str:
    """What stands between a key and the keys of its models: `[]` for lists, `.NAME` for mappings."""
    origin = get_origin(annotation)
    if origin in (tuple, list):
        return "[]"
    if origin is dict:
        return ".NAME"
    return next((step for part in get_args(annotation) if (step := _step(part))), "")


def _default(default: Any, sections: list[type[BaseModel]]) -> str:
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, BaseModel) or (sections and default):
        return "see below"
    return code(to_jsonable_python(default))


def undescribed() -> list[str]:
    """`module.Model.field` of every setting on these pages that has no description."""
    models: list[type[BaseModel]] = list(top_settings())
    for model in models:
        inner = (part for field in model.model_fields.values() for part in models_in(field.annotation))
        models += [part for part in dict.fromkeys(inner) if part not in models]
    return sorted(
        f"{model.__module__}.{model.__name__}.{name}"
        for model in models
        for name in model.model_fields
        if not description(model, name)
    )
