"""The contract between a trainable model and the platform.

A recipe says what is specific to one model. Jobs, the training loop, the registry and the endpoints use what is declared
here and nothing else, so a new model is a recipe, a configuration and a test (and `nn/NAME.py` if its architecture is
new). `Recipe` is the contract; `PhotoRecipe` adds what recipes with photos share.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from PIL import Image
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import Self

from shoplens.config import Config, validate
from shoplens.datasets.format import Dataset
from shoplens.datasets.preprocessing import Augmentation, Preprocessing
from shoplens.datasets.tokenizers import pretrained_tokenizer, train_tokenizer
from shoplens.datasets.training_photo import training_pixels
from shoplens.evaluation.judging import JudgingConfig
from shoplens.evaluation.results import Evaluation
from shoplens.nn.towers import TextTowerConfig
from shoplens.packages.model import PackagedModel, read_config
from shoplens.packages.pretrained import read
from shoplens.recipes.schedule import Timeline, TrainingConfig
from shoplens.registry.gates import Gates
from shoplens.sampling.mined import Mined

Batch = dict[str, Tensor]
"""A micro-batch as tensors. The first dimension is the sample."""
Arrays = dict[str, np.ndarray]
"""A micro-batch as arrays, as `collate` returns it."""

NAME = r"^[a-z0-9][a-z0-9_-]*$"
PREVIEW_COLUMNS, PREVIEW_ROWS = 12, 6


class RecipeConfig(Config):
    """Settings of every recipe."""

    recipe: str = Field(description="Name of the recipe.")
    name: str = Field("model", pattern=NAME, description="Name of the registered model.")
    dataset: str = Field(description="Folder or URI of the dataset. Usually given on the command line.")
    seed: int = Field(7, description="Seed of weights, plans, augmentation and dropout.")
    training: TrainingConfig = Field(TrainingConfig(), description="Optimizer, schedule and feed.")
    evaluation: JudgingConfig = Field(JudgingConfig(), description="The evaluation that follows the training.")
    promotion: Gates | None = Field(None, description="Gates of `shoplens promote`. null: it refuses every version.")


class TowerLoss(Protocol):
    """A loss over rows that towers encode sample by sample, as gradient caching and mining need it.

    towers   name of each tower -> the entries of a batch that it reads
    """

    @property
    def towers(self) -> Mapping[str, tuple[str, ...]]: ...

    def encode(self, model: nn.Module, tower: str, inputs: Batch) -> Tensor:
        """Rows [n, d] of n samples, each independent of the others."""
        ...

    def compare(self, model: nn.Module, rows: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Scalars to log; `loss` is differentiated. `batch` lacks the entries that only towers read."""
        ...


class Mining(TowerLoss, Protocol):
    """Plans of some epochs are made of the samples that the model confuses at their start."""

    @property
    def mined_samples(self) -> np.ndarray:
        """int64 [n] sample ids, in the order of `mine`."""
        ...

    def mines(self, epoch: int) -> bool:
        """Whether the plan of an epoch waits for mining."""
        ...

    def mine(self, rows: Mapping[str, Tensor]) -> Mined:
        """From the rows [n, d] of every tower."""
        ...

    def mined_plan(self, epoch: int, neighbours: np.ndarray) -> np.ndarray:
        """As `Recipe.plan`, from `Mined.neighbours`."""
        ...


class Recipe(ABC):
    """One trainable model. Pickles, because the loop carries it to every worker; values of `cached_property` stay behind.

    Subclasses set `Config` and implement the abstract methods; the others have defaults.
    """

    Config: ClassVar[type[RecipeConfig]]
    config: RecipeConfig

    def __init__(self, config: RecipeConfig) -> None:
        self.config = config

    @classmethod
    def load(cls, tree: Mapping[str, Any], where: str) -> Self:
        """A recipe ready to train, from the configuration as YAML holds it; `where` names it in errors.

        Raises ConfigError, or ShoplensError where the dataset or the checkpoint to start from does not serve.
        """
        return cls(validate(cls.Config, cls.prepare(tree, where), where))

    @classmethod
    def prepare(cls, tree: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        """Fills in settings before they are validated, such as the towers of a checkpoint."""
        return tree

    def __getstate__(self) -> dict[str, Any]:
        kind = type(self)
        return {
            name: value
            for name, value in vars(self).items()
            if not isinstance(getattr(kind, name, None), cached_property)
        }

    @property
    def start_from(self) -> str | None:
        """The checkpoint that the model starts from, if any."""
        return None

    # What is trained on.

    @cached_property
    def dataset(self) -> Dataset:
        return Dataset(self.config.dataset)

    @property
    def training(self) -> TrainingConfig:
        return self.config.training

    @property
    def seed(self) -> int:
        return self.config.seed

    @property
    def timeline(self) -> Timeline:
        return Timeline(self.training, self.steps)

    def check(self) -> None:  # noqa: B027 - optional
        """Raises ShoplensError if the dataset does not suffice for training or evaluation. Called before anything runs."""

    @abstractmethod
    def plan(self, epoch: int) -> np.ndarray:
        """Sample ids of every global batch, int64 [steps, batch_size]: a pure function of dataset, seed and epoch."""

    def steps(self, epoch: int) -> int:
        """Batches of an epoch; override it if it is known without making the plan."""
        return len(self.plan(epoch))

    def plan_statistics(self, plan: np.ndarray) -> dict[str, float]:
        """Figures about an epoch's plan, logged as `sampling/...`."""
        return {}

    @abstractmethod
    def collate(self, samples: np.ndarray, epoch: int) -> Arrays:
        """Reads the samples of one micro-batch, with or without photos; the same arguments give the same bytes.

        Several views of a photo are several entries, such as `pixels` and `pixels_b`.
        """

    def preview(self, batch: Arrays) -> Image.Image | None:
        """A picture of the first batch for the run's page; None if the recipe has nothing to draw."""
        return None

    # What is learnt.

    @abstractmethod
    def build(self) -> nn.Module:
        """The model, randomly initialised or pretrained, on the CPU. Everything that training changes is in its state."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Scalars to log; `loss` is differentiated. `model` must be called as a whole, not its parts (DDP)."""

    def after_step(self, model: nn.Module, progress: float) -> None:  # noqa: B027 - optional
        """Changes the model after an optimizer step: moving averages, teachers, banks.

        progress   share of all steps that are done, in (0, 1]
        """

    @property
    def tower_loss(self) -> TowerLoss | None:
        """The loss by towers, if `training.stream_size` may be used."""
        return None

    @property
    def mining(self) -> Mining | None:
        """How plans follow the model, if they do."""
        return None

    # What comes out.

    @abstractmethod
    def package(self, model: nn.Module) -> PackagedModel:
        """The trained model with all that it needs to answer."""

    @abstractmethod
    def card(self, model: nn.Module) -> str:
        """`MODEL_CARD.md`: what the model is for, what it was trained on, what it cannot do."""

    def write_card(self, purpose: str, facts: Iterable[str], learnt: str, limits: str) -> str:
        """A card in the common form.

        purpose   one sentence: what the model does
        facts     lines about the architecture
        learnt    what it was trained on, such as "1,200 photos of 300 classes"
        limits    one sentence: what it is not for
        """
        training, data = self.training, self.dataset
        start = self.start_from
        lines = [
            *facts,
            *([f"started from {Path(start).name if Path(start).is_dir() else start}"] if start else []),
            f"trained on {data.name} (`{data.digest[:12]}`): {learnt}",
            f"{training.epochs} epochs, {self.timeline.total} steps, batch {training.batch_size}, seed {self.seed}",
        ]
        listed = "\n".join(f"- {line}" for line in lines)
        return f"# {self.config.name}\n\n{purpose}\n\n{listed}\n\n{limits}\n"

    def about(self) -> dict[str, Any]:
        """Entries of the package's `config.json` beside the architecture; evaluation reads them again."""
        return {
            "recipe": self.config.recipe,
            "seed": self.seed,
            "evaluation": self.config.evaluation.model_dump(mode="json"),
            "dataset": {"name": self.dataset.name, "digest": self.dataset.digest},
        }

    def complete(self, model: nn.Module, package: Path) -> None:  # noqa: B027 - optional
        """Adds parts that need the packaged model itself, such as attribute heads."""

    def save(self, model: nn.Module, folder: Path) -> None:
        """Writes the package of a trained model aside, then moves it to `folder`, which must not exist."""
        draft = folder.with_name(folder.name + ".draft")
        shutil.rmtree(draft, ignore_errors=True)
        self.package(model).save(draft, self.card(model), self.about())
        self.complete(model, draft)
        draft.rename(folder)

    @classmethod
    def evaluate(
        cls,
        package: str | Path,
        dataset: Dataset,
        split: str | None = None,
        about: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> tuple[Evaluation, str]:
        """Judges a package on a split: the figures, and the report in HTML.

        split       null: that of the package's own `evaluation:` settings
        about       entries of `Evaluation.about`, such as the model's name
        overrides   settings that stand before the package's own

        Raises ConfigError for settings that do not fit, ShoplensError if package or dataset do not serve.
        """
        settings = read_config(Path(package))
        chosen = {**settings["evaluation"], **(overrides or {}), **({} if split is None else {"split": split})}
        config = validate(_judging(cls.Config), chosen, "evaluation")
        where = {
            **(about or {}),
            "dataset": dataset.name,
            "dataset_path": dataset.path,
            "dataset_digest": dataset.digest,
            "split": config.split,
        }
        return cls.judge(Path(package), settings, config, dataset, where)

    @classmethod
    @abstractmethod
    def judge(
        cls, package: Path, settings: Mapping[str, Any], config: Any, dataset: Dataset, about: Mapping[str, Any]
    ) -> tuple[Evaluation, str]:
        """The figures and the report.

        settings   `config.json` of the package
        config     the recipe's own `evaluation:` settings, the split among them
        about      what `Evaluation.about` says beside what the recipe adds
        """


class PhotoRecipeConfig(RecipeConfig):
    preprocessing: Preprocessing = Field(Preprocessing(), description="From a photo to the pixels of the model.")
    augmentation: Augmentation | None = Field(
        Augmentation(), description="Random crops, mirroring and brightness. null: photos as they are."
    )
    photo_views: int | None = Field(
        None,
        ge=1,
        description="Augmented views of a photo, whose vectors the locked image trunk computes once; training draws from "
        "them and reads no photo. It needs `model.locked: [image.trunk]`. null: each step reads photos.",
    )


class PhotoRecipe(Recipe):
    """A recipe that reads photos."""

    config: PhotoRecipeConfig
    trunk_file: Path | None = None
    """Vectors of the locked trunk (`training.trunk_vectors`), float16 [photos, views, width], once they are computed."""

    @cached_property
    def _trunk_vectors(self) -> np.ndarray:
        assert self.trunk_file is not None
        return np.load(self.trunk_file, mmap_mode="r")

    def photo(self, sample: int, rng: np.random.Generator) -> np.ndarray:
        """A view of a photo, by draws of `rng`: uint8 [3, size, size], or the trunk's vector float16 [width].

        Raises ShoplensError that names a photo it cannot read.
        """
        if self.trunk_file is None:
            return self.pixels(sample, rng)
        return self._trunk_vectors[sample, rng.integers(self._trunk_vectors.shape[1])]

    def pixels(self, sample: int, rng: np.random.Generator) -> np.ndarray:
        """uint8 [3, size, size], augmented by draws of `rng`. Raises ShoplensError that names a photo it cannot read."""
        return training_pixels(self.dataset, sample, self.config.preprocessing, self.config.augmentation, rng)

    @property
    def view_settings(self) -> dict[str, Any]:
        """Settings that a view depends on beside those of `PhotoRecipeConfig`; they name the file of trunk vectors."""
        return {}

    def photos_of(self, samples: Iterable[int], epoch: int, view: int = 0) -> np.ndarray:
        """Views of photos, as `photo` returns them, stacked. Views of a photo differ in their augmentation."""
        return np.stack([self.photo(sample, self.draws(sample, epoch, view)) for sample in map(int, samples)])

    def draws(self, sample: int, epoch: int, view: int = 0) -> np.random.Generator:
        """Random numbers that belong to a view of a sample in an epoch, wherever it is read."""
        return np.random.default_rng((self.seed, epoch, sample) if view == 0 else (self.seed, epoch, sample, 0, view))

    def preview(self, batch: Arrays) -> Image.Image | None:
        """The first photos of the batch, augmented and resized as in training."""
        import torch
        from torchvision.utils import make_grid

        photos = torch.from_numpy(batch["pixels"][: PREVIEW_COLUMNS * PREVIEW_ROWS])
        sheet = make_grid(photos, nrow=PREVIEW_COLUMNS, padding=4, pad_value=255)
        return Image.fromarray(sheet.permute(1, 2, 0).numpy())


def fit_tokenizer(text: TextTowerConfig, start_from: str | None, corpus: Callable[[], Sequence[str]]) -> str:
    """The tokenizer of a text tower as JSON: the checkpoint's, the pretrained model's, or one trained on `corpus`."""
    if start_from is not None:
        return str(read(start_from).tokenizer.to_str())
    if text.name is not None:
        return str(pretrained_tokenizer(text.name, text.max_tokens).to_str())
    return str(train_tokenizer(corpus(), text.vocab_size, text.max_tokens).to_str())


def _judging(config: type[RecipeConfig]) -> type[JudgingConfig]:
    annotation = config.model_fields["evaluation"].annotation
    assert isinstance(annotation, type) and issubclass(annotation, JudgingConfig)
    return annotation
