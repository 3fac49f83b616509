"""A trained model as files, and as an object that answers batches.

A package is a folder: `config.json`, `model.safetensors`, `MODEL_CARD.md`, the files that its class adds, and attribute
heads where it has some. `config.json` names the class, `module:Class`, and what the model can do.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from typing_extensions import Self

from shoplens import plugins
from shoplens.datasets.preprocessing import Preprocessing
from shoplens.errors import ShoplensError
from shoplens.evaluation.heads.extractor import Extractor
from shoplens.packages.capabilities import EXTRACT_ATTRIBUTES, Capability

T = TypeVar("T")

FILES = ("model.safetensors", "config.json", "MODEL_CARD.md")
"""Files of every package. `PackagedModel.files` lists the files that a class adds."""
RENAMED = {
    "shoplens.models.photo_embedder:PhotoEmbedder": "shoplens.packages.photo_embedder:PhotoEmbedder",
    "shoplens.models.embedder:Embedder": "shoplens.packages.embedder:Embedder",
    "shoplens.models.ranker:Ranker": "shoplens.recipes.clik:Ranker",
    "shoplens.models.similar:SimilarEmbedder": "shoplens.recipes.similar:SimilarEmbedder",
}
"""Classes as packages of shoplens 0.1 name them."""


class PackagedModel(ABC):
    """A trained model. Subclasses add preprocessing, a tokenizer, and a method for each capability.

    capabilities   what every model of the class can do; the methods are those of the protocols in `capabilities`
    files          files of the package beside `FILES`
    """

    capabilities: ClassVar[tuple[Capability[Any, Any], ...]]
    files: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str, model: nn.Module) -> None:
        self.name = name
        self.model = model.eval()
        self.extractor: Extractor | None = None
        """Attribute heads for this model's vectors."""

    @property
    def can(self) -> tuple[Capability[Any, Any], ...]:
        """The capabilities of this very model: those of its class, and attributes if it has heads for them."""
        return self.capabilities if self.extractor is None else (*self.capabilities, EXTRACT_ATTRIBUTES)

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How a photo becomes pixels; None if the model reads none."""
        return None

    @property
    def dim(self) -> int | None:
        """Length of the model's vectors; None if it makes none."""
        return None

    @property
    def cosine_scale(self) -> float:
        """What a cosine of two vectors is multiplied by before a softmax over candidates."""
        return 1.0

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: str | torch.device) -> Self:
        self.model.to(device)
        return self

    def save(self, folder: str | os.PathLike[str], card: str, about: Mapping[str, Any]) -> None:
        """Writes the package aside, then moves it to `folder`, which must not exist.

        `about` (recipe, its settings, dataset digest) goes into `config.json`.
        """
        folder = Path(folder)
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.model.state_dict().items()}
        save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
        config = {
            "name": self.name,
            "class": f"{type(self).__module__}:{type(self).__name__}",
            "capabilities": [capability.name for capability in self.capabilities],
            **about,
            **self.write(partial),
        }
        (partial / "config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False))
        (partial / "MODEL_CARD.md").write_text(card)
        partial.rename(folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """The model of a package, which must be of this class.

        Raises ShoplensError if a file is missing or does not fit the others, or if the package is of another class.
        """
        folder = Path(folder)
        config = read_config(folder)
        kind = class_of(config, folder)
        if not issubclass(kind, cls):
            can = ", ".join(capability.title for capability in kind.capabilities)
            raise ShoplensError(
                f"{folder} holds a {kind.__name__}, and this takes a {cls.__name__}: its model does {can}"
            )
        weights = read_file(folder, "model.safetensors", load_file)
        model = kind.read(config, folder)
        try:
            model.model.load_state_dict(weights)
        except RuntimeError as error:
            raise ShoplensError(f"the weights of {folder} do not fit its config.json: {error}") from error
        model.extractor = Extractor.load(folder)
        if model.extractor is not None and model.extractor.dim != model.dim:
            raise ShoplensError(
                f"{folder}: the attribute heads take vectors of {model.extractor.dim} numbers, the model gives {model.dim}"
            )
        return model

    @abstractmethod
    def write(self, folder: Path) -> Mapping[str, Any]:
        """Writes `files` into the folder; returns entries of `config.json`, the architecture among them."""

    @classmethod
    @abstractmethod
    def read(cls, config: Mapping[str, Any], folder: Path) -> Self:
        """The model that `write` described, with weights yet to be loaded. Raises ShoplensError."""


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a package. Raises ShoplensError."""
    return read_file(folder, "config.json", lambda path: json.loads(path.read_text()))


def read_file(folder: Path, name: str, read: Callable[[Path], T]) -> T:
    """A file of a package. Raises ShoplensError if it is missing or damaged."""
    if not (folder / name).is_file():
        raise ShoplensError(f"{folder} is not a package: {name} is missing")
    try:
        return read(folder / name)
    except Exception as error:  # tokenizers and safetensors raise classes of their own
        raise ShoplensError(f"the package {folder} is damaged: {error}") from error


def class_of(config: Mapping[str, Any], folder: Path) -> type[PackagedModel]:
    """The class that `config.json` names. Raises ShoplensError if it is not of shoplens or an installed plug-in."""
    name = str(config.get("class", config.get("embedder", "")))
    match = re.fullmatch(r"([\w.]+):(\w+)", RENAMED.get(name, name))
    found = None
    if match and plugins.trusted(match[1]):
        try:
            found = getattr(import_module(match[1]), match[2], None)
        except ImportError:
            found = None
    if not (isinstance(found, type) and issubclass(found, PackagedModel)):
        raise ShoplensError(
            f"{folder}/config.json names a class that is not here: {name!r}. If it belongs to a plug-in, install the "
            f"plug-in here too; it is known by its entry point in the group {plugins.GROUP!r}"
        )
    return found
