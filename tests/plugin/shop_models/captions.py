"""A model that writes: the words of a title for a photo."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from shoplens.config import validate
from shoplens.datasets.format import Dataset
from shoplens.datasets.images import decode
from shoplens.datasets.preprocessing import Preprocessing
from shoplens.datasets.samples import Samples
from shoplens.datasets.tokenizers import tokenize
from shoplens.evaluation.report import render
from shoplens.evaluation.results import Evaluation, Findings
from shoplens.nn.photo_encoder import PhotoEncoder, PhotoEncoderConfig
from shoplens.nn.towers import TextTowerConfig
from shoplens.packages.capabilities import WRITE_TEXT
from shoplens.packages.embedder import read_tokenizer
from shoplens.packages.model import PackagedModel
from shoplens.packages.photo_embedder import read_preprocessing
from shoplens.recipes.base import NAME, Arrays, Batch, PhotoRecipe, PhotoRecipeConfig, fit_tokenizer
from shoplens.sampling.uniform import uniform_plan


class CaptionsConfig(PhotoRecipeConfig):
    recipe: Literal["captions"]
    name: str = Field("captions", pattern=NAME)
    photo: PhotoEncoderConfig
    vocabulary: int = 300
    longest: int = 12


class Captioner(nn.Module):
    """A photo's vector is the first state of a GRU that writes the title."""

    def __init__(self, photo: PhotoEncoderConfig, preprocessing: Preprocessing, vocabulary: int) -> None:
        super().__init__()
        self.photo = PhotoEncoder(photo, preprocessing)
        self.tokens = nn.Embedding(vocabulary, photo.dim)
        self.decoder = nn.GRU(photo.dim, photo.dim, batch_first=True)
        self.out = nn.Linear(photo.dim, vocabulary)

    def forward(self, pixels: Tensor, ids: Tensor) -> Tensor:
        """Logits [n, t, vocabulary] of the token after each of `ids` [n, t]."""
        states, _ = self.decoder(self.tokens(ids), self.photo.tower_rows(pixels)[None])
        return self.out(states)


class PackagedCaptioner(PackagedModel):
    capabilities = (WRITE_TEXT,)
    files = ("preprocess.json", "tokenizer.json")
    model: Captioner

    def __init__(self, config: CaptionsConfig, tokenizer: Tokenizer, model: Captioner) -> None:
        super().__init__(config.name, model)
        self.config, self.tokenizer = config, tokenizer

    @property
    def preprocessing(self) -> Preprocessing:
        return self.config.preprocessing

    @torch.inference_mode()
    def write_texts(self, pixels: np.ndarray) -> list[str]:
        """Greedy, token by token."""
        photos = torch.tensor(pixels, device=self.device)
        ids = torch.full((len(photos), 1), self.tokenizer.token_to_id("[CLS]"), device=self.device)
        for _ in range(self.config.longest):
            ids = torch.cat([ids, self.model(photos, ids)[:, -1:].argmax(-1)], 1)
        end = self.tokenizer.token_to_id("[SEP]")
        written = [row[: row.index(end)] if end in row else row for row in ids.tolist()]
        return [text.strip() for text in self.tokenizer.decode_batch(written)]

    def write(self, folder: Path) -> Mapping[str, Any]:
        (folder / "preprocess.json").write_text(self.preprocessing.model_dump_json())
        self.tokenizer.save(str(folder / "tokenizer.json"))
        return {"architecture": self.config.model_dump(mode="json", exclude={"preprocessing", "dataset"})}

    @classmethod
    def read(cls, config: Mapping[str, Any], folder: Path) -> PackagedCaptioner:
        preprocessing, tokenizer = read_preprocessing(folder), read_tokenizer(folder)
        tree = {**config["architecture"], "dataset": "", "preprocessing": preprocessing.model_dump()}
        settings = validate(CaptionsConfig, tree, f"{folder}/config.json")
        return cls(settings, tokenizer, Captioner(settings.photo, preprocessing, tokenizer.get_vocab_size()))


class CaptionsRecipe(PhotoRecipe):
    Config = CaptionsConfig
    config: CaptionsConfig

    def __init__(self, config: CaptionsConfig) -> None:
        super().__init__(config)
        text = TextTowerConfig(config={"model_type": "bert"}, vocab_size=config.vocabulary, max_tokens=config.longest)
        self.tokenizer_json = fit_tokenizer(text, None, lambda: self.titles)

    @cached_property
    def titles(self) -> list[str]:
        return self.dataset.texts(("title",))

    @cached_property
    def samples(self) -> Samples:
        return Samples.of(self.dataset, ["train"])

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_str(self.tokenizer_json)

    def plan(self, epoch: int) -> np.ndarray:
        return uniform_plan(self.samples, self.training.batch_size, self.seed, epoch)

    def collate(self, samples: np.ndarray, epoch: int) -> Arrays:
        titles = [self.titles[row] for row in self.dataset.product_row[samples]]
        ids, mask = tokenize(self.tokenizer, titles)
        return {"pixels": self.photos_of(samples, epoch), "ids": ids, "mask": mask}

    def build(self) -> Captioner:
        return Captioner(self.config.photo, self.config.preprocessing, self.tokenizer.get_vocab_size())

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = model(batch["pixels"], batch["ids"][:, :-1])
        written = batch["mask"][:, 1:]
        return {"loss": functional.cross_entropy(logits[written], batch["ids"][:, 1:][written])}

    def package(self, model: nn.Module) -> PackagedCaptioner:
        assert isinstance(model, Captioner)
        return PackagedCaptioner(self.config, self.tokenizer, model)

    def card(self, model: nn.Module) -> str:
        return f"# {self.config.name}\n\nWrites titles for photos, trained on {self.dataset.name}.\n"

    @classmethod
    def judge(
        cls, package: Path, settings: Mapping[str, Any], config: Any, dataset: Dataset, about: Mapping[str, Any]
    ) -> tuple[Evaluation, str]:
        model = PackagedCaptioner.load(package)
        samples = Samples.of(dataset, [config.split])
        photos = [decode(dataset.read_image(int(sample))).image for sample in samples.sample]
        written = model.write_texts(np.stack([model.preprocessing(photo) for photo in photos]))
        titles = dataset.texts(("title",))
        shares = [_share(titles[row], text) for row, text in zip(samples.product, written, strict=True)]
        found = Findings()
        found.add("captions/words", np.array(shares), samples.catalog)
        evaluation = found.evaluation(about)
        return evaluation, render(evaluation, [])


def _share(title: str, written: str) -> float:
    """Share of the title's words that were written."""
    words = set(title.casefold().split())
    return len(words & set(written.casefold().split())) / max(1, len(words))


RECIPE = CaptionsRecipe
