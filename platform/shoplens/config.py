"""Typed configuration: YAML becomes a frozen pydantic model. An unknown key is an error that names the nearest key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from shoplens.errors import ShoplensError


class ConfigError(ShoplensError):
    """An unusable configuration. The message names the file, the key and the remedy."""


class Config(BaseModel):
    """Base of every configuration: unknown keys are errors, and instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


C = TypeVar("C", bound=Config)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError if the file is missing, is not YAML or holds no mapping."""
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}: check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold `key: value` pairs")
    return tree


def override(tree: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """A copy of `tree` with the assignments applied. Values are YAML: `training.epochs=3`, `splits=[train, val]`.

    Raises ConfigError if an assignment has no key or no `=`, its value is not YAML, or a parent key is not a section.
    """
    merged = yaml.safe_load(yaml.safe_dump(dict(tree)))
    for assignment in assignments:
        key, sign, value = assignment.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"cannot read {assignment!r}: write key=value or key.sub=value")
        *parents, leaf = key.strip().split(".")
        branch = merged
        for parent in parents:
            if branch.get(parent) is None:
                branch[parent] = {}
            branch = branch[parent]
            if not isinstance(branch, dict):
                raise ConfigError(f"cannot set {key}: {parent} is a value, not a section; set {parent} itself")
        try:
            branch[leaf] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"the value of {key} is not YAML: {value!r}") from error
    return merged


def validate(model: type[C], tree: Mapping[str, Any], where: str) -> C:
    """`tree` as a `model`. Raises ConfigError with one line a mistake: the key, the fault and the nearest known key.

    `where` names the source of the tree in the message, for example the file.
    """
    try:
        return model.model_validate(dict(tree))
    except ValidationError as error:
        raise ConfigError("\n".join([f"{where} cannot be used:", *_lines(model, error)])) from None


def _lines(model: type[BaseModel], error: ValidationError) -> Iterable[str]:
    for fault in error.errors(include_url=False):
        place = ".".join(str(part) for part in fault["loc"]) or "(top)"
        if fault["type"] == "extra_forbidden":
            *parents, name = fault["loc"]
            near = difflib.get_close_matches(str(name), _known_keys(model, parents), n=1, cutoff=0.5)
            yield f"  {place}: unknown key" + (f"; did you mean {near[0]}?" if near else "")
        else:
            yield f"  {place}: {fault['msg'].removeprefix('Value error, ')} (got {fault['input']!r:.80})"


def _known_keys(model: type[BaseModel], path: Iterable[str | int]) -> list[str]:
    """Field names of every model that `path` can lead to. List positions and union tags are skipped."""
    models = [model]
    for part in path:
        inner = [
            found
            for outer in models
            if part in outer.model_fields
            for found in _models_in(outer.model_fields[str(part)].annotation)
        ]
        models = inner or models
    return [name for candidate in models for name in candidate.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
