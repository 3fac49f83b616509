"""Similar products: metric learning on photos, so that those of one product come near each other.

Classes are made of catalogs, near-duplicate photos and users' photos (`curation.product_clusters`); the loss is that
of Hyp-ViT, its form on the sphere, triplets or ArcFace (`objectives.metric_learning`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt, model_validator
from sklearn.decomposition import PCA
from torch import Tensor, nn

from shoplens.config import Config, validate
from shoplens.curation.product_clusters import LEFT_OUT, ClassesConfig, ProductClusters, clusters_of, splits_of
from shoplens.datasets.format import Dataset
from shoplens.datasets.preprocessing import Augmentation, Preprocessing
from shoplens.datasets.samples import Samples
from shoplens.datasets.training_photo import training_pixels
from shoplens.errors import ShoplensError
from shoplens.evaluation.class_retrieval import class_retrieval
from shoplens.evaluation.metrics import chance_recall, recall_at
from shoplens.evaluation.ranking import Answers, Retrieval, nearest, rank
from shoplens.evaluation.report import Card, Case, Showcase, render, thumbnail
from shoplens.evaluation.results import Evaluation, Findings
from shoplens.nn.similar import SimilarConfig, SimilarEncoder
from shoplens.objectives import hyperbolic
from shoplens.objectives.metric_learning import MetricConfig
from shoplens.packages.embedding import embed_photos
from shoplens.packages.photo_embedder import PhotoEmbedder
from shoplens.packages.pretrained import filled_in, read_photos
from shoplens.recipes.base import Batch, Timeline, TrainingConfig
from shoplens.registry.gates import Gates
from shoplens.sampling.classes import ClassBatches, class_plan
from shoplens.sampling.statistics import plan_statistics
from shoplens.schema import Split

RECALLS = (1, 10)


class SimilarEvaluation(Config):
    """What is judged: photos of a split ask for the others of their class, among all photos of that split.

    widths      numbers from the first on that are judged as vectors, beside those that were trained
    pca_photos  training photos at most that the principal components are fitted on, to which the full width is
                reduced for comparison; 0: none
    """

    split: Split = "val"
    widths: tuple[PositiveInt, ...] = ()
    pca_photos: int = Field(20_000, ge=0)


class SimilarRecipeConfig(Config):
    """splits   those of `classes.splits` that are learnt from"""

    recipe: Literal["similar"]
    name: str = Field("similar", pattern=r"^[a-z0-9][a-z0-9_-]*$")
    dataset: str
    seed: int = 7
    classes: ClassesConfig = ClassesConfig()
    splits: tuple[str, ...] = Field(("train",), min_length=1)
    batches: ClassBatches = ClassBatches()
    objective: MetricConfig = MetricConfig()
    preprocessing: Preprocessing = Preprocessing()
    augmentation: Augmentation | None = Augmentation()
    model: SimilarConfig = SimilarConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: SimilarEvaluation = SimilarEvaluation()
    promotion: Gates | None = None

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
    """A trained `SimilarEncoder`. Its vectors are the head's rows at unit length: photos are ranked by cosine.

    Of the losses on the sphere that is the ranking they train. The hyperbolic one trains a ranking by distance in the
    ball, whose exact form as an inner product (`hyperbolic.lift_items`, `lift_queries`) needs one vector to ask with
    and another to be found by, neither of unit length. Index, endpoints and the mean over a product's photos
    know one unit vector a photo, so what is served is the cosine of the head's rows. That is the same ranking where
    the clip radius shortens every row; elsewhere each evaluation judges both, and so says what it costs.
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


class SimilarRecipe:
    """A `Recipe` and `Streamed`. Pickles as its configuration; data is opened where it is used."""

    towers = MappingProxyType({"image": ("pixels",)})

    def __init__(self, config: SimilarRecipeConfig) -> None:
        self.config = config

    def __reduce__(self) -> tuple[type[SimilarRecipe], tuple[SimilarRecipeConfig]]:
        return SimilarRecipe, (self.config,)

    @property
    def training(self) -> TrainingConfig:
        return self.config.training

    @property
    def seed(self) -> int:
        return self.config.seed

    @cached_property
    def dataset(self) -> Dataset:
        return Dataset(self.config.dataset)

    @cached_property
    def clusters(self) -> ProductClusters:
        return clusters_of(self.dataset, self.config.classes)

    @cached_property
    def photos(self) -> np.ndarray:
        """Training photos of classes of two or more, in the order of the dataset: sample ids int64 [n]."""
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
        """int64 [n] of `photos`: 0 to the number of training classes - 1."""
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

    def check_evaluation(self) -> None:
        """Raises ShoplensError if the split that is judged has no class with two photos."""
        _judged(self.dataset, self.config.classes, self.config.splits, self.config.evaluation.split)

    def plan_statistics(self, plan: np.ndarray) -> dict[str, float]:
        classes = self.label[np.searchsorted(self.photos, plan)]
        return {**plan_statistics(plan, self.samples), "classes_seen": float(len(np.unique(classes)))}

    def collate(self, samples: np.ndarray, epoch: int) -> dict[str, np.ndarray]:
        """`pixels` uint8 [n, 3, s, s] and `label` int64 [n]."""
        return {
            "pixels": np.stack([self._pixels(int(sample), epoch) for sample in samples]),
            "label": self.label[np.searchsorted(self.photos, samples)],
        }

    def _pixels(self, sample: int, epoch: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, epoch, sample))
        return training_pixels(self.dataset, sample, self.config.preprocessing, self.config.augmentation, rng)

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

    def encode(self, model: nn.Module, tower: str, inputs: Batch) -> Tensor:
        assert isinstance(model, SimilarEncoder)
        return model.encode_rows(inputs["pixels"])

    def compare(self, model: nn.Module, rows: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        assert isinstance(model, SimilarEncoder)
        return model.compared(rows["image"], batch["label"])

    def save(self, model: nn.Module, folder: Path) -> None:
        """Writes the package of a trained model, without what only its loss needs, aside, then moves it to `folder`."""
        assert isinstance(model, SimilarEncoder)
        config = self.config
        encoder = SimilarEncoder(config.model, config.preprocessing, pretrained=False)
        weights = model.state_dict()
        encoder.load_state_dict({name: weights[name] for name in encoder.state_dict()})
        about = {
            "recipe": config.recipe,
            "seed": self.seed,
            "classes": config.classes.model_dump(mode="json"),
            "splits": list(config.splits),
            "objective": config.objective.model_dump(mode="json"),
            "evaluation": config.evaluation.model_dump(mode="json"),
            "dataset": {"name": self.dataset.name, "digest": self.dataset.digest},
        }
        embedder = SimilarEmbedder(config.name, config.model, config.preprocessing, encoder)
        embedder.save(folder, self._card(encoder), about)

    def _card(self, model: nn.Module) -> str:
        config, data, head = self.config, self.dataset, self.config.model.head
        parameters = sum(parameter.numel() for parameter in model.parameters())
        image = config.model.image.name or (config.model.image.config or {}).get("model_type")
        widths = ", ".join(str(width) for width in sorted(head.widths))
        start = config.model.start_from
        began = [f"- started from {Path(start).name if Path(start).is_dir() else start}"] if start else []
        return "\n".join(
            [
                f"# {config.name}",
                "",
                f"Product photos as vectors of {head.served or head.dim} numbers, those of one product near each other "
                f"({config.objective.kind}).",
                "",
                f"- tower: {image} at {config.preprocessing.size} px, {parameters:,} parameters",
                f"- vectors trained at {widths} numbers",
                *began,
                f"- trained on {data.name} (`{data.digest[:12]}`): {len(self.photos):,} photos of {self.classes:,} "
                "classes",
                f"- of the whole dataset: {self.clusters}",
                f"- {config.training.epochs} epochs, {Timeline(self).total} steps, batch {config.training.batch_size}, "
                f"seed {config.seed}",
                "",
                "Meant for products like those it was trained on; it reads photos, and no texts.",
                "",
            ]
        )


def load(tree: Mapping[str, Any], where: str) -> SimilarRecipe:
    """Raises ConfigError, or ShoplensError where the dataset or the checkpoint to start from does not serve."""
    recipe = SimilarRecipe(validate(SimilarRecipeConfig, filled_in(tree, where, photos_only=True), where))
    _ = recipe.photos
    return recipe


def evaluate(
    package: str | Path,
    dataset: Dataset,
    split: str | None,
    about: Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
) -> tuple[Evaluation, str]:
    """How often a photo of a split finds one of its class first, and the report. Every photo is encoded once.

    Raises ShoplensError if the package is of another recipe, or the split has no class with two photos.
    """
    embedder = SimilarEmbedder.load(package)
    settings = json.loads((Path(package) / "config.json").read_text())
    chosen = {**settings["evaluation"], **(overrides or {}), **({} if split is None else {"split": split})}
    config = validate(SimilarEvaluation, chosen, "evaluation")
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
    every = np.concatenate([photos, fitted_on])
    rows = embed_photos(dataset, every, package, encode=_head_rows)
    rows, others = rows[: len(photos)], rows[len(photos) :]
    found = judge(rows, label, objective, widths, embedder.dim, others)
    found.about["counts"] = {"photos": len(photos), "classes": len(np.unique(label[label >= 0]))}
    if dataset.digest == settings["dataset"]["digest"]:
        seen = config.split in settings["splits"]
        found.about["classes"] = "those of the training" if seen else "none of those of the training"
    evaluation = found.evaluation(
        {
            **about,
            "dataset": dataset.name,
            "dataset_path": dataset.path,
            "dataset_digest": dataset.digest,
            "split": config.split,
        },
        seed=0,
    )
    task = class_retrieval(_unit(rows[:, : embedder.dim]), label)
    return evaluation, render(evaluation, [shown(task, evaluation, photos, dataset)])


def _head_rows(model: SimilarEmbedder, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    return model.encode_rows(columns["pixels"])


def judge(
    rows: np.ndarray,
    label: np.ndarray,
    objective: MetricConfig,
    widths: Sequence[int],
    served: int,
    others: np.ndarray,
) -> Findings:
    """Of rows [n, d] as the head gives them, of classes int64 [n], negative for none:

    similar            by cosine at the `served` width, as endpoints and index have it
    similar/first_64   by cosine of the first 64 numbers, for each other of the `widths`
    similar/pca_64     by cosine at full width, reduced to 64 numbers by the principal components of `others` [m, d]
    similar/ball       by distance in the ball at the served width, where the objective has one

    each recall@1 and @10; redraws for the intervals are of whole classes. `about` says how far the rows are from a
    tree (`hyperbolic.relative_delta`) and which share of them the clip radius shortens.
    """
    found, full = Findings(), _unit(rows)
    tasks = {"similar": class_retrieval(_unit(rows[:, :served]), label)}
    for width in widths:
        if width != served:
            tasks[f"similar/first_{width}"] = class_retrieval(_unit(rows[:, :width]), label)
        if width < rows.shape[1] and width <= len(others):
            components = PCA(width, svd_solver="full").fit(_unit(others))
            tasks[f"similar/pca_{width}"] = class_retrieval(_unit(components.transform(full)), label)
    if objective.kind == "hyperbolic":
        tangent = torch.tensor(rows[:, :served], dtype=torch.float64)
        points = hyperbolic.to_ball(tangent, objective.curvature, objective.clip_radius)
        lifted = [
            lift(points, objective.curvature).numpy() for lift in (hyperbolic.lift_queries, hyperbolic.lift_items)
        ]
        tasks["similar/ball"] = class_retrieval(lifted[0], label, lifted[1])
        clipped = hyperbolic.clipped_share(tangent, objective.curvature, objective.clip_radius)
        found.about["clipped_share"] = round(float(clipped), 4)
    found.about["relative_delta"] = round(hyperbolic.relative_delta(torch.tensor(rows[:, :served])), 4)
    found.about["queries_without_answer"] = {"similar": tasks["similar"].n_without_answer}
    for name, task in tasks.items():
        ranks = rank(task)
        for k in RECALLS:
            chance = float(chance_recall(k, ranks.n_right, ranks.n_gallery).mean())
            found.add(f"{name}/recall@{k}", recall_at(k, ranks.first), task.group, chance)
    return found


def shown(task: Retrieval, evaluation: Evaluation, photos: np.ndarray, dataset: Dataset, n: int = 4) -> Showcase:
    """Some photos of different classes with what is nearest to them, the first right and the first wrong."""
    titles = dataset.products["title"].to_pylist()

    def card(place: int, right: bool | None = None, score: float | None = None) -> Card:
        sample = int(photos[place])
        title = titles[int(dataset.product_row[sample])]
        return Card(title, thumbnail(dataset.read_image(sample)), right, score)

    def case(found: Answers) -> Case:
        answers = zip(found.items, found.right, found.scores, strict=True)
        cards = [card(int(item), bool(right), float(score)) for item, right, score in answers]
        missed = card(found.best_right, True) if found.best_right_rank > len(cards) else None
        return Case(card(int(task.query_row[found.query])), cards, missed, found.best_right_rank)

    first = evaluation.outcomes["similar/recall@1"]
    order = np.random.default_rng(0).permutation(len(first))
    cases = []
    for hit in (1.0, 0.0):
        asked = order[first[order] == hit]
        asked = asked[np.sort(np.unique(task.group[asked], return_index=True)[1])][:n]
        cases.append([case(found) for found in nearest(task, asked, 6)])
    return Showcase("Similar photos", "A photo, and the photos nearest to it among all others of the split.", *cases)


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


def _unit(rows: np.ndarray) -> np.ndarray:
    """float32 rows [n, d] at unit length; 0 stays 0."""
    wide = rows.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.maximum(length, 1e-12), dtype=np.float32)
