"""Photos and texts of a dataset -> vectors, as a Ray Data job with a package's model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import ray.data
from ray.data import ActorPoolStrategy, ExecutionOptions

from shoplens.datasets.format import Dataset
from shoplens.datasets.images import decode
from shoplens.datasets.preprocessing import Preprocessing
from shoplens.packages.embedder import Embedder
from shoplens.packages.photo_embedder import PhotoEmbedder

ROWS = 128
"""Photos a block: read and decoded by one task, encoded in one call."""


def embed_photos(
    dataset: Dataset,
    samples: np.ndarray,
    package: str | Path,
    *,
    models: int = 1,
    use_gpu: bool = False,
    method: str = "encode_images",
    told: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Vectors of the photos `samples` (int64 [n]) in their order: float32 unit rows [n, dim].

    Decoding runs in tasks beside `models` actors that hold the model; `method` of the embedder makes the vectors. `told` is
    called with the number of photos that are done.
    """
    preprocessing = PhotoEmbedder.load(package).preprocessing
    rows = ray.data.from_numpy(np.array_split(samples, max(1, -(-len(samples) // ROWS))))
    rows.context.execution_options = ExecutionOptions(preserve_order=True)
    vectors = rows.map_batches(_read, fn_args=(dataset, preprocessing), batch_size=ROWS, num_cpus=0.5).map_batches(
        _Encode,
        fn_constructor_args=(str(package), method),
        batch_size=ROWS,
        compute=ActorPoolStrategy(size=models),
        num_cpus=1,
        num_gpus=1 if use_gpu else 0,
    )
    parts: list[np.ndarray] = []
    for batch in vectors.iter_batches(batch_size=None, batch_format="numpy"):
        parts.append(batch["vector"])
        if told is not None:
            told(sum(map(len, parts)))
    return np.concatenate(parts).astype(np.float32)


def embed_texts(texts: Sequence[str], package: str | Path) -> np.ndarray:
    """Vectors of the texts, each distinct text encoded once: float32 unit rows [n, dim]."""
    distinct = list(dict.fromkeys(texts))
    row_of = {text: row for row, text in enumerate(distinct)}
    return Embedder.load(package).encode_texts(distinct)[[row_of[text] for text in texts]]


def _read(batch: dict[str, np.ndarray], dataset: Dataset, preprocessing: Preprocessing) -> dict[str, np.ndarray]:
    pixels = [preprocessing(decode(dataset.read_image(int(s)), draft=preprocessing.draft).image) for s in batch["data"]]
    return {"pixels": np.stack(pixels)}


class _Encode:
    def __init__(self, package: str, method: str) -> None:
        import torch

        embedder = PhotoEmbedder.load(package).to("cuda" if torch.cuda.is_available() else "cpu")
        self._encode = getattr(embedder, method)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"vector": self._encode(batch["pixels"])}
