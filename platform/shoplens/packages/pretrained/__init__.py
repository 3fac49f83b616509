"""Trained dual encoders as a beginning: packages of ours, Hugging Face CLIP and SigLIP, open_clip."""

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
    """A package of ours by its folder, or a checkpoint by hub name or folder (of two layouts, the transformers one).

    Raises ShoplensError if it cannot be had, or is of an architecture that e-CLIP cannot take over.
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
    what = f"its config.json says model_type {kind!r}" if config else f"it has no config.json and no {open_clip.CONFIG}"
    raise ShoplensError(f"{source} is no checkpoint of CLIP, SigLIP or open_clip: {what}")


def read_photos(source: str) -> PretrainedPhotos:
    """The image tower of what `read` reads, and of packages without a text tower. Raises ShoplensError as it does."""
    if (Path(source) / "preprocess.json").is_file():
        return package.read_photos(source)
    found = read(source)
    tower = PhotoEncoderConfig(image=found.model.image, dim=found.model.dim)
    return PretrainedPhotos(tower, found.preprocessing, found.weights)


def filled_in(tree: Mapping[str, Any], where: str, *, photos_only: bool = False) -> dict[str, Any]:
    """A recipe's settings with the towers and preprocessing that `model.start_from` brings, or the image tower alone.

    Raises ConfigError if a setting contradicts the checkpoint, ShoplensError as `read` does.
    """
    model = tree.get("model")
    if not isinstance(model, Mapping) or not model.get("start_from"):
        return dict(tree)
    found = (read_photos if photos_only else read)(str(model["start_from"]))
    brought = {
        "model": found.model.model_dump(mode="json", include={"image", "text", "dim", "logit_bias"}),
        "preprocessing": found.preprocessing.model_dump(mode="json"),
    }
    return _merged(tree, brought, where, ())


def _merged(tree: Mapping[str, Any], brought: Mapping[str, Any], where: str, path: tuple[str, ...]) -> dict[str, Any]:
    merged = dict(tree)
    for key, value in brought.items():
        here = (*path, key)
        given = tree.get(key)
        if isinstance(given, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(given, value, where, here)
        elif given is None or given == value:
            merged[key] = value
        else:
            raise ConfigError(
                f"{where} cannot be used:\n  {'.'.join(here)} is {given!r:.80}, where the checkpoint of model.start_from "
                f"has {value!r:.80}: leave it out (workloads/configs/eclip_finetune.yaml does)"
            )
    return merged
