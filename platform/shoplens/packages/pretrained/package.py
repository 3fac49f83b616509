"""shoplens packages as checkpoints to start training from."""

from __future__ import annotations

from shoplens.nn.photo_encoder import PhotoEncoderConfig
from shoplens.packages.embedder import Embedder
from shoplens.packages.photo_embedder import PhotoEmbedder
from shoplens.packages.pretrained.source import Pretrained, PretrainedPhotos


def read(folder: str) -> Pretrained:
    """Reads a dual encoder. Raises ShoplensError if the package is damaged, or has no text tower."""
    embedder = Embedder.load(folder)
    text = embedder.config.text
    sized = {"vocab_size": embedder.tokenizer.get_vocab_size(), **(text.config or {})}
    model = embedder.config.model_copy(update={"text": text.model_copy(update={"config": sized})})
    return Pretrained(model, embedder.preprocessing, embedder.tokenizer, embedder.model.state_dict)


def read_photos(folder: str) -> PretrainedPhotos:
    """Reads the image tower. Raises ShoplensError if the package is damaged."""
    embedder = PhotoEmbedder.load(folder)
    model = PhotoEncoderConfig(image=embedder.config.image, dim=embedder.config.dim)
    return PretrainedPhotos(model, embedder.preprocessing, embedder.model.state_dict)
