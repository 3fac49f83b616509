"""CLIK: photos ranked for a topic, by how well they fit it and how much shoppers like them.

`compat: reference` sets the mathematics of the reference implementation where this one differs.
"""

from __future__ import annotations

import datetime
import functools
import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator
from tokenizers import Tokenizer
from torch import Tensor, nn

from shoplens.config import Config, validate
from shoplens.curation.topics import TopicProducts, TopicsConfig, topics_by_split, topics_of
from shoplens.datasets.format import Dataset
from shoplens.datasets.samples import catalog_codes
from shoplens.datasets.topic_text import REFERENCE as REFERENCE_TEXT
from shoplens.datasets.topic_text import TopicTokens, of_product
from shoplens.errors import ShoplensError
from shoplens.evaluation import shelves
from shoplens.evaluation.judging import JudgingConfig
from shoplens.evaluation.report import render
from shoplens.evaluation.results import Evaluation
from shoplens.nn.clik import Clik, ClikConfig
from shoplens.objectives.contrastive import ObjectiveConfig, contrastive
from shoplens.objectives.listwise import listwise
from shoplens.objectives.local_gather import info_nce_with_local_gradients
from shoplens.packages.capabilities import RANK_IMAGES
from shoplens.packages.embedder import Embedder
from shoplens.packages.embedding import embed_photos
from shoplens.packages.pretrained import filled_in, read
from shoplens.packages.ranking import Place, Query, places, reasons
from shoplens.recipes.base import NAME, Batch, PhotoRecipe, PhotoRecipeConfig, fit_tokenizer
from shoplens.sampling.topics import Draw, TopicBatch, topic_plan
from shoplens.schema import Topic, TopicText


class TopicBatchConfig(Config):
    """A step: `matching` topics, each with one product, and `groups` topics, each with a list of `candidates`."""

    matching: int = Field(64, ge=2, description="Pairs of a topic and a product in a step.")
    groups: int = Field(8, ge=1, description="Lists that a step ranks.")
    candidates: int = Field(10, ge=2, description="Photos of a list.")
    draw: Draw = Field("stratified", description="How a list is drawn from a topic's products.")
    one_topic: bool = Field(False, description="Whether all lists of a step are of one topic, as in the reference.")
    product_text: float = Field(
        0.5, ge=0, le=1, description="Share of the pairs whose text is the product's own instead of its topic's."
    )

    @property
    def shape(self) -> TopicBatch:
        return TopicBatch(self.matching, self.groups, self.candidates)


class ClikObjective(Config):
    """matching_weight * matching loss + ranking_weight * ranking loss."""

    matching_weight: float = Field(1.0, ge=0, description="Weight of the loss that matches topics and photos.")
    ranking_weight: float = Field(1.0, ge=0, description="Weight of the loss that ranks the lists.")
    same_product: Literal["left_out", "negative"] = Field(
        "left_out", description="How pairs of one catalog count in the matching loss."
    )
    exact_gradient: bool = Field(
        True, description="Whether gradients cross workers. false: the plain gather of the reference."
    )
    targets: Literal["soft", "best"] = Field(
        "soft", description="Targets of the ranking loss: soft in the products' liking, or all on the best liked."
    )
    target_temperature: float = Field(
        1.0, gt=0, description="Temperature of the soft targets. Their logits are liking / temperature."
    )


class ClikEvaluation(JudgingConfig):
    """The split of topics that is judged."""

    split: Literal["train", "val", "test"] = Field("val", description="The split of topics that is judged.")


REFERENCE: dict[str, dict[str, Any]] = {
    "topics": {"refinement": "reference"},
    "batches": {"draw": "reference", "one_topic": True},
    "objective": {
        "matching_weight": 20.0,
        "targets": "best",
        "same_product": "negative",
        "exact_gradient": False,
    },
    "model": {
        "query": {
            "reads": "attention",
            "residual": False,
            "temperature": 1.0,
            "learn_temperature": False,
            "exclude_own": False,
        },
        "topic_text": REFERENCE_TEXT,
        "rank_temperature": 0.07,
        "initial_temperature": 0.07,
        "learn_temperatures": False,
    },
}
"""What `compat: reference` sets; the bank is as large as a step's matching batch, so that every step replaces it."""


class ClikRecipeConfig(PhotoRecipeConfig):
    """`compat: reference` sets the mathematics of the reference. Settings beside it override it."""

    recipe: Literal["clik"] = Field(description="Name of the recipe.")
    name: str = Field("clik", pattern=NAME, description="Name of the registered model.")
    compat: Literal["none", "reference"] = Field(
        "none", description="`reference` sets the sampling, bank and losses of the reference."
    )
    topics: TopicsConfig = Field(TopicsConfig(), description="Topics, their candidates, and how shoppers liked them.")
    batches: TopicBatchConfig = Field(TopicBatchConfig(), description="The contents of a step.")
    objective: ClikObjective = Field(ClikObjective(), description="The matching loss and the ranking loss.")
    model: ClikConfig = Field(description="The two towers and the query of a topic.")
    evaluation: ClikEvaluation = Field(ClikEvaluation(), description="The evaluation that follows the training.")

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, tree: Any) -> Any:
        parts = (tree.get(name) or {} for name in ("batches", "training")) if isinstance(tree, Mapping) else (tree,)
        if not all(isinstance(part, Mapping) for part in parts):
            return tree
        tree = dict(tree)
        if tree.get("compat") == "reference":
            matching = (tree.get("batches") or {}).get("matching", TopicBatchConfig().matching)
            of_reference = _over(REFERENCE, {"model": {"query": {"bank": matching}}})
            tree = _over(of_reference, tree)
        shape = TopicBatchConfig.model_validate(tree.get("batches") or {}).shape
        training = dict(tree.get("training") or {})
        if training.setdefault("batch_size", shape.size) != shape.size:
            raise ValueError(f"training.batch_size follows from batches: leave it out ({shape.size})")
        if training.get("batch_sizes"):
            raise ValueError("training.batch_sizes: the size of a batch follows from batches, leave it out")
        return {**tree, "training": training}


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        here = merged.get(key)
        merged[key] = _over(here, value) if isinstance(here, Mapping) and isinstance(value, Mapping) else value
    return merged


class Ranker(Embedder):
    """A trained CLIK. Texts are names of topics here; `rank` takes whole topics."""

    capabilities = (*Embedder.capabilities, RANK_IMAGES)
    Config = ClikConfig
    Model = Clik
    model: Clik
    config: ClikConfig

    @cached_property
    def _write(self) -> TopicTokens:
        return TopicTokens(self.tokenizer, self.config.topic_text)

    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        """Names of topics -> float32 unit rows [n, dim]."""
        return self.encode_topics([TopicText(name=text) for text in texts], batch_size=batch_size).topic

    @torch.inference_mode()
    def encode_topics(
        self, topics: Sequence[TopicText], today: datetime.date | None = None, batch_size: int = 256
    ) -> Query:
        """Topics without a date open `today`, or in no season. Raises ShoplensError if a date is no date."""
        device = self.device
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for start in range(0, len(topics), batch_size):
            written = self._write(topics[start : start + batch_size], today)
            rows = self.model.encode_text(
                **{name: torch.tensor(array, device=device) for name, array in written.items()}
            )
            found.append((rows.cpu().numpy(), self.model.query(rows).cpu().numpy()))
        none = np.empty((0, self.dim), np.float32)
        topic, query = zip(*found, strict=True) if found else ((none,), (none,))
        return Query(np.concatenate(topic), np.concatenate(query))

    def rank(
        self,
        topic: TopicText,
        photos: Sequence[Image.Image] | np.ndarray,
        top_n: int | None = None,
        today: datetime.date | None = None,
    ) -> list[Place]:
        """The photos, or their vectors [n, dim], best first, `top_n` of them at most; a topic opens today unless it
        says otherwise.

        Raises ShoplensError if there is nothing to rank.
        """
        if not len(photos):
            raise ShoplensError("there is no photo to rank")
        vectors = (
            photos
            if isinstance(photos, np.ndarray)
            else self.encode_images(np.stack([self.preprocess(photo) for photo in photos]))
        )
        asked = self.encode_topics([topic], today or datetime.date.today())
        return places(reasons(asked.topic[0], asked.query[0], vectors), top_n)


class ClikRecipe(PhotoRecipe):
    """Samples are rows of the training topics' `TopicProducts`. Pickles as its configuration and tokenizer."""

    Config = ClikRecipeConfig
    config: ClikRecipeConfig

    def __init__(self, config: ClikRecipeConfig) -> None:
        super().__init__(config)
        self.tokenizer_json = fit_tokenizer(config.model.text, config.model.start_from, self._corpus)

    @property
    def start_from(self) -> str | None:
        return self.config.model.start_from

    @classmethod
    def prepare(cls, tree: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        return filled_in(tree, where)

    @cached_property
    def table(self) -> TopicProducts:
        return topics_by_split(self.dataset, self.topics, self.config.topics, self._catalog)["train"]

    @cached_property
    def topics(self) -> Sequence[Topic]:
        return topics_of(self.dataset, self.config.topics.made_of)

    @cached_property
    def _catalog(self) -> np.ndarray:
        return catalog_codes(self.dataset)

    @cached_property
    def _photos(self) -> list[np.ndarray]:
        return photos_of(self.dataset)

    @cached_property
    def _products(self) -> list[TopicText]:
        columns = self.dataset.products.select(["title", "description", "category_path"]).to_pydict()
        rows = zip(*columns.values(), strict=True)
        return [of_product(title, description or "", path or ()) for title, description, path in rows]

    @cached_property
    def _write(self) -> TopicTokens:
        return TopicTokens(Tokenizer.from_str(self.tokenizer_json), self.config.model.topic_text)

    @functools.lru_cache(maxsize=2)  # noqa: B019 - a recipe lives as long as its process
    def plan(self, epoch: int) -> np.ndarray:
        batches = self.config.batches
        return topic_plan(self.table, batches.shape, self.seed, epoch, draw=batches.draw, one_topic=batches.one_topic)

    def check(self) -> None:
        """Raises ShoplensError if a split is left without topics."""
        topics_by_split(self.dataset, self.topics, self.config.topics, self._catalog)

    def plan_statistics(self, plan: np.ndarray) -> dict[str, float]:
        """Topics in a step, visits of a topic in the epoch, products seen, and the mean liking of ranked products."""
        parts = [self.config.batches.shape.apart(row) for row in plan]
        topics = np.array([self.table.topic[lists[:, 0]] for _, lists in parts])
        liked = self.table.liked[np.concatenate([lists.ravel() for _, lists in parts])]
        return {
            "topics_per_step": float(np.mean([len(set(row)) for row in topics.tolist()])),
            "visits_per_topic": topics.size / len(np.unique(topics)),
            "products_seen": float(len(np.unique(self.table.product[plan]))),
            "liked_mean": float(np.nan_to_num(liked).mean()),
        }

    def collate(self, samples: np.ndarray, epoch: int) -> dict[str, np.ndarray]:
        """As `models.clik.Clik.forward` takes it, and `liked` float32 [g, k]: pairs first, then lists."""
        pairs, lists = self.config.batches.shape.apart(samples)
        table, text = self.table, self.config.batches.product_text
        asked = [[row] for row in pairs.tolist()] + lists.tolist()
        numbered = [(asked[:place].count(rows), *rows) for place, rows in enumerate(asked)]  # a list may be there twice
        rngs = [np.random.default_rng((self.seed, epoch, *key, 4)) for key in numbered]
        said = [self.topics[topic] for topic in table.topic[[*pairs, *lists[:, 0]]]]
        for place, row in enumerate(pairs.tolist()):
            if rngs[place].random() < text:
                said[place] = self._products[table.product[row]]
        return {
            "pixels": np.stack(
                [self._photo_of(row, epoch, key) for rows, key in zip(asked, numbered, strict=True) for row in rows]
            ),
            **self._write(said, rngs=rngs),
            "pair_topic": table.topic[pairs],
            "pair_product": self._catalog[table.product[pairs]],
            "list_topic": table.topic[lists[:, 0]],
            "list_product": self._catalog[table.product[lists]],
            "liked": table.liked[lists].astype(np.float32),
        }

    def _photo_of(self, row: int, epoch: int, drawn_for: Sequence[int]) -> np.ndarray:
        """One of the product's photos, drawn anew for each list that it is in."""
        rng = np.random.default_rng((self.seed, epoch, row, *drawn_for, 5))
        return self.photo(int(rng.choice(self._photos[self.table.product[row]])), rng)

    def build(self) -> nn.Module:
        config = self.config.model
        start = read(config.start_from) if config.start_from else None
        size = Tokenizer.from_str(self.tokenizer_json).get_vocab_size()
        model = Clik(config, self.config.preprocessing, size, pretrained=start is None)
        if start is not None:
            model.start(start.weights())
        return model

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        objective, batch = self.config.objective, dict(batch)
        liked = batch.pop("liked")
        ranked = model(**batch)
        if objective.exact_gradient:
            kind: Literal["mask", "clip"] = "mask" if objective.same_product == "left_out" else "clip"
            pairs = ObjectiveConfig(kind=kind)
            matching = contrastive(ranked.image, ranked.text, batch["pair_product"], ranked.logit_scale, pairs).loss
        else:
            matching = info_nce_with_local_gradients(ranked.image, ranked.text, ranked.logit_scale)
        terms = {"matching": matching, "logit_scale": ranked.logit_scale, "rank_scale": ranked.rank_scale}
        loss = objective.matching_weight * matching
        if not torch.isnan(liked).any():
            terms["ranking"] = listwise(
                ranked.scores,
                liked,
                ranked.rank_scale,
                targets=objective.targets,
                temperature=objective.target_temperature,
            )
            loss = loss + objective.ranking_weight * terms["ranking"]
        else:  # nothing is known of liking: the lists only keep the query head's parameters in the graph
            terms["ranking"] = 0.0 * ranked.scores.sum() * ranked.rank_scale
            loss = loss + terms["ranking"]
        return {"loss": loss, **terms}

    def package(self, model: nn.Module) -> Ranker:
        assert isinstance(model, Clik)
        tokenizer = Tokenizer.from_str(self.tokenizer_json)
        return Ranker(self.config.name, self.config.model, self.config.preprocessing, tokenizer, model)

    def about(self) -> dict[str, Any]:
        return {**super().about(), "topics": self.config.topics.model_dump(mode="json")}

    def complete(self, model: nn.Module, package: Path) -> None:
        """A bank of prototypes, if the query reads one: training leaves the photos of its last steps there."""
        assert isinstance(model, Clik)
        if model.query.bank is None:
            return
        photos = np.unique([self._photos[row][0] for row in np.unique(self.table.product)])
        vectors = embed_photos(self.dataset, photos, package)
        model.query.bank.freeze(torch.tensor(prototypes(vectors, len(model.query.bank.rows))))
        shutil.rmtree(package)
        self.package(model).save(package, self.card(model), self.about())

    def card(self, model: nn.Module) -> str:
        config, table = self.config, self.table
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return self.write_card(
            "Ranks product photos for a shopping exhibition, by fit and by what shoppers like (CLIK).",
            [
                f"{config.model.dim} dimensions, {parameters:,} parameters",
                f"the query reads {config.model.query.reads} of the bank; compat {config.compat}",
            ],
            f"{len(table.topics):,} topics, {len(table):,} candidates, liked by {config.topics.liked}",
            "Liking is that of this shop's shoppers, in the time that its log covers.",
        )

    def _corpus(self) -> list[str]:
        """Topics and products as they are written, and the names of seasons."""
        said = [*self.topics, *self._products]
        corpus = [" ".join(filter(None, (s.name, s.desc, s.cat1, s.cat2, s.cat3, s.cat4, *s.kwds))) for s in said]
        return corpus + list(self.config.model.topic_text.seasons)

    @classmethod
    def judge(
        cls, package: Path, settings: Mapping[str, Any], config: Any, dataset: Dataset, about: Mapping[str, Any]
    ) -> tuple[Evaluation, str]:
        """Ranking of each topic's candidates, where their liking is known, and matching of topics and photos.

        Every photo is encoded once. Raises ShoplensError if the dataset has no such split of topics.
        """
        ranker = Ranker.load(package)
        topics_config = validate(TopicsConfig, settings["topics"], "topics")
        topics = topics_of(dataset, topics_config.made_of)
        table = topics_by_split(dataset, topics, topics_config, catalog_codes(dataset))[config.split]
        photos = photos_of(dataset)
        gallery, item = np.unique(np.array([photos[row][0] for row in table.product]), return_inverse=True)
        vectors = embed_photos(dataset, gallery, package)
        asked = ranker.encode_topics([topics[topic] for topic in table.topics.tolist()])
        categories = [topics[topic].cat1 for topic in table.topics.tolist()]
        found = shelves.judge(table, item, vectors, asked.topic, asked.query, categories)
        found.about["counts"] = {"topics": len(table.topics), "candidates": len(table), "photos": len(gallery)}
        evaluation = found.evaluation(about, seed=0)
        shown = shelves.shelves(table, item, vectors, asked.query, gallery, topics, dataset)
        return evaluation, render(evaluation, shown)


def prototypes(vectors: np.ndarray, size: int) -> np.ndarray:
    """At most `size` unit rows that stand for `vectors` [n, d]: themselves, or the centres of their clusters."""
    if len(vectors) <= size:
        return vectors
    import faiss

    kmeans = faiss.Kmeans(vectors.shape[1], size, niter=20, seed=0, spherical=True, min_points_per_centroid=1)
    kmeans.train(vectors)
    return np.asarray(kmeans.centroids)


def photos_of(dataset: Dataset) -> list[np.ndarray]:
    """Sample ids of every product's photos, in the order of the dataset."""
    order = np.argsort(dataset.product_row, kind="stable")
    bounds = np.searchsorted(dataset.product_row[order], np.arange(dataset.products.num_rows + 1))
    return [order[start:stop] for start, stop in zip(bounds[:-1], bounds[1:], strict=True)]


RECIPE = ClikRecipe
