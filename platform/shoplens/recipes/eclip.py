"""e-CLIP: contrastive pre-training on product photos and texts with catalog soft labels.

NAVER Shopping, CIKM 2022, arXiv 2207.00208. Its arms: `clip` (every pair its own target), `eclip` (targets
shared by the offers of a catalog), `filter` (near-duplicate pairs left out first) and `hard`
(category-based negatives from a chosen step).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from tokenizers import Tokenizer
from torch import Tensor, nn

from shoplens.curation.near_duplicates import first_of_duplicates
from shoplens.curation.short_queries import ANY, Facts, ShortQueries, ShortQueriesConfig, short_queries
from shoplens.datasets.format import Dataset
from shoplens.datasets.image_texts import ImageTexts, ImageTextsConfig
from shoplens.datasets.samples import Samples
from shoplens.datasets.tokenizers import tokenize
from shoplens.evaluation import product_tasks
from shoplens.evaluation.product_tasks import EvaluationConfig
from shoplens.evaluation.results import Evaluation
from shoplens.nn.dual_encoder import DualEncoder, DualEncoderConfig, Encoded
from shoplens.objectives.contrastive import ObjectiveConfig, contrastive
from shoplens.objectives.queries import query_loss
from shoplens.packages.embedder import Embedder
from shoplens.packages.embedding import embed_photos, embed_texts
from shoplens.packages.pretrained import filled_in, read
from shoplens.recipes.base import (
    NAME,
    Batch,
    Mining,
    PhotoRecipe,
    PhotoRecipeConfig,
    TowerLoss,
    fit_tokenizer,
)
from shoplens.sampling.category import CategoryNegatives, category_plan
from shoplens.sampling.mined import Mined, MinedNegatives, mine, mined_plan
from shoplens.sampling.statistics import plan_statistics
from shoplens.sampling.uniform import steps_per_epoch, uniform_plan

ARMS: dict[str, dict[str, Any]] = {
    "clip": {"objective": {"kind": "clip"}},
    "eclip": {},
    "filter": {"near_duplicates": "drop"},
    "hard": {"negatives": "category"},
}


class EclipConfig(PhotoRecipeConfig):
    """`arm` sets `objective.kind`, `near_duplicates` and `negatives`; each may also be set by itself."""

    recipe: Literal["eclip"] = Field(description="Name of the recipe.")
    name: str = Field("eclip", pattern=NAME, description="Name of the registered model.")
    arm: Literal["clip", "eclip", "filter", "hard"] = Field("eclip", description="One of the paper's arms.")
    objective: ObjectiveConfig = Field(ObjectiveConfig(), description="The contrastive loss.")
    near_duplicates: Literal["keep", "drop"] = Field("keep", description="`drop` leaves out near-duplicate pairs.")
    negatives: Literal["uniform", "category", "mined"] = Field(
        "uniform", description="Samples of a batch: any, those of one category, or those that the model confuses."
    )
    splits: tuple[str, ...] = Field(("train",), description="Splits to train on.")
    roles: tuple[str, ...] | None = Field(None, description="Roles of the photos to train on. null: all.")
    text_fields: tuple[str, ...] = Field(
        ("title",), min_length=1, description="Fields of a product that make up its text."
    )
    training_texts: tuple[tuple[str, ...], ...] = Field(
        (), description="Further texts, each a list of fields. Training draws one text for each photo and epoch."
    )
    image_texts: ImageTextsConfig | None = Field(
        None,
        description="Texts that belong to photos, as curation writes them, in place of texts of products. null: none.",
    )
    duplicate_distance: int = Field(
        2, ge=0, le=16, description="Largest distance of the hashes of near-duplicates, in bits of 64."
    )
    category_negatives: CategoryNegatives = Field(
        CategoryNegatives(), description="Batches of one category each, for `negatives: category`."
    )
    mined_negatives: MinedNegatives = Field(
        MinedNegatives(), description="Batches of samples that the model confuses, for `negatives: mined`."
    )
    queries: ShortQueriesConfig | None = Field(
        None, description="Short queries that training adds to the texts of products. null: none."
    )
    model: DualEncoderConfig = Field(description="The two towers.")
    attribute_heads: int = Field(
        20_000,
        ge=0,
        description="Largest number of photos that attribute heads learn from. 0: a package without heads.",
    )
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="The evaluation that follows the training.")

    @model_validator(mode="before")
    @classmethod
    def _expand_arm(cls, tree: Any) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        arm = ARMS.get(tree.get("arm", "eclip"), {})
        objective = tree.get("objective", {})
        if isinstance(objective, Mapping):
            objective = {**arm.get("objective", {}), **objective}
        return {**arm, **tree, "objective": objective}

    @model_validator(mode="after")
    def _bias(self) -> EclipConfig:
        if self.objective.kind == "sigmoid" and not self.model.logit_bias:
            raise ValueError(
                "objective.kind: sigmoid starts with far more negatives than positives: add model.logit_bias=true"
            )
        return self


class EclipRecipe(PhotoRecipe):
    """Photos and texts of products in one space. Pickles as its configuration, short queries and tokenizer."""

    Config = EclipConfig
    config: EclipConfig

    def __init__(self, config: EclipConfig) -> None:
        super().__init__(config)
        self.queries = None if config.queries is None else self._short_queries(config.queries)
        self.tokenizer_json = fit_tokenizer(config.model.text, config.model.start_from, self._corpus)

    @property
    def start_from(self) -> str | None:
        return self.config.model.start_from

    @classmethod
    def prepare(cls, tree: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        return filled_in(tree, where)

    @cached_property
    def texts(self) -> list[list[str]]:
        """Texts to draw from, [texts][products]. The text of `text_fields` is the first."""
        return [self.dataset.texts(fields) for fields in (self.config.text_fields, *self.config.training_texts)]

    @cached_property
    def image_texts(self) -> ImageTexts:
        """The texts of each photo."""
        assert self.config.image_texts is not None
        return ImageTexts.of(self.dataset, self.config.image_texts.least_score)

    @property
    def towers(self) -> Mapping[str, tuple[str, ...]]:
        towers = {"image": ("pixels",), "text": ("ids", "mask")}
        return towers if self.config.queries is None else {**towers, "query": ("query_ids", "query_mask")}

    @cached_property
    def facts(self) -> Facts:
        """What short queries may ask of a product."""
        queries = self.config.queries or ShortQueriesConfig()
        return Facts.of(self.dataset, queries.attributes, queries.most_values)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_str(self.tokenizer_json)

    @cached_property
    def samples(self) -> Samples:
        """The training photos; without the near-duplicate pairs where the arm says so."""
        samples = Samples.of(self.dataset, self.config.splits, self.config.roles)
        if self.config.near_duplicates == "drop":
            texts = [self.texts[0][row] for row in samples.product]
            samples = samples.keep(first_of_duplicates(samples.phash, texts, self.config.duplicate_distance))
        if self.config.image_texts is not None:
            samples = samples.keep(np.diff(self.image_texts.start)[samples.sample] > 0)
            most = self.config.image_texts.photos
            if most is not None and most < len(samples):
                drawn = np.random.default_rng((self.seed, 3)).permutation(len(samples))[:most]
                samples = samples.keep(np.isin(np.arange(len(samples)), drawn))
        return samples

    @cached_property
    def _row_of_sample(self) -> np.ndarray:
        row_of = np.full(self.samples.sample.max() + 1, -1)
        row_of[self.samples.sample] = np.arange(len(self.samples))
        return row_of

    def steps(self, epoch: int) -> int:
        return steps_per_epoch(self.samples, self.training.batch_size_of(epoch))

    def plan(self, epoch: int) -> np.ndarray:
        batch_size, seed = self.training.batch_size_of(epoch), self.seed
        plan = uniform_plan(self.samples, batch_size, seed, epoch)
        hard = self.config.category_negatives
        first = hard.start_step - sum(map(self.steps, range(epoch)))
        if self.config.negatives == "category" and first < len(plan):
            first = max(0, first)
            plan[first:] = category_plan(self.samples, batch_size, hard, seed, epoch)[first:]
        return plan

    def check(self) -> None:
        """Raises ShoplensError if the split that is judged after training has no photo, or photos have no texts."""
        Samples.of(self.dataset, [self.config.evaluation.split])
        if self.config.image_texts is not None:
            self.image_texts  # noqa: B018 - read here, before a run is made

    def plan_statistics(self, plan: np.ndarray) -> dict[str, float]:
        return plan_statistics(plan, self.samples)

    @property
    def tower_loss(self) -> TowerLoss:
        return self

    @property
    def mining(self) -> Mining | None:
        return self if self.config.negatives == "mined" else None

    def mines(self, epoch: int) -> bool:
        return epoch >= self.config.mined_negatives.start_epoch

    @property
    def mined_samples(self) -> np.ndarray:
        return self.samples.sample

    def mine(self, rows: Mapping[str, Tensor]) -> Mined:
        catalog = torch.tensor(self.samples.catalog, device=rows["image"].device)
        return mine(rows["image"], rows["text"], catalog, self.config.mined_negatives)

    def mined_plan(self, epoch: int, neighbours: np.ndarray) -> np.ndarray:
        batch_size = self.training.batch_size_of(epoch)
        return mined_plan(self.samples, neighbours, batch_size, self.config.mined_negatives, self.seed, epoch)

    def collate(self, samples: np.ndarray, epoch: int) -> dict[str, np.ndarray]:
        """`pixels` uint8 [n, 3, s, s], `ids` int64 and `mask` bool [n, t], `catalog` int64 [n].

        With `image_texts`, photos whose drawn text is the same share a catalog. Graded targets also need `category` int64 [n, levels], the leaf first. Short queries add one query a photo,
        `query_ids` and `query_mask`, with the facts that it asks for and those of the product, `asks` and `facts`
        int64 [n, keys].
        """
        rows = self._row_of_sample[samples]
        texts = [self._text(int(row), epoch) for row in rows]
        ids, mask = tokenize(self.tokenizer, texts)
        batch = {
            "pixels": self.photos_of(samples, epoch),
            "ids": ids,
            "mask": mask,
            "catalog": self.samples.catalog[rows],
        }
        if self.config.image_texts is not None:  # the same query of two photos: both are right
            batch["catalog"] = np.array([_code(text) for text in texts], np.int64)
        if self.config.objective.kind == "graded":
            batch["category"] = np.ascontiguousarray(self.samples.category[rows, ::-1])
        return batch if self.config.queries is None else {**batch, **self._asked(rows, epoch)}

    def _short_queries(self, config: ShortQueriesConfig) -> ShortQueries:
        """The short queries of the training products."""
        products = Samples.of(self.dataset, self.config.splits, self.config.roles).product
        return short_queries(self.dataset, self.facts, np.unique(products), config)

    def _asked(self, rows: np.ndarray, epoch: int) -> dict[str, np.ndarray]:
        """A short query for each of `rows`; an empty one that asks nothing where a product has none."""
        queries, facts = self.queries, self.facts.codes[self.samples.product[rows]]
        assert queries is not None
        drawn = [
            queries.draw(own, np.random.default_rng((self.seed, epoch, int(row), 2)))
            for row, own in zip(rows, facts, strict=True)
        ]
        ids, mask = tokenize(self.tokenizer, ["" if text == ANY else queries.texts[text] for text in drawn])
        asks = np.stack([np.full(facts.shape[1], ANY) if text == ANY else queries.asks[text] for text in drawn])
        return {"query_ids": ids, "query_mask": mask, "asks": asks, "facts": facts}

    def _text(self, row: int, epoch: int) -> str:
        rng = np.random.default_rng((self.seed, epoch, row, 1))
        if self.config.image_texts is not None:
            return self.image_texts.draw(int(self.samples.sample[row]), rng, self.config.image_texts.title_share)
        return self.texts[rng.integers(len(self.texts))][self.samples.product[row]]

    def build(self) -> nn.Module:
        config = self.config.model
        start = read(config.start_from) if config.start_from else None
        size = self.tokenizer.get_vocab_size()
        model = DualEncoder(config, self.config.preprocessing, size, pretrained=start is None)
        if start is not None:
            model.start(start.weights())
        if model.logit_bias is not None:
            model.logit_bias.requires_grad_(self.config.objective.kind == "sigmoid")
        return model

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        pixels, text, *queries = (tuple(batch[name] for name in names) for names in self.towers.values())
        encoded = model(*pixels, *text, *queries)
        text, *query = encoded.text.split(len(batch["ids"]))
        return self._compare(encoded._replace(text=text), batch, *query)

    def encode(self, model: nn.Module, tower: str, inputs: Batch) -> Tensor:
        assert isinstance(model, DualEncoder)
        if tower == "image":
            return model.encode_image(inputs["pixels"])
        return model.encode_text(*(inputs[name] for name in self.towers[tower]))

    def compare(self, model: nn.Module, rows: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        assert isinstance(model, DualEncoder)
        return self._compare(model.compared(rows["image"], rows["text"]), batch, rows.get("query"))

    def _compare(self, encoded: Encoded, batch: Batch, query: Tensor | None = None) -> dict[str, Tensor]:
        found = contrastive(
            encoded.image,
            encoded.text,
            batch["catalog"],
            encoded.logit_scale,
            self.config.objective,
            logit_bias=encoded.logit_bias,
            category=batch.get("category"),
        )
        terms = found._asdict()
        if self.config.queries is not None and query is not None:
            terms["queries"] = query_loss(encoded.image, query, batch["facts"], batch["asks"], encoded.logit_scale)
            terms["loss"] = terms["loss"] + self.config.queries.weight * terms["queries"]
        learnt = {"logit_scale": encoded.logit_scale, "logit_bias": encoded.logit_bias}
        return {**terms, **{name: value for name, value in learnt.items() if value is not None}}

    def package(self, model: nn.Module) -> Embedder:
        assert isinstance(model, DualEncoder)
        return Embedder(self.config.name, self.config.model, self.config.preprocessing, self.tokenizer, model)

    def about(self) -> dict[str, Any]:
        return {
            **super().about(),
            "text_fields": list(self.config.text_fields),
            "splits": list(self.config.splits),
        }

    def complete(self, model: nn.Module, package: Path) -> None:
        """Attribute heads on the vectors of the packaged model."""
        most = self.config.attribute_heads
        fit = partial(product_tasks.fit_attribute_heads, package, self.about(), self.dataset, most=most)
        if extractor := fit(**_vectors(package, self.dataset)) if most else None:
            with (package / "MODEL_CARD.md").open("a", encoding="utf-8") as card:
                card.write(f"\nAttribute heads: {', '.join(extractor.keys)}.\n")

    def card(self, model: nn.Module) -> str:
        config, parameters = self.config, sum(parameter.numel() for parameter in model.parameters())
        image, text = (
            tower.name or (tower.config or {}).get("model_type") for tower in (config.model.image, config.model.text)
        )
        return self.write_card(
            f"Product photos and texts in one space of {config.model.dim} dimensions (e-CLIP, arm `{config.arm}`).",
            [
                f"towers: {image} at {config.preprocessing.size} px, {text}; {parameters:,} parameters",
                f"text: {' + '.join(config.text_fields)}, cut at {config.model.text.max_tokens} tokens",
            ],
            f"splits {', '.join(config.splits)}, {len(self.samples):,} photos",
            "Meant for retrieval among products like those it was trained on. It knows nothing of others.",
        )

    def _corpus(self) -> list[str]:
        """The texts of the training splits, and the names of categories."""
        samples = Samples.of(self.dataset, self.config.splits, self.config.roles)
        corpus = [texts[row] for texts in self.texts for row in np.unique(samples.product)]
        if self.config.image_texts is not None:
            every = self.image_texts
            corpus += [text for s in samples.sample for text in every.texts[every.start[s] : every.start[s + 1]]]
        names = [node.name for node in self.dataset.categories]
        return [*corpus, *names, *(self.queries.texts if self.queries else ())]

    @classmethod
    def judge(
        cls, package: Path, settings: Mapping[str, Any], config: Any, dataset: Dataset, about: Mapping[str, Any]
    ) -> tuple[Evaluation, str]:
        """The product tasks; see `evaluation.product_tasks`."""
        return product_tasks.evaluate(package, settings, config, dataset, about, **_vectors(package, dataset))


def _code(text: str) -> int:
    """A number below 2 ** 63 that equal texts share, in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def _vectors(package: Path, dataset: Dataset) -> dict[str, Any]:
    """The packaged model as the two functions that the product tasks take."""
    return {
        "photos": partial(embed_photos, dataset, package=package),
        "encode": partial(embed_texts, package=package),
    }


RECIPE = EclipRecipe
