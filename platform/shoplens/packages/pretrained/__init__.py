"""Pretrained dual encoders to start training from: shoplens packages, Hugging Face CLIP and SigLIP, open_clip."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shoplens.config import ConfigError
from shoplens.errors import ShoplensError
from shoplens.nn.photo_encoder import PhotoEncoderConfig
from shoplens.packages.pretrained import huggingface, open_clip, package
from shoplens.packages.pretrained.source import Pretrained, PretrainedPhotos, read_json

__all__ = ["Pretrained", "PretrainedPhotos", "filled_in", "read", "read_photos"]


def read(source: str) -> Pretrained:
    """Reads a shoplens package by its folder, or a checkpoint by hub name or folder.

    A checkpoint with both a transformers and an open_clip configuration is read as a transformers checkpoint.
    Raises ShoplensError if the checkpoint cannot be read, or `DualEncoder` does not support its architecture.
    """
    if (Path(source) / "preprocess.json").is_file():
        return package.read(source)
    config = read_json(source, "config.json")
    kind = (config or {}).get("model_type")
    if kind in huggingface.WEIGHT_NAMES:
        return huggingface.read(source, kind)
    settings = read_json(source, open_clip.CONFIG)
    if settings is not None:
        return open_clip.read(source, settings)
    problem = (
        f"its config.json says model_type {kind!r}" if config else f"it has no config.json and no {open_clip.CONFIG}"
    )
    raise ShoplensError(f"{source} is no checkpoint of CLIP, SigLIP or open_clip: {problem}")


def read_photos(source: str) -> PretrainedPhotos:
    """Reads the image tower of a package, with or without a text tower, or of a checkpoint.

    Raises ShoplensError like `read`.
    """
    if (Path(source) / "preprocess.json").is_file():
        return package.read_photos(source)
    checkpoint = read(source)
    tower = PhotoEncoderConfig(image=checkpoint.model.image, dim=checkpoint.model.dim)
    return PretrainedPhotos(tower, checkpoint.preprocessing, checkpoint.weights)


def filled_in(tree: Mapping[str, Any], where: str, *, photos_only: bool = False) -> dict[str, Any]:
    """Completes a recipe's settings with the towers and preprocessing of the checkpoint `model.start_from`.

    photos_only   complete the image tower only

    Raises ConfigError if a setting contradicts the checkpoint, and ShoplensError like `read`.
    """
    model = tree.get("model")
    if not isinstance(model, Mapping) or not model.get("start_from"):
        return dict(tree)
    checkpoint = (read_photos if photos_only else read)(str(model["start_from"]))
    settings = {
        "model": checkpoint.model.model_dump(mode="json", include={"image", "text", "dim", "logit_bias"}),
        "preprocessing": checkpoint.preprocessing.model_dump(mode="json"),
    }
    return _merged(tree, settings, where, ())


def _merged(tree: Mapping[str, Any], settings: Mapping[str, Any], where: str, path: tuple[str, ...]) -> dict[str, Any]:
    merged = dict(tree)
    for key, value in settings.items():
        here = (*path, key)
        given = tree.get(key)
        if isinstance(given, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(given, value, where, here)
        elif given is None or given == value:
            merged[key] = value
        else:
            raise ConfigError(
                f"{where} cannot be used:\n  {'.'.join(here)} is {given!r:.80}, where the checkpoint of model.start_from "
                f"has {value!r:.80}: leave it out, as workloads/configs/eclip_finetune.yaml does"
            )
    return merged
