"""A package that shoplens trained, as a beginning for another training."""

from __future__ import annotations

from shoplens.models.embedder import Embedder
from shoplens.models.pretrained.source import Pretrained


def read(folder: str) -> Pretrained:
    """Raises ShoplensError if the package is damaged."""
    embedder = Embedder.load(folder)
    text = embedder.config.text
    sized = {"vocab_size": embedder.tokenizer.get_vocab_size(), **(text.config or {})}
    model = embedder.config.model_copy(update={"text": text.model_copy(update={"config": sized})})
    return Pretrained(model, embedder.preprocessing, embedder.tokenizer, embedder.model.state_dict)
