"""Similar products: metric learning brings the photos of one product near each other.

Classes come from catalogs, near-duplicate photos and users' photos (`curation.product_clusters`). The loss is that of
Hyp-ViT, its form on the sphere, triplets or ArcFace (`objectives.metric_learning`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from shoplens.config import validate
from shoplens.curation.product_clusters import LEFT_OUT, ClassesConfig, ProductClusters, clusters_of, splits_of
from shoplens.datasets.format import Dataset
from shoplens.datasets.samples import Samples
from shoplens.errors import ShoplensError
from shoplens.evaluation import metric_space
from shoplens.evaluation.class_retrieval import class_retrieval
from shoplens.evaluation.judging import JudgingConfig
from shoplens.evaluation.report import render
from shoplens.evaluation.results import Evaluation
from shoplens.nn.similar import SimilarConfig, SimilarEncoder
from shoplens.objectives.metric_learning import MetricConfig
from shoplens.packages.embedding import embed_photos
from shoplens.packages.photo_embedder import PhotoEmbedder
from shoplens.packages.pretrained import filled_in, read_photos
from shoplens.recipes.base import NAME, Batch, PhotoRecipe, PhotoRecipeConfig, TowerLoss
from shoplens.sampling.classes import ClassBatches, class_plan
from shoplens.sampling.statistics import plan_statistics


class SimilarEvaluation(JudgingConfig):
    """Photos of a split ask for the others of their class, among all photos of that split."""

    widths: tuple[PositiveInt, ...] = Field(
        (), description="Lengths of prefixes to judge as vectors, beside the trained ones."
    )
    pca_photos: int = Field(
        20_000,
        ge=0,
        description="Largest number of training photos for the principal components that the prefixes are compared "
        "with. 0: no comparison.",
    )


class SimilarRecipeConfig(PhotoRecipeConfig):
    """Metric learning on classes of photos."""

    recipe: Literal["similar"] = Field(description="Name of the recipe.")
    name: str = Field("similar", pattern=NAME, description="Name of the registered model.")
    classes: ClassesConfig = Field(
        ClassesConfig(), description="Which photos are of one class, and the split of classes."
    )
    splits: tuple[str, ...] = Field(("train",), min_length=1, description="Splits of `classes.splits` to train on.")
    batches: ClassBatches = Field(ClassBatches(), description="The contents of a batch.")
    objective: MetricConfig = Field(MetricConfig(), description="The metric learning loss.")
    model: SimilarConfig = Field(SimilarConfig(), description="The image tower and its head.")
    evaluation: SimilarEvaluation = Field(SimilarEvaluation(), description="The evaluation that follows the training.")

    @model_validator(mode="before")
    @classmethod
    def _batch_size(cls, tree: Any) -> Any:
        parts = (tree.get(name) or {} for name in ("batches", "training")) if isinstance(tree, Mapping) else (tree,)
        if not all(isinstance(part, Mapping) for part in parts):
            return tree
        size = ClassBatches.model_validate(tree.get("batches") or {}).size
        training = dict(tree.get("training") or {})
        if training.setdefault("batch_size", size) != size or training.get("batch_sizes"):
            raise ValueError(f"training.batch_size and batch_sizes follow from batches: leave them out ({size})")
        return {**tree, "training": training}


class SimilarEmbedder(PhotoEmbedder):
    """A trained `SimilarEncoder`. Its vectors are the head's rows at unit length, so photos are ranked by cosine.

    Spherical losses train that cosine ranking. The hyperbolic loss trains a ranking by distance, which as an inner
    product (`hyperbolic.lift_items`, `lift_queries`) would need two vectors a photo. The index holds one unit vector, so
    the cosine is served. Both rankings are equal if the clip radius shortens every row; otherwise each evaluation
    reports both, and so the cost.
    """

    Config: ClassVar[type[SimilarConfig]] = SimilarConfig
    Model: ClassVar[type[SimilarEncoder]] = SimilarEncoder
    model: SimilarEncoder
    config: SimilarConfig

    @property
    def dim(self) -> int:
        return self.model.served

    def encode_rows(self, pixels: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """uint8 [n, 3, image_size, image_size] -> float32 [n, head.dim] as the head gives them."""
        return self.in_batches(self.model.encode_rows, pixels, batch_size, self.config.head.dim)


class SimilarRecipe(PhotoRecipe):
    """Photos of one class near each other. Pickles as its configuration; data is opened where it is used."""

    Config = SimilarRecipeConfig
    config: SimilarRecipeConfig
    towers = MappingProxyType({"image": ("pixels",)})

    @property
    def start_from(self) -> str | None:
        return self.config.model.start_from

    @classmethod
    def prepare(cls, tree: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        return filled_in(tree, where, photos_only=True)

    @cached_property
    def clusters(self) -> ProductClusters:
        return clusters_of(self.dataset, self.config.classes)

    @cached_property
    def photos(self) -> np.ndarray:
        """Training photos of classes with two or more photos, in the order of the dataset: sample ids int64 [n]."""
        split = splits_of(self.dataset, self.clusters.component, self.config.classes.splits, self.config.splits)
        label = np.where(np.isin(split, self.config.splits), self.clusters.label, -1)
        found = np.flatnonzero((label >= 0) & (np.bincount(label + 1)[label + 1] > 1))
        if not len(found):
            raise ShoplensError(
                f"{self.dataset.path} has no class with two photos to learn from in split "
                f"{'/'.join(self.config.splits)} alone: a split by photo has all its classes in the held-out splits "
                "too, and classes.splits can hold classes out by an attribute or by shares"
            )
        return found

    @cached_property
    def label(self) -> np.ndarray:
        """Class of each of `photos`, int64 [n], from 0 to `classes` - 1."""
        return np.unique(self.clusters.label[self.photos], return_inverse=True)[1]

    @cached_property
    def samples(self) -> Samples:
        """The photos of `photos`, in that order."""
        samples = Samples.of(self.dataset, list(self.dataset.manifest.photos_by_split))
        return samples.keep(np.isin(samples.sample, self.photos))

    @property
    def classes(self) -> int:
        return int(self.label.max()) + 1

    def steps(self, epoch: int) -> int:
        return len(self.plan(0))

    @lru_cache(maxsize=2)  # noqa: B019 - a recipe lives as long as its process
    def plan(self, epoch: int) -> np.ndarray:
        return class_plan(self.samples, self.label, self.config.batches, self.seed, epoch)

    def check(self) -> None:
        """Raises ShoplensError if there is no class to learn, or none in the split that is judged."""
        _ = self.photos
        _judged(self.dataset, self.config.classes, self.config.splits, self.config.evaluation.split)

    def plan_statistics(self, plan: np.ndarray) -> dict[str, float]:
        classes = self.label[np.searchsorted(self.photos, plan)]
        return {**plan_statistics(plan, self.samples), "classes_seen": float(len(np.unique(classes)))}

    def collate(self, samples: np.ndarray, epoch: int) -> dict[str, np.ndarray]:
        """`pixels` uint8 [n, 3, s, s] and `label` int64 [n]."""
        return {
            "pixels": self.photos_of(samples, epoch),
            "label": self.label[np.searchsorted(self.photos, samples)],
        }

    def build(self) -> nn.Module:
        config = self.config.model
        start = read_photos(config.start_from) if config.start_from else None
        model = SimilarEncoder(
            config,
            self.config.preprocessing,
            objective=self.config.objective,
            classes=self.classes,
            pretrained=start is None,
        )
        if start is not None:
            model.start(start.weights())
        return model

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = model(batch["pixels"], batch["label"])
        return terms

    @property
    def tower_loss(self) -> TowerLoss:
        return self

    def encode(self, model: nn.Module, tower: str, inputs: Batch) -> Tensor:
        assert isinstance(model, SimilarEncoder)
        return model.encode_rows(inputs["pixels"])

    def compare(self, model: nn.Module, rows: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        assert isinstance(model, SimilarEncoder)
        return model.compared(rows["image"], batch["label"])

    def package(self, model: nn.Module) -> SimilarEmbedder:
        """Without the weights that only the loss needs."""
        config, weights = self.config, model.state_dict()
        encoder = SimilarEncoder(config.model, config.preprocessing, pretrained=False)
        encoder.load_state_dict({name: weights[name] for name in encoder.state_dict()})
        return SimilarEmbedder(config.name, config.model, config.preprocessing, encoder)

    def about(self) -> dict[str, Any]:
        return {
            **super().about(),
            "classes": self.config.classes.model_dump(mode="json"),
            "splits": list(self.config.splits),
            "objective": self.config.objective.model_dump(mode="json"),
        }

    def card(self, model: nn.Module) -> str:
        config, head = self.config, self.config.model.head
        parameters = sum(parameter.numel() for parameter in model.parameters())
        image = config.model.image.name or (config.model.image.config or {}).get("model_type")
        return self.write_card(
            f"Product photos as vectors of {head.served or head.dim} numbers. Photos of one product lie near each other "
            f"({config.objective.kind}).",
            [
                f"tower: {image} at {config.preprocessing.size} px, {parameters:,} parameters",
                f"vectors trained at {', '.join(map(str, sorted(head.widths)))} numbers",
                f"classes of the whole dataset: {self.clusters}",
            ],
            f"{len(self.photos):,} photos of {self.classes:,} classes",
            "Meant for products like those it was trained on. It reads photos, and no texts.",
        )

    @classmethod
    def judge(
        cls, package: Path, settings: Mapping[str, Any], config: Any, dataset: Dataset, about: Mapping[str, Any]
    ) -> tuple[Evaluation, str]:
        """How often a photo of the split finds one of its class first. Every photo is encoded once.

        Raises ShoplensError if the split has no class with two photos, or a width is beyond the head's.
        """
        embedder = SimilarEmbedder.load(package)
        classes = validate(ClassesConfig, settings["classes"], "classes")
        objective = validate(MetricConfig, settings["objective"], "objective")
        head = embedder.config.head
        widths = sorted({*head.widths, *config.widths})
        if widths[-1] > head.dim:
            raise ShoplensError(f"evaluation.widths: the head gives {head.dim} numbers, there are no {widths[-1]}")
        photos, label, learnt = _judged(dataset, classes, settings["splits"], config.split)
        fitted_on = learnt if widths[0] < head.dim else learnt[:0]
        if len(fitted_on) > config.pca_photos:
            fitted_on = np.sort(np.random.default_rng(0).choice(fitted_on, config.pca_photos, replace=False))
        every = embed_photos(dataset, np.concatenate([photos, fitted_on]), package, encode=_head_rows)
        rows, others = every[: len(photos)], every[len(photos) :]
        found = metric_space.judge(rows, label, objective, widths, embedder.dim, others)
        found.about["counts"] = {"photos": len(photos), "classes": len(np.unique(label[label >= 0]))}
        if dataset.digest == settings["dataset"]["digest"]:
            seen = config.split in settings["splits"]
            found.about["classes"] = "those of the training" if seen else "none of those of the training"
        evaluation = found.evaluation(about, seed=0)
        task = class_retrieval(metric_space.unit_rows(rows[:, : embedder.dim]), label)
        return evaluation, render(evaluation, [metric_space.shown(task, evaluation, photos, dataset)])


def _judged(
    dataset: Dataset, classes: ClassesConfig, trained: Sequence[str], split: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sample ids [n] of the photos of a split, the class of each, and sample ids of those of the `trained` splits.

    Raises ShoplensError if the split has no class with two photos.
    """
    clusters = clusters_of(dataset, classes)
    of_photo = splits_of(dataset, clusters.component, classes.splits, trained)
    photos = np.flatnonzero(of_photo == split)
    label = clusters.label[photos]
    if not (np.bincount(label + 1)[1:] > 1).any():
        names, counts = np.unique(of_photo[of_photo != LEFT_OUT], return_counts=True)
        there = ", ".join(f"{name} ({count})" for name, count in zip(names, counts, strict=True))
        raise ShoplensError(
            f"{dataset.path} has no class with two photos in split {split}; by classes.splits its photos are of {there}"
        )
    return photos, label, np.flatnonzero(np.isin(of_photo, trained) & (of_photo != split))


def _head_rows(model: SimilarEmbedder, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    return model.encode_rows(columns["pixels"])


RECIPE = SimilarRecipe
