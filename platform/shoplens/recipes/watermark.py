"""Watermarks: does a photo bear a mark that somebody laid over it?

Marks are drawn on clean photos (`curation.photo.overlays`), so no labels are needed. A dataset whose products say which
photos are marked trains the same detector without drawing (`label`). The detector reads tiles of the photo
(`nn.watermark`): a mark is small, and most often at the border.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFilter
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from shoplens.config import Config, validate
from shoplens.curation.photo import overlays
from shoplens.datasets.format import Dataset
from shoplens.datasets.preprocessing import Augmentation, Preprocessing
from shoplens.datasets.samples import Samples
from shoplens.datasets.training_photo import training_image
from shoplens.errors import ShoplensError
from shoplens.evaluation.detection import judge_scores
from shoplens.evaluation.judging import JudgingConfig
from shoplens.evaluation.report import render
from shoplens.evaluation.results import Evaluation
from shoplens.nn.watermark import MarkDetector, MarkDetectorConfig
from shoplens.packages.capabilities import SCORE_IMAGE
from shoplens.packages.model import PackagedModel
from shoplens.packages.photo_embedder import read_preprocessing
from shoplens.recipes.base import NAME, Arrays, Batch, PhotoRecipe, PhotoRecipeConfig
from shoplens.sampling.uniform import uniform_plan

BLOCK = 64
"""Photos that are decoded and scored at a time."""


class DrawnMarks(Config):
    """How marks and print are drawn on clean photos."""

    marked: float = Field(0.5, gt=0, lt=1, description="Share of photos that get a mark.")
    printed: float = Field(0.35, ge=0, le=1, description="Share of the other photos that get a label or a slogan.")
    sharpened: float = Field(
        0.3, ge=0, le=1, description="Share of photos that are sharpened before, so that sharp edges are no sign."
    )
    longest: tuple[float, float] = Field(
        (0.9, 1.5),
        description="Longer side of the photo that is drawn on, at least and at most, in units of `preprocessing.size`.",
    )


class LabelConfig(Config):
    """A product attribute that says whether the product's photos are marked. Products without it are left out."""

    attribute: str = Field(description="Key of the attribute, such as `watermark`.")
    marked: str = Field("yes", description="Its value for marked photos; every other value is for clean ones.")


class WatermarkEvaluation(JudgingConfig):
    """Photos of a split, half of them with a drawn mark, or with the labels that they have."""

    cut: float = Field(0.5, ge=0, le=1, description="Score from which on a photo counts as marked.")


class WatermarkRecipeConfig(PhotoRecipeConfig):
    """A detector of marks on photos."""

    recipe: Literal["watermark"] = Field(description="Name of the recipe.")
    name: str = Field("watermarks", pattern=NAME, description="Name of the registered model.")
    splits: tuple[str, ...] = Field(("train",), min_length=1, description="Splits of photos to train on.")
    drawn: DrawnMarks = Field(
        DrawnMarks(), description="Marks that are drawn. Without effect where there is a `label`."
    )
    label: LabelConfig | None = Field(None, description="Labels of the dataset's own photos. null: marks are drawn.")
    model: MarkDetectorConfig = Field(MarkDetectorConfig(), description="The trunk, and the layers on its tiles.")
    evaluation: WatermarkEvaluation = Field(
        WatermarkEvaluation(), description="The evaluation that follows the training."
    )

    @model_validator(mode="after")
    def _whole_photos(self) -> WatermarkRecipeConfig:
        if self.label is not None and self.augmentation is not None and self.augmentation.crop < 1:
            raise ValueError("a crop can cut off the mark that the label tells of: with label, set augmentation.crop=1")
        return self


class MarkScorer(PackagedModel):
    """A trained `MarkDetector`. The score is a probability under the shares of its training photos."""

    capabilities = (SCORE_IMAGE,)
    files = ("preprocess.json",)
    model: MarkDetector

    def __init__(
        self, name: str, config: MarkDetectorConfig, preprocessing: Preprocessing, model: MarkDetector
    ) -> None:
        super().__init__(name, model)
        self.config = config
        self._preprocessing = preprocessing

    @property
    def preprocessing(self) -> Preprocessing:
        return self._preprocessing

    @torch.inference_mode()
    def score_images(self, pixels: np.ndarray, batch_size: int = BLOCK) -> np.ndarray:
        """uint8 [n, 3, size, size] -> float32 [n], from 0 (clean) to 1 (marked)."""
        rows = [
            torch.sigmoid(self.model(torch.tensor(pixels[start : start + batch_size], device=self.device)))
            for start in range(0, len(pixels), batch_size)
        ]
        return torch.cat(rows).float().cpu().numpy() if rows else np.empty(0, np.float32)

    def write(self, folder: Path) -> Mapping[str, Any]:
        (folder / "preprocess.json").write_text(self.preprocessing.model_dump_json(indent=1))
        return {"architecture": self.config.model_dump(mode="json", exclude={"start_from", "locked"})}

    @classmethod
    def read(cls, config: Mapping[str, Any], folder: Path) -> MarkScorer:
        settings = validate(MarkDetectorConfig, config["architecture"], f"{folder}/config.json")
        preprocessing = read_preprocessing(folder)
        return cls(config["name"], settings, preprocessing, MarkDetector(settings, preprocessing, pretrained=False))


class View(NamedTuple):
    """Pixels uint8 [3, size, size], and the kind of the mark on them; "" without one."""

    pixels: np.ndarray
    kind: str


class WatermarkRecipe(PhotoRecipe):
    """Marked or not, by binary cross-entropy. Pickles as its configuration; data is opened where it is used."""

    Config = WatermarkRecipeConfig
    config: WatermarkRecipeConfig

    @cached_property
    def samples(self) -> Samples:
        samples = Samples.of(self.dataset, self.config.splits)
        if self.config.label is None:
            return samples
        return _labelled(self.dataset, samples, self.config.label)[0]

    @cached_property
    def label(self) -> np.ndarray:
        """Whether each photo of `samples` is marked, bool [n]; only with `label`."""
        assert self.config.label is not None
        return _labelled(self.dataset, self.samples, self.config.label)[1]

    def check(self) -> None:
        """Raises ShoplensError if a split is empty, or has photos of one label only."""
        for splits in (self.config.splits, (self.config.evaluation.split,)):
            samples = Samples.of(self.dataset, splits)
            if self.config.label is not None:
                _labelled(self.dataset, samples, self.config.label)

    def plan(self, epoch: int) -> np.ndarray:
        return uniform_plan(self.samples, self.training.batch_size, self.seed, epoch)

    def steps(self, epoch: int) -> int:
        return len(self.plan(0))

    @property
    def view_settings(self) -> dict[str, Any]:
        head = self.config.model.head
        drawn = None if self.config.label is not None else self.config.drawn.model_dump(mode="json")
        return {"tiles": [head.tiles, *head.stages], "drawn": drawn}

    def pixels(self, sample: int, rng: np.random.Generator) -> np.ndarray:
        """uint8 [3, size, size], augmented and drawn on by draws of `rng`. Raises ShoplensError as `training_image`."""
        if self.config.label is not None:
            return super().pixels(sample, rng)
        config = self.config
        return drawn_view(self.dataset, sample, config.preprocessing, config.augmentation, config.drawn, rng).pixels

    def collate(self, samples: np.ndarray, epoch: int) -> Arrays:
        """`pixels` uint8 [n, 3, s, s], or vectors of the locked trunk float16 [n, width], and `marked` float32 [n]."""
        if self.config.label is not None:
            marked = self.label[np.searchsorted(self.samples.sample, samples)]
            return {"pixels": self.photos_of(samples, epoch), "marked": marked.astype(np.float32)}
        if self.trunk_file is None:
            pixels = self.photos_of(samples, epoch)
            marked = np.array([self._is_marked(sample, epoch, 0) for sample in samples.tolist()])
        else:
            views = self._trunk_vectors.shape[1]
            chosen = [int(self.draws(sample, epoch).integers(views)) for sample in samples.tolist()]
            pixels = np.stack([self._trunk_vectors[at] for at in zip(samples.tolist(), chosen, strict=True)])
            pairs = zip(samples.tolist(), chosen, strict=True)
            marked = np.array([self._is_marked(sample, 0, view) for sample, view in pairs])
        return {"pixels": pixels, "marked": marked.astype(np.float32)}

    def _is_marked(self, sample: int, epoch: int, view: int) -> bool:
        """What `drawn_view` draws first."""
        return bool(self.draws(sample, epoch, view).random() < self.config.drawn.marked)

    def build(self) -> nn.Module:
        return MarkDetector(self.config.model, self.config.preprocessing)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits: Tensor = model(batch["pixels"])
        marked = batch["marked"]
        return {
            "loss": functional.binary_cross_entropy_with_logits(logits, marked),
            "accuracy": ((logits > 0) == (marked > 0.5)).float().mean(),
        }

    def package(self, model: nn.Module) -> MarkScorer:
        assert isinstance(model, MarkDetector)
        return MarkScorer(self.config.name, self.config.model, self.config.preprocessing, model)

    def about(self) -> dict[str, Any]:
        label = self.config.label
        return {
            **super().about(),
            "drawn": self.config.drawn.model_dump(mode="json"),
            "label": None if label is None else label.model_dump(mode="json"),
        }

    def card(self, model: nn.Module) -> str:
        config = self.config
        parameters = sum(parameter.numel() for parameter in model.parameters())
        how = "marks drawn on clean photos" if config.label is None else f"the labels of {config.label.attribute}"
        return self.write_card(
            "A score from 0 to 1 for a photo: how likely a mark (watermark, logo, date, copyright line) lies over it.",
            [
                f"trunk: {config.model.image.name} at {config.preprocessing.size} px, {parameters:,} parameters",
                f"evidence of {config.model.head.tiles} x {config.model.head.tiles} tiles",
            ],
            f"{len(self.samples):,} photos, {how}",
            "It takes print at the border of a photo for a mark. Choose the cut on photos of your own shop.",
        )

    @classmethod
    def judge(
        cls, package: Path, settings: Mapping[str, Any], config: Any, dataset: Dataset, about: Mapping[str, Any]
    ) -> tuple[Evaluation, str]:
        """How well the scores tell marked photos of the split from others. Raises ShoplensError if one kind is missing."""
        scorer = MarkScorer.load(package)
        drawn = validate(DrawnMarks, settings["drawn"], "drawn")
        samples = Samples.of(dataset, [config.split])
        truth: np.ndarray | None = None
        if settings["label"] is not None:
            samples, truth = _labelled(dataset, samples, validate(LabelConfig, settings["label"], "label"))
        scores, kinds = [], []
        for block in _views(dataset, samples.sample, scorer.preprocessing, drawn if truth is None else None):
            scores.append(scorer.score_images(np.stack([view.pixels for view in block])))
            kinds += [view.kind for view in block]
        score, kind = np.concatenate(scores), np.array(kinds)
        marked = kind != "" if truth is None else truth
        found = judge_scores(score, marked, samples.catalog, config.cut, "watermark", "Marked photos")
        found.about["cut"] = config.cut
        if truth is None:
            found.about["kinds"] = _by_kind(score, kind, config.cut)
            found.titles["kinds"] = "Drawn marks by kind"
        evaluation = found.evaluation(about)
        return evaluation, render(evaluation)


def drawn_view(
    dataset: Dataset,
    sample: int,
    preprocessing: Preprocessing,
    augmentation: Augmentation | None,
    drawn: DrawnMarks,
    rng: np.random.Generator,
) -> View:
    """A photo with a mark, with print, or as it is; the first draw of `rng` decides whether it is marked.

    Every photo is resized and saved as a JPEG in the same way, so neither tells. Raises ShoplensError as
    `training_image` does.
    """
    marked = rng.random() < drawn.marked
    image = training_image(dataset, sample, preprocessing, augmentation, rng)
    scale = preprocessing.size * rng.uniform(*drawn.longest) / max(image.size)
    size = max(16, round(image.width * scale)), max(16, round(image.height * scale))
    image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    if rng.random() < drawn.sharpened:
        image = image.filter(ImageFilter.UnsharpMask(1.5, int(rng.integers(50, 150)), 0))
    kind = ""
    if marked:
        image, kind = overlays.marked(image, rng)
    elif rng.random() < drawn.printed:
        image = overlays.unmarked(image, rng)
    return View(preprocessing(overlays.reencoded(image, rng)), kind)


def _views(
    dataset: Dataset, samples: np.ndarray, preprocessing: Preprocessing, drawn: DrawnMarks | None
) -> Iterator[list[View]]:
    """Blocks of views of photos, in order; always the same marks."""

    def read(sample: int) -> View:
        if drawn is not None:
            return drawn_view(dataset, sample, preprocessing, None, drawn, np.random.default_rng((0, sample)))
        image = training_image(dataset, sample, preprocessing, None, np.random.default_rng(0))
        return View(preprocessing(image), "")

    with ThreadPoolExecutor(2) as threads:
        for start in range(0, len(samples), BLOCK):
            yield list(threads.map(read, samples[start : start + BLOCK].tolist()))


def _labelled(dataset: Dataset, samples: Samples, label: LabelConfig) -> tuple[Samples, np.ndarray]:
    """The samples whose product has the attribute, and whether each is marked, bool [n].

    Raises ShoplensError if there is no marked or no clean photo among them.
    """
    every = [dict(of or []).get(label.attribute) or [] for of in dataset.products["attributes"].to_pylist()]
    known = np.array([bool(values) for values in every])[samples.product]
    marked = np.array([label.marked in values for values in every])[samples.product]
    if not marked[known].any() or marked[known].all():
        raise ShoplensError(
            f"{dataset.path} needs photos of products with and without the attribute {label.attribute}={label.marked}: "
            f"it has {int(marked.sum())} marked and {int((known & ~marked).sum())} clean photos in these splits"
        )
    return samples.keep(known), marked[known]


def _by_kind(score: np.ndarray, kinds: np.ndarray, cut: float) -> dict[str, dict[str, float]]:
    """Kind of mark -> number of photos, and the share that is found."""
    return {
        kind: {"photos": int((kinds == kind).sum()), "found": round(float((score[kinds == kind] >= cut).mean()), 4)}
        for kind in overlays.KINDS
        if (kinds == kind).any()
    }


RECIPE = WatermarkRecipe
