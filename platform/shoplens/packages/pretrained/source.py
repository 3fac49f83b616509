"""The parts of a pretrained checkpoint, and access to its files in a folder or a repository of the hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from shoplens.datasets.preprocessing import Preprocessing
from shoplens.errors import ShoplensError
from shoplens.nn.dual_encoder import DualEncoderConfig
from shoplens.nn.photo_encoder import PhotoEncoderConfig


@dataclass(frozen=True)
class Pretrained:
    """Architecture, preprocessing and tokenizer of a checkpoint. `weights()` reads the state dict of its `DualEncoder`.

    Raises ShoplensError if the tokenizer has ids that the text tower does not embed.
    """

    model: DualEncoderConfig
    preprocessing: Preprocessing
    tokenizer: Tokenizer
    weights: Callable[[], dict[str, Tensor]]

    def __post_init__(self) -> None:
        rows = (self.model.text.config or {})["vocab_size"]
        largest = max(self.tokenizer.get_vocab().values())
        if largest >= rows:
            raise ShoplensError(
                f"the tokenizer has ids up to {largest}, but the text tower embeds {rows}: they belong to different "
                "models"
            )


@dataclass(frozen=True)
class PretrainedPhotos:
    """Image tower and preprocessing of a checkpoint. The weights named `image.*` in `weights()` belong to the tower."""

    model: PhotoEncoderConfig
    preprocessing: Preprocessing
    weights: Callable[[], dict[str, Tensor]]


def find_file(source: str, name: str) -> Path | None:
    """Path of a checkpoint's file, or None if the checkpoint has no such file.

    If `source` is not a folder, the file is downloaded from the hub.
    Raises ShoplensError if the folder does not exist, or the hub is unreachable or has no such repository.
    """
    if Path(source).is_dir():
        file = Path(source, name)
        return file if file.is_file() else None
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise ShoplensError(f"there is no folder {source} to start from")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(source, name))
    except (OSError, HFValidationError, EntryNotFoundError) as error:
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        raise ShoplensError(
            f"{source!r} is no folder here, and cannot be fetched from the Hugging Face hub ({_first_line(error)}): "
            "check the name and the connection, or download it elsewhere and give its folder"
        ) from error


def read_json(source: str, name: str) -> dict[str, Any] | None:
    """A checkpoint's JSON object, or None if it has no such file.

    Raises ShoplensError if the file is no JSON object.
    """
    file = find_file(source, name)
    if file is None:
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ShoplensError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ShoplensError(f"{file} must hold a JSON object of settings")
    return content


def has_tokenizer(source: str) -> bool:
    """Whether the checkpoint has a vocabulary.

    Check this before loading: for a folder without one, transformers returns a tokenizer that knows no word.
    """
    return find_file(source, "tokenizer.json") is not None or all(
        find_file(source, name) is not None for name in ("vocab.json", "merges.txt")
    )


def special_tokens(tokenizer: Tokenizer) -> list[str]:
    """The special tokens that the tokenizer adds to every text, the end-of-text token last.

    Raises ShoplensError if it adds none.
    """
    empty = tokenizer.encode("")
    tokens = [token for token, kept in zip(empty.tokens, empty.attention_mask, strict=True) if kept]
    if not tokens:
        raise ShoplensError(
            "the tokenizer adds no end-of-text token: its post_processor is missing, so save the tokenizer with it"
        )
    return tokens


def end_of_text(tokenizer: Tokenizer) -> int:
    """The id of the end-of-text token. Raises ShoplensError if the tokenizer adds none."""
    return dict(tokenizer.get_vocab())[special_tokens(tokenizer)[-1]]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
