"""Photos of one category near each other: a photo tower that is trained to tell the categories apart.

The classifier over categories (softmax of cosines to a learnt vector for each category) serves the training only. The
package is the tower, a `PhotoEmbedder`, so index, endpoints and pyfunc know what to do with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from shoplens.datasets.format import Dataset
from shoplens.datasets.samples import Samples
from shoplens.errors import ShoplensError
from shoplens.evaluation.class_retrieval import class_retrieval
from shoplens.evaluation.metrics import chance_recall, recall_at
from shoplens.evaluation.ranking import rank
from shoplens.evaluation.report import render
from shoplens.evaluation.results import Evaluation, Findings
from shoplens.nn.photo_encoder import PhotoEncoder, PhotoEncoderConfig
from shoplens.packages.embedding import embed_photos
from shoplens.packages.photo_embedder import PhotoEmbedder
from shoplens.recipes.base import NAME, Batch, PhotoRecipe, PhotoRecipeConfig
from shoplens.sampling.uniform import steps_per_epoch, uniform_plan


class CategoryConfig(PhotoRecipeConfig):
    """A photo tower trained to tell categories apart."""

    recipe: Literal["category"]
    name: str = Field("category", pattern=NAME, description="the name under which the model is registered")
    scale: float = Field(16, gt=0, description="factor of the cosines before the softmax over categories")
    model: PhotoEncoderConfig = Field(PhotoEncoderConfig(), description="the tower and the width of its vectors")


class CategoryModel(nn.Module):
    """The tower, and a learnt vector for each category."""

    def __init__(self, tower: PhotoEncoder, dim: int, categories: int, scale: float) -> None:
        super().__init__()
        self.tower = tower
        self.category = nn.Parameter(torch.randn(categories, dim) / dim**0.5)
        self.scale = scale

    def forward(self, pixels: Tensor, label: Tensor) -> dict[str, Tensor]:
        """uint8 [n, 3, h, w] and int64 [n] -> the loss and the share of photos whose category scores highest."""
        scores = self.scale * self.tower.encode_image(pixels) @ functional.normalize(self.category, dim=-1).T
        right = (scores.argmax(1) == label).float().mean()
        return {"loss": functional.cross_entropy(scores, label), "accuracy": right}


class CategoryRecipe(PhotoRecipe):
    Config = CategoryConfig
    config: CategoryConfig

    @cached_property
    def samples(self) -> Samples:
        """Training photos whose product has a category."""
        samples = Samples.of(self.dataset, ["train"])
        return samples.keep(samples.category[:, -1] >= 0)

    @property
    def categories(self) -> int:
        return len(self.dataset.categories)

    def check(self) -> None:
        if len(np.unique(self.samples.category[:, -1])) < 2:
            raise ShoplensError(f"{self.dataset.path} has fewer than two categories to tell apart: set category_path")

    def steps(self, epoch: int) -> int:
        return steps_per_epoch(self.samples, self.training.batch_size_of(epoch))

    def plan(self, epoch: int) -> np.ndarray:
        return uniform_plan(self.samples, self.training.batch_size_of(epoch), self.seed, epoch)

    def collate(self, samples: np.ndarray, epoch: int) -> dict[str, np.ndarray]:
        """`pixels` uint8 [n, 3, s, s] and `label` int64 [n]."""
        rows = np.searchsorted(self.samples.sample, samples)
        return {"pixels": self.photos_of(samples, epoch), "label": self.samples.category[rows, -1]}

    def build(self) -> CategoryModel:
        tower = PhotoEncoder(self.config.model, self.config.preprocessing)
        return CategoryModel(tower, self.config.model.dim, self.categories, self.config.scale)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = model(batch["pixels"], batch["label"])
        return terms

    def package(self, model: nn.Module) -> PhotoEmbedder:
        assert isinstance(model, CategoryModel)
        return PhotoEmbedder(self.config.name, self.config.model, self.config.preprocessing, model.tower)

    def card(self, model: nn.Module) -> str:
        return (
            f"# {self.config.name}\n\nProduct photos as vectors of {self.config.model.dim} numbers, those of one "
            f"category near each other. Trained on {self.dataset.name} (`{self.dataset.digest[:12]}`), "
            f"{self.categories} categories. It reads photos and no texts.\n"
        )

    @classmethod
    def judge(
        cls, package: Path, settings: Mapping[str, Any], config: Any, dataset: Dataset, about: Mapping[str, Any]
    ) -> tuple[Evaluation, str]:
        """How often the nearest other photo of the split has the category of the query."""
        samples = Samples.of(dataset, [config.split])
        task = class_retrieval(embed_photos(dataset, samples.sample, package), samples.category[:, -1])
        ranks, found = rank(task), Findings()
        chance = float(chance_recall(1, ranks.n_right, ranks.n_gallery).mean())
        found.add("category/recall@1", recall_at(1, ranks.first), task.group, chance)
        evaluation = found.evaluation(about)
        return evaluation, render(evaluation, [])


RECIPE = CategoryRecipe
