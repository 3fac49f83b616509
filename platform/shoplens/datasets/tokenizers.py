"""Tokenizers for product text: trained on the texts of a dataset (Korean and English), or loaded by model name."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from shoplens.errors import ShoplensError

PAD, CLS, SEP = "[PAD]", "[CLS]", "[SEP]"


def train_tokenizer(texts: Iterable[str], vocab_size: int, max_tokens: int) -> Tokenizer:
    """A byte-level BPE over lower-cased NFKC text. No character of any script is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Prepend(" ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Punctuation(),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, CLS, SEP],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    pad, cls, sep = (tokenizer.token_to_id(token) for token in (PAD, CLS, SEP))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}", special_tokens=[(CLS, cls), (SEP, sep)]
    )
    tokenizer.enable_padding(pad_id=pad, pad_token=PAD)
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def pretrained_tokenizer(name: str, max_tokens: int, *, fixed_length: bool = False) -> Tokenizer:
    """The fast tokenizer of a transformers model, by hub name or local path.

    fixed_length   pad every text to `max_tokens` (SigLIP) instead of to the longest of its batch
    Raises ShoplensError if the tokenizer cannot be loaded or has no padding token.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        try:
            wrapped = AutoTokenizer.from_pretrained(name, use_fast=True)
        except ImportError:  # the model's class needs sentencepiece, its tokenizer.json does not
            wrapped = None
        if getattr(wrapped, "backend_tokenizer", None) is None:
            wrapped = PreTrainedTokenizerFast.from_pretrained(name)
    except (OSError, ValueError, ImportError) as error:
        raise ShoplensError(
            f"cannot load the tokenizer {name!r}: {error} (it needs a tokenizer.json, or vocab.json and merges.txt)"
        ) from error
    tokenizer = wrapped.backend_tokenizer
    pad = wrapped.pad_token or wrapped.eos_token
    if pad is None:
        raise ShoplensError(f"the tokenizer {name!r} has no token to pad with: set pad_token in tokenizer_config.json")
    tokenizer.enable_padding(
        pad_id=tokenizer.token_to_id(pad), pad_token=pad, length=max_tokens if fixed_length else None
    )
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def tokenize(tokenizer: Tokenizer, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids int64 [n, t] and attention mask bool [n, t], with the padding that the tokenizer is set to."""
    encodings = tokenizer.encode_batch(texts)
    ids = np.array([encoding.ids for encoding in encodings], dtype=np.int64)
    mask = np.array([encoding.attention_mask for encoding in encodings], dtype=bool)
    return ids, mask
