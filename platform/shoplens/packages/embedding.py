"""Photos and texts of a dataset -> vectors by a package's model. Many photos are a Ray Data job."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from shoplens.datasets.format import Dataset
from shoplens.datasets.images import decode
from shoplens.datasets.preprocessing import Preprocessing
from shoplens.errors import ShoplensError
from shoplens.packages.capabilities import EMBED_IMAGE, EMBED_IMAGE_TEXT, EMBED_TEXT
from shoplens.packages.model import PackagedModel, class_of, read_config
from shoplens.packages.photo_embedder import read_preprocessing

ROWS = 128
"""Photos a block: read and decoded by one task, encoded in one call."""
FEW = 4096
"""So few photos are encoded in the calling process: the start of others would take as long."""

Columns = dict[str, np.ndarray]
Encode = Callable[[Any, Columns], np.ndarray]
"""(model, columns `pixels` uint8 [n, 3, s, s] and `row` int64 [n], the position in `samples`) -> rows [n, d]."""


def images(model: Any, columns: Columns) -> np.ndarray:
    """The vectors of `embed_image`."""
    return np.asarray(model.encode_images(columns["pixels"]))


def embed_photos(
    dataset: Dataset,
    samples: np.ndarray,
    package: str | Path,
    *,
    models: int = 1,
    use_gpu: bool = False,
    encode: Encode = images,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Vectors of the photos `samples` (int64 [n]) in their order: float32 [n, d], unit rows unless `encode` differs.

    Decoding runs in tasks beside `models` actors that hold the model; of at most `FEW` photos in threads of this
    process beside the model, unless a GPU is asked for. `progress` is called with the number of photos that are done.
    """
    preprocessing = read_preprocessing(Path(package))
    if len(samples) <= FEW and not use_gpu:
        return _embed_here(dataset, samples, preprocessing, _Encoder(str(package), encode), progress)
    import ray.data
    from ray.data import ActorPoolStrategy, ExecutionOptions

    places = np.stack([samples, np.arange(len(samples))], 1)
    rows = ray.data.from_numpy(np.array_split(places, max(1, -(-len(places) // ROWS))))
    rows.context.execution_options = ExecutionOptions(preserve_order=True)
    vectors = rows.map_batches(_read, fn_args=(dataset, preprocessing), batch_size=ROWS, num_cpus=0.5).map_batches(
        _Encoder,
        fn_constructor_args=(str(package), encode, max(1, (os.cpu_count() or 1) // models)),
        batch_size=ROWS,
        compute=ActorPoolStrategy(size=models),
        num_cpus=1,
        num_gpus=1 if use_gpu else 0,
    )
    parts: list[np.ndarray] = []
    for batch in vectors.iter_batches(batch_size=None, batch_format="numpy"):
        parts.append(batch["vector"])
        if progress is not None:
            progress(sum(map(len, parts)))
    return np.concatenate(parts).astype(np.float32)


def embed_texts(texts: Sequence[str], package: str | Path) -> np.ndarray:
    """Vectors of the texts, each distinct text encoded once: float32 unit rows [n, dim]."""
    distinct = list(dict.fromkeys(texts))
    row_of = {text: row for row, text in enumerate(distinct)}
    model: Any = PackagedModel.load(package)
    return np.asarray(model.encode_texts(distinct)[[row_of[text] for text in texts]])


def embed_products(
    dataset: Dataset,
    samples: np.ndarray,
    package: str | Path,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """A unit vector for each photo `samples` (int64 [n]): float32 [n, dim].

    A model of photos gives the photo's vector, a model of photo and text together that of the photo with its product's
    text, a model of texts alone that of its product's text. The text is made of the package's `text_fields`.

    Raises ShoplensError if the model makes no vectors.
    """
    config = read_config(Path(package))
    can = class_of(config, Path(package)).capabilities
    if EMBED_IMAGE in can:
        return embed_photos(dataset, samples, package, progress=progress)
    if EMBED_IMAGE_TEXT not in can and EMBED_TEXT not in can:
        raise ShoplensError(f"{package} makes no vectors (it does {', '.join(map(str, can))}): it needs no index")
    every = dataset.texts(config.get("text_fields", ["title"]))
    texts = [every[row] for row in dataset.product_row[samples]]
    if EMBED_IMAGE_TEXT not in can:
        return embed_texts(texts, package)
    return embed_photos(dataset, samples, package, encode=_WithTexts(texts), progress=progress)


class _WithTexts:
    """Pickles: the vectors of `embed_image_text`, row i with text i."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def __call__(self, model: Any, columns: Columns) -> np.ndarray:
        texts = [self._texts[row] for row in columns["row"].tolist()]
        return np.asarray(model.encode_images_with_texts(columns["pixels"], texts))


def _embed_here(
    dataset: Dataset,
    samples: np.ndarray,
    preprocessing: Preprocessing,
    encoder: _Encoder,
    progress: Callable[[int], None] | None,
) -> np.ndarray:
    """`embed_photos` in this process: the next block is decoded while one is encoded."""
    blocks = np.split(np.stack([samples, np.arange(len(samples))], 1), range(ROWS, len(samples), ROWS))
    parts: list[np.ndarray] = []
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        read = partial(_pixels, dataset, preprocessing)
        following = threads.map(read, blocks[0][:, 0].tolist())
        for block, after in zip_longest(blocks, blocks[1:], fillvalue=blocks[0][:0]):
            pixels = np.stack(list(following))
            following = threads.map(read, after[:, 0].tolist())
            parts.append(encoder({"pixels": pixels, "row": block[:, 1]})["vector"])
            if progress is not None:
                progress(sum(map(len, parts)))
    return np.concatenate(parts).astype(np.float32)


def _pixels(dataset: Dataset, preprocessing: Preprocessing, sample: int) -> np.ndarray:
    """uint8 [3, s, s]."""
    return preprocessing(decode(dataset.read_image(sample), draft=preprocessing.draft).image)


def _read(batch: Columns, dataset: Dataset, preprocessing: Preprocessing) -> Columns:
    samples, row = batch["data"].T
    return {"pixels": np.stack([_pixels(dataset, preprocessing, int(s)) for s in samples]), "row": row}


class _Encoder:
    """`threads`: what torch computes with; Ray gives an actor one. None: as this process does."""

    def __init__(self, package: str, encode: Encode, threads: int | None = None) -> None:
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        self._model = PackagedModel.load(package).to("cuda" if torch.cuda.is_available() else "cpu")
        self._encode = encode

    def __call__(self, batch: Columns) -> Columns:
        return {"vector": self._encode(self._model, batch)}
