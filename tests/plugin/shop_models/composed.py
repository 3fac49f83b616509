"""One vector of a photo and its title together."""

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
from shoplens.datasets.preprocessing import Preprocessing
from shoplens.datasets.samples import Samples
from shoplens.datasets.tokenizers import tokenize
from shoplens.evaluation.class_retrieval import class_retrieval
from shoplens.evaluation.metrics import recall_at
from shoplens.evaluation.ranking import rank
from shoplens.evaluation.report import render
from shoplens.evaluation.results import Evaluation, Findings
from shoplens.nn.dual_encoder import DualEncoder, DualEncoderConfig
from shoplens.objectives.contrastive import ObjectiveConfig, contrastive
from shoplens.packages.capabilities import EMBED_IMAGE_TEXT
from shoplens.packages.embedder import count_tokens, read_tokenizer
from shoplens.packages.embedding import embed_products
from shoplens.packages.model import PackagedModel
from shoplens.packages.photo_embedder import read_preprocessing
from shoplens.recipes.base import NAME, Arrays, Batch, PhotoRecipe, PhotoRecipeConfig, fit_tokenizer
from shoplens.sampling.uniform import uniform_plan


class ComposedConfig(PhotoRecipeConfig):
    recipe: Literal["composed"]
    name: str = Field("composed", pattern=NAME)
    model: DualEncoderConfig


class Composed(DualEncoder):
    def __init__(self, config: DualEncoderConfig, preprocessing: Preprocessing, vocabulary: int) -> None:
        super().__init__(config, preprocessing, vocabulary)
        self.together = nn.Linear(2 * config.dim, config.dim)

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        """Unit rows [n, dim] of n photos with their texts."""
        both = torch.cat([self.encode_image(pixels), self.encode_text(ids, mask)], 1)
        return functional.normalize(self.together(both), dim=1)


class ComposedEmbedder(PackagedModel):
    capabilities = (EMBED_IMAGE_TEXT,)
    files = ("preprocess.json", "tokenizer.json")
    model: Composed

    def __init__(
        self, name: str, config: DualEncoderConfig, preprocessing: Preprocessing, tokenizer: Tokenizer, model: Composed
    ) -> None:
        super().__init__(name, model)
        self.config, self._preprocessing, self.tokenizer = config, preprocessing, tokenizer

    @property
    def preprocessing(self) -> Preprocessing:
        return self._preprocessing

    @property
    def dim(self) -> int:
        return self.config.dim

    @torch.inference_mode()
    def encode_images_with_texts(self, pixels: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        ids, mask = tokenize(self.tokenizer, list(texts))
        inputs = (torch.tensor(array, device=self.device) for array in (pixels, ids, mask))
        return self.model(*inputs).cpu().numpy()

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return count_tokens(self.tokenizer, texts)

    def write(self, folder: Path) -> Mapping[str, Any]:
        (folder / "preprocess.json").write_text(self.preprocessing.model_dump_json())
        self.tokenizer.save(str(folder / "tokenizer.json"))
        return {"architecture": self.config.model_dump(mode="json")}

    @classmethod
    def read(cls, config: Mapping[str, Any], folder: Path) -> ComposedEmbedder:
        preprocessing, tokenizer = read_preprocessing(folder), read_tokenizer(folder)
        settings = validate(DualEncoderConfig, config["architecture"], f"{folder}/config.json")
        model = Composed(settings, preprocessing, tokenizer.get_vocab_size())
        return cls(config["name"], settings, preprocessing, tokenizer, model)


class ComposedRecipe(PhotoRecipe):
    Config = ComposedConfig
    config: ComposedConfig

    def __init__(self, config: ComposedConfig) -> None:
        super().__init__(config)
        self.tokenizer_json = fit_tokenizer(config.model.text, None, lambda: self.titles)

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
        views = {"pixels": self.photos_of(samples, epoch), "other": self.photos_of(samples, epoch, view=1)}
        return {**views, "ids": ids, "mask": mask, "catalog": self.samples.catalog[rows]}

    def build(self) -> Composed:
        return Composed(self.config.model, self.config.preprocessing, self.tokenizer.get_vocab_size())

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        rows = [model(batch[view], batch["ids"], batch["mask"]) for view in ("pixels", "other")]
        scale = torch.tensor(10.0, device=rows[0].device)
        return contrastive(*rows, batch["catalog"], scale, ObjectiveConfig())._asdict()

    def package(self, model: nn.Module) -> ComposedEmbedder:
        assert isinstance(model, Composed)
        return ComposedEmbedder(self.config.name, self.config.model, self.config.preprocessing, self.tokenizer, model)

    def card(self, model: nn.Module) -> str:
        return f"# {self.config.name}\n\nPhotos with titles as vectors, trained on {self.dataset.name}.\n"

    @classmethod
    def judge(
        cls, package: Path, settings: Mapping[str, Any], config: Any, dataset: Dataset, about: Mapping[str, Any]
    ) -> tuple[Evaluation, str]:
        samples = Samples.of(dataset, [config.split])
        task = class_retrieval(embed_products(dataset, samples.sample, package), samples.catalog)
        found = Findings()
        found.add("listings/recall@1", recall_at(1, rank(task).first), task.group)
        evaluation = found.evaluation(about)
        return evaluation, render(evaluation, [])


RECIPE = ComposedRecipe
