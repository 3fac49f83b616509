"""A model of text alone: titles of one product near each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from shoplens.datasets.samples import Samples
from shoplens.datasets.tokenizers import tokenize
from shoplens.evaluation.class_retrieval import class_retrieval
from shoplens.evaluation.metrics import recall_at
from shoplens.evaluation.ranking import rank
from shoplens.evaluation.report import render
from shoplens.evaluation.results import Evaluation, Findings
from shoplens.nn.towers import TextTower, TextTowerConfig
from shoplens.objectives.contrastive import ObjectiveConfig, contrastive
from shoplens.packages.capabilities import EMBED_TEXT
from shoplens.packages.embedder import count_tokens, read_tokenizer
from shoplens.packages.embedding import embed_texts
from shoplens.packages.model import PackagedModel
from shoplens.recipes.base import NAME, Arrays, Batch, Recipe, RecipeConfig, fit_tokenizer
from shoplens.sampling.uniform import uniform_plan


class TitlesConfig(RecipeConfig):
    recipe: Literal["titles"]
    name: str = Field("titles", pattern=NAME)
    dim: int = 16
    text: TextTowerConfig


class TitleEncoder(nn.Module):
    def __init__(self, text: TextTowerConfig, vocabulary: int, dim: int) -> None:
        super().__init__()
        self.text = TextTower(text, vocabulary, dim)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return functional.normalize(self.text(ids, mask), dim=1)


class TitleEmbedder(PackagedModel):
    capabilities = (EMBED_TEXT,)
    files = ("tokenizer.json",)
    model: TitleEncoder

    def __init__(self, name: str, text: TextTowerConfig, dim: int, tokenizer: Tokenizer, model: TitleEncoder) -> None:
        super().__init__(name, model)
        self.text, self.tokenizer, self._dim = text, tokenizer, dim

    @property
    def dim(self) -> int:
        return self._dim

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        ids, mask = tokenize(self.tokenizer, list(texts))
        return self.model(torch.tensor(ids, device=self.device), torch.tensor(mask, device=self.device)).cpu().numpy()

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return count_tokens(self.tokenizer, texts)

    def write(self, folder: Path) -> Mapping[str, Any]:
        self.tokenizer.save(str(folder / "tokenizer.json"))
        return {"text": self.text.model_dump(mode="json"), "dim": self.dim}

    @classmethod
    def read(cls, config: Mapping[str, Any], folder: Path) -> TitleEmbedder:
        tokenizer = read_tokenizer(folder)
        text = validate(TextTowerConfig, config["text"], f"{folder}/config.json")
        model = TitleEncoder(text, tokenizer.get_vocab_size(), config["dim"])
        return cls(config["name"], text, config["dim"], tokenizer, model)


class TitlesRecipe(Recipe):
    Config = TitlesConfig
    config: TitlesConfig

    def __init__(self, config: TitlesConfig) -> None:
        super().__init__(config)
        self.tokenizer_json = fit_tokenizer(config.text, None, lambda: self.titles)

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
        rows = np.searchsorted(self.samples.sample, samples)
        ids, mask = tokenize(self.tokenizer, [self.titles[row] for row in self.samples.product[rows]])
        return {"ids": ids, "mask": mask, "catalog": self.samples.catalog[rows]}

    def build(self) -> TitleEncoder:
        return TitleEncoder(self.config.text, self.tokenizer.get_vocab_size(), self.config.dim)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Each title to those of its catalog; the noise of dropout is what makes two views of one title."""
        views = [model(batch["ids"], batch["mask"]) for _ in range(2)]
        scale = torch.tensor(10.0, device=views[0].device)
        return contrastive(*views, batch["catalog"], scale, ObjectiveConfig())._asdict()

    def package(self, model: nn.Module) -> TitleEmbedder:
        assert isinstance(model, TitleEncoder)
        return TitleEmbedder(self.config.name, self.config.text, self.config.dim, self.tokenizer, model)

    def card(self, model: nn.Module) -> str:
        return f"# {self.config.name}\n\nTitles as vectors, trained on {self.dataset.name}.\n"

    @classmethod
    def judge(
        cls, package: Path, settings: Mapping[str, Any], config: Any, dataset: Dataset, about: Mapping[str, Any]
    ) -> tuple[Evaluation, str]:
        samples = Samples.of(dataset, [config.split])
        product, first = np.unique(samples.product, return_index=True)
        titles = dataset.texts(("title",))
        vectors = embed_texts([titles[row] for row in product], package)
        task = class_retrieval(vectors, samples.catalog[first])
        found = Findings()
        found.add("titles/recall@1", recall_at(1, rank(task).first), task.group)
        evaluation = found.evaluation(about)
        return evaluation, render(evaluation, [])


RECIPE = TitlesRecipe
