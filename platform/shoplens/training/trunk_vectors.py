"""Vectors of a locked image trunk, computed once for a few views of each photo; every epoch then costs little.

The file lies beside the runs, named by what its numbers depend on: photos, preprocessing, augmentation, seed, views,
the recipe's `view_settings` and the trunk's weights. Models that share a trunk share the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from shoplens.errors import ShoplensError
from shoplens.nn.photo_encoder import PhotoEncoder
from shoplens.recipes.base import PhotoRecipe

PHOTOS = 64
"""Photos encoded at a time."""
DECODERS = 2


def compute(
    recipe: PhotoRecipe,
    folder: Path,
    *,
    device: torch.device = torch.device("cpu"),
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """The file of a recipe's trunk vectors in `folder`, float16 [photos, views, width]; made if it is missing.

    progress   called with the views done and those in all

    Raises ShoplensError if training changes the trunk.
    """
    views = recipe.config.photo_views
    assert views is not None
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)  # as the loop does, for a trunk without trained weights
        model = recipe.build()
    if not isinstance(model, PhotoEncoder) or any(weight.requires_grad for weight in model.image.trunk.parameters()):
        raise ShoplensError(
            "photo_views needs a trunk that training leaves as it is: add model.locked=[image.trunk], or leave photo_views out"
        )
    path = folder / f"{_digest(recipe, model, views)}.npy"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            _write(recipe, model.eval().to(device), views, path, progress)
    return path


def _write(
    recipe: PhotoRecipe, model: PhotoEncoder, views: int, path: Path, progress: Callable[[int, int], None] | None
) -> None:
    photos = len(recipe.dataset.images)
    partial = path.with_suffix(".partial")
    found = np.lib.format.open_memmap(partial, "w+", np.float16, (photos, views, model.image.width))
    device = model.pixel_mean.device
    places = [(sample, view) for sample in range(photos) for view in range(views)]

    def read(place: tuple[int, int]) -> np.ndarray:
        sample, view = place
        return recipe.pixels(sample, recipe.draws(sample, 0, view))

    with ThreadPoolExecutor(DECODERS) as threads, torch.inference_mode():
        following = threads.map(read, places[:PHOTOS])
        for start in range(0, len(places), PHOTOS):
            pixels = np.stack(list(following))
            following = threads.map(read, places[start + PHOTOS : start + 2 * PHOTOS])
            vectors = model.trunk_vectors(torch.from_numpy(pixels).to(device)).cpu().numpy()
            limit = np.finfo(np.float16).max
            found.reshape(-1, vectors.shape[1])[start : start + len(vectors)] = vectors.clip(-limit, limit)
            if progress is not None:
                progress(min(start + PHOTOS, len(places)), len(places))
    found.flush()
    partial.rename(path)


def _digest(recipe: PhotoRecipe, model: PhotoEncoder, views: int) -> str:
    config = recipe.config
    about = {
        "dataset": recipe.dataset.digest,
        "preprocessing": config.preprocessing.model_dump(mode="json"),
        "augmentation": config.augmentation and config.augmentation.model_dump(mode="json"),
        "seed": config.seed,
        "views": views,
        **recipe.view_settings,
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, weight in sorted(model.image.trunk.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
