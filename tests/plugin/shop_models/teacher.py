"""A student learns from two views of a photo what its teacher, the moving average of its weights, says of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from shoplens.datasets.format import Dataset
from shoplens.datasets.samples import Samples
from shoplens.evaluation.class_retrieval import class_retrieval
from shoplens.evaluation.metrics import recall_at
from shoplens.evaluation.ranking import rank
from shoplens.evaluation.report import render
from shoplens.evaluation.results import Evaluation, Findings
from shoplens.nn.photo_encoder import PhotoEncoder, PhotoEncoderConfig
from shoplens.packages.embedding import embed_photos
from shoplens.packages.photo_embedder import PhotoEmbedder
from shoplens.recipes.base import NAME, Arrays, Batch, PhotoRecipe, PhotoRecipeConfig
from shoplens.sampling.uniform import uniform_plan


class TeacherConfig(PhotoRecipeConfig):
    recipe: Literal["teacher"]
    name: str = Field("teacher", pattern=NAME)
    photo: PhotoEncoderConfig
    momentum: float = Field(0.9, ge=0, lt=1)


class StudentAndTeacher(nn.Module):
    def __init__(self, student: PhotoEncoder) -> None:
        super().__init__()
        self.student = student
        self.teacher = copy.deepcopy(student).requires_grad_(False)

    def forward(self, pixels: Tensor, other: Tensor) -> Tensor:
        """Mean distance 2 - 2 cos between the student's vector of a view and the teacher's of the other."""
        pairs = ((pixels, other), (other, pixels))
        cosines = [self.student.encode_image(a) * self.teacher.encode_image(b).detach() for a, b in pairs]
        return (2 - 2 * torch.cat(cosines).sum(1)).mean()


class TeacherRecipe(PhotoRecipe):
    Config = TeacherConfig
    config: TeacherConfig

    @cached_property
    def samples(self) -> Samples:
        return Samples.of(self.dataset, ["train"])

    def plan(self, epoch: int) -> np.ndarray:
        return uniform_plan(self.samples, self.training.batch_size, self.seed, epoch)

    def collate(self, samples: np.ndarray, epoch: int) -> Arrays:
        return {"pixels": self.photos_of(samples, epoch), "other": self.photos_of(samples, epoch, view=1)}

    def build(self) -> StudentAndTeacher:
        return StudentAndTeacher(PhotoEncoder(self.config.photo, self.config.preprocessing))

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"loss": model(batch["pixels"], batch["other"])}

    @torch.no_grad()
    def after_step(self, model: nn.Module, progress: float) -> None:
        """The momentum rises to 1 over the training (BYOL)."""
        assert isinstance(model, StudentAndTeacher)
        share = (1 - self.config.momentum) * (1 - progress)
        for slow, fast in zip(model.teacher.parameters(), model.student.parameters(), strict=True):
            slow.lerp_(fast, share)

    def package(self, model: nn.Module) -> PhotoEmbedder:
        assert isinstance(model, StudentAndTeacher)
        return PhotoEmbedder(self.config.name, self.config.photo, self.config.preprocessing, model.teacher)

    def card(self, model: nn.Module) -> str:
        return f"# {self.config.name}\n\nPhotos as vectors, learnt without labels on {self.dataset.name}.\n"

    @classmethod
    def judge(
        cls, package: Path, settings: Mapping[str, Any], config: Any, dataset: Dataset, about: Mapping[str, Any]
    ) -> tuple[Evaluation, str]:
        samples = Samples.of(dataset, [config.split])
        task = class_retrieval(embed_photos(dataset, samples.sample, package), samples.catalog)
        found = Findings()
        found.add("photos/recall@1", recall_at(1, rank(task).first), task.group)
        evaluation = found.evaluation(about)
        return evaluation, render(evaluation, [])


RECIPE = TeacherRecipe
