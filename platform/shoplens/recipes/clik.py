"""CLIK: photos ranked for a topic, by how well they fit it and how much shoppers like them.

`compat: reference` sets the mathematics of the reference implementation where this one differs.
"""

from __future__ import annotations

import datetime
import functools
import json
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
from shoplens.datasets.images import decode
from shoplens.datasets.preprocessing import Augmentation, Preprocessing
from shoplens.datasets.tokenizers import pretrained_tokenizer, train_tokenizer
from shoplens.datasets.topic_text import REFERENCE as REFERENCE_TEXT
from shoplens.datasets.topic_text import TopicTokens, of_product
from shoplens.errors import ShoplensError
from shoplens.evaluation.report import Card, Case, Showcase, render, thumbnail
from shoplens.evaluation.results import Evaluation, Findings
from shoplens.evaluation.topics import CandidateList, match_topics, rank_candidates
from shoplens.nn.clik import Clik, ClikConfig
from shoplens.objectives.contrastive import ObjectiveConfig, contrastive
from shoplens.objectives.listwise import listwise
from shoplens.objectives.local_gather import info_nce_with_local_gradients
from shoplens.packages.capabilities import RANK_IMAGES
from shoplens.packages.embedder import Embedder
from shoplens.packages.embedding import embed_photos
from shoplens.packages.pretrained import filled_in, read
from shoplens.packages.ranking import Place, Query, places, reasons
from shoplens.recipes.base import Batch, Timeline, TrainingConfig
from shoplens.registry.gates import Gates
from shoplens.sampling.topics import Draw, TopicBatch, topic_plan
from shoplens.schema import Topic, TopicText


class TopicBatchConfig(Config):
    """One step: `matching` topics each with one product, and `groups` topics each with a list of `candidates`.

    draw           how a list is drawn from a topic's products
    one_topic      every list of a step is of one topic (the reference)
    product_text   share of the pairs whose text is the product's own instead of its topic's
    """

    matching: int = Field(64, ge=2)
    groups: int = Field(8, ge=1)
    candidates: int = Field(10, ge=2)
    draw: Draw = "stratified"
    one_topic: bool = False
    product_text: float = Field(0.5, ge=0, le=1)

    @property
    def shape(self) -> TopicBatch:
        return TopicBatch(self.matching, self.groups, self.candidates)


class ClikObjective(Config):
    """matching_weight * matching loss + ranking_weight * ranking loss.

    same_product        pairs of one catalog are no negatives of each other in the matching loss
    exact_gradient      gradients cross workers; false is the plain gather of the reference
    targets             of the ranking loss: `soft` in the product's liking, or all on the `best`
    target_temperature  of the soft targets: liking / temperature is what their logits are
    """

    matching_weight: float = Field(1.0, ge=0)
    ranking_weight: float = Field(1.0, ge=0)
    same_product: Literal["left_out", "negative"] = "left_out"
    exact_gradient: bool = True
    targets: Literal["soft", "best"] = "soft"
    target_temperature: float = Field(1.0, gt=0)


class ClikEvaluation(Config):
    """The split of topics that is judged."""

    split: Literal["train", "val", "test"] = "val"


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


class ClikRecipeConfig(Config):
    """`compat: reference` sets the mathematics of the reference; what is set beside it stays."""

    recipe: Literal["clik"]
    name: str = Field("clik", pattern=r"^[a-z0-9][a-z0-9_-]*$")
    dataset: str
    seed: int = 7
    compat: Literal["none", "reference"] = "none"
    topics: TopicsConfig = TopicsConfig()
    batches: TopicBatchConfig = TopicBatchConfig()
    objective: ClikObjective = ClikObjective()
    preprocessing: Preprocessing = Preprocessing()
    augmentation: Augmentation | None = Augmentation()
    model: ClikConfig
    training: TrainingConfig = TrainingConfig()
    evaluation: ClikEvaluation = ClikEvaluation()
    promotion: Gates | None = None

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


class ClikRecipe:
    """A `Recipe` whose samples are rows of the training topics' `TopicProducts`."""

    def __init__(self, config: ClikRecipeConfig, tokenizer_json: str | None = None) -> None:
        """The tokenizer is trained on topics and products unless it is given or pretrained."""
        self.config = config
        self.tokenizer_json = tokenizer_json or self._tokenizer_json()

    def __reduce__(self) -> tuple[type[ClikRecipe], tuple[ClikRecipeConfig, str]]:
        return ClikRecipe, (self.config, self.tokenizer_json)

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
    def table(self) -> TopicProducts:
        return topics_by_split(self.dataset, self.topics, self.config.topics, self._catalog)["train"]

    @cached_property
    def topics(self) -> Sequence[Topic]:
        return topics_of(self.dataset, self.config.topics.made_of)

    @cached_property
    def _catalog(self) -> np.ndarray:
        return catalogs_of(self.dataset)

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

    def steps(self, epoch: int) -> int:
        return len(self.plan(epoch))

    @functools.lru_cache(maxsize=2)  # noqa: B019 - a recipe lives as long as its process
    def plan(self, epoch: int) -> np.ndarray:
        batches = self.config.batches
        return topic_plan(self.table, batches.shape, self.seed, epoch, draw=batches.draw, one_topic=batches.one_topic)

    def check_evaluation(self) -> None:
        """Raises ShoplensError if a split is left without topics."""
        topics_by_split(self.dataset, self.topics, self.config.topics, self._catalog)

    def plan_statistics(self, plan: np.ndarray) -> dict[str, float]:
        """Topics that a step ranks, how often one is ranked in the epoch, products seen, liking of what is ranked."""
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
        rngs = [np.random.default_rng((self.seed, epoch, int(row), 4)) for row in [*pairs, *lists[:, 0]]]
        said = [self.topics[topic] for topic in table.topic[[*pairs, *lists[:, 0]]]]
        for place, row in enumerate(pairs.tolist()):
            if rngs[place].random() < text:
                said[place] = self._products[table.product[row]]
        rows = np.concatenate([pairs, lists.ravel()])
        return {
            "pixels": np.stack([self._pixels(int(row), epoch) for row in rows]),
            **self._write(said, rngs=rngs),
            "pair_topic": table.topic[pairs],
            "pair_product": self._catalog[table.product[pairs]],
            "list_topic": table.topic[lists[:, 0]],
            "list_product": self._catalog[table.product[lists]],
            "liked": table.liked[lists].astype(np.float32),
        }

    def _pixels(self, row: int, epoch: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, epoch, row, 5))
        photos = self._photos[self.table.product[row]]
        preprocessing, augmentation = self.config.preprocessing, self.config.augmentation
        image = decode(self.dataset.read_image(int(rng.choice(photos))), draft=preprocessing.draft).image
        if augmentation is not None:
            image = augmentation(image, rng)
        return preprocessing(image)

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

    def save(self, model: nn.Module, folder: Path) -> None:
        """Writes the package of a trained model aside, with a bank of prototypes if it reads one, then moves it."""
        assert isinstance(model, Clik)
        about = {
            "recipe": self.config.recipe,
            "seed": self.seed,
            "topics": self.config.topics.model_dump(mode="json"),
            "evaluation": self.config.evaluation.model_dump(mode="json"),
            "dataset": {"name": self.dataset.name, "digest": self.dataset.digest},
        }
        tokenizer = Tokenizer.from_str(self.tokenizer_json)
        ranker = Ranker(self.config.name, self.config.model, self.config.preprocessing, tokenizer, model)
        draft = folder.with_name(folder.name + ".draft")
        shutil.rmtree(draft, ignore_errors=True)
        ranker.save(draft, self._card(model), about)
        if model.query.bank is not None:
            photos = np.unique([self._photos[row][0] for row in np.unique(self.table.product)])
            model.query.bank.freeze(
                torch.tensor(prototypes(embed_photos(self.dataset, photos, draft), len(model.query.bank.rows)))
            )
            shutil.rmtree(draft)
            ranker.save(draft, self._card(model), about)
        draft.rename(folder)

    def _card(self, model: nn.Module) -> str:
        config, data, table = self.config, self.dataset, self.table
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return "\n".join(
            [
                f"# {config.name}",
                "",
                "Ranks product photos for a shopping exhibition, by fit and by what shoppers like (CLIK).",
                "",
                f"- {config.model.dim} dimensions, {parameters:,} parameters, query reads {config.model.query.reads} of the bank",
                f"- trained on {data.name} (`{data.digest[:12]}`): {len(table.topics):,} topics, {len(table):,} candidates,"
                f" liked by {config.topics.liked}",
                f"- {config.training.epochs} epochs, {Timeline(self).total} steps, seed {config.seed}, compat {config.compat}",
                "",
                "Liking is that of the shoppers of this shop, in the time that its log covers.",
                "",
            ]
        )

    def _tokenizer_json(self) -> str:
        text, start = self.config.model.text, self.config.model.start_from
        if start is not None:
            return str(read(start).tokenizer.to_str())
        if text.name is not None:
            return str(pretrained_tokenizer(text.name, text.max_tokens).to_str())
        said = [*self.topics, *self._products]
        corpus = [" ".join(filter(None, (s.name, s.desc, s.cat1, s.cat2, s.cat3, s.cat4, *s.kwds))) for s in said]
        corpus += list(self.config.model.topic_text.seasons)
        return str(train_tokenizer(corpus, text.vocab_size, text.max_tokens).to_str())


def prototypes(vectors: np.ndarray, size: int) -> np.ndarray:
    """At most `size` unit rows that stand for `vectors` [n, d]: themselves, or the centres of their clusters."""
    if len(vectors) <= size:
        return vectors
    import faiss

    kmeans = faiss.Kmeans(vectors.shape[1], size, niter=20, seed=0, spherical=True, min_points_per_centroid=1)
    kmeans.train(vectors)
    return np.asarray(kmeans.centroids)


def catalogs_of(dataset: Dataset) -> np.ndarray:
    """Code of every product's catalog, int64 [products]; a product without one is a catalog of its own."""
    codes: dict[str, int] = {}
    ids = dataset.products["catalog_id"].to_pylist()
    return np.array(
        [codes.setdefault(f"c{c}" if c is not None else f"p{row}", len(codes)) for row, c in enumerate(ids)]
    )


def photos_of(dataset: Dataset) -> list[np.ndarray]:
    """Sample ids of every product's photos, in the order of the dataset."""
    order = np.argsort(dataset.product_row, kind="stable")
    bounds = np.searchsorted(dataset.product_row[order], np.arange(dataset.products.num_rows + 1))
    return [order[start:stop] for start, stop in zip(bounds[:-1], bounds[1:], strict=True)]


def load(tree: Mapping[str, Any], where: str) -> ClikRecipe:
    """Raises ConfigError, or ShoplensError where the dataset or the checkpoint to start from does not serve."""
    return ClikRecipe(validate(ClikRecipeConfig, filled_in(tree, where), where))


def evaluate(
    package: str | Path,
    dataset: Dataset,
    split: str | None,
    about: Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
) -> tuple[Evaluation, str]:
    """Ranking of the candidates of each topic of a split, where it is known how they were liked, and matching of
    topics and photos; and the report. Every photo is encoded once.

    Raises ShoplensError if the package is no CLIK, or the dataset has no such split of topics.
    """
    ranker = Embedder.load(package)
    settings = json.loads((Path(package) / "config.json").read_text())
    if not isinstance(ranker, Ranker):
        raise ShoplensError(f"{package} does not rank: it is {settings['embedder']}")
    chosen = {**settings["evaluation"], **(overrides or {}), **({} if split is None else {"split": split})}
    split = validate(ClikEvaluation, chosen, "evaluation").split
    topics_config = validate(TopicsConfig, settings["topics"], "topics")
    topics = topics_of(dataset, topics_config.made_of)
    tables = topics_by_split(dataset, topics, topics_config, catalogs_of(dataset))
    table, photos = tables[split], photos_of(dataset)
    first_photo = np.array([photos[row][0] for row in table.product])
    gallery, item = np.unique(first_photo, return_inverse=True)
    vectors = embed_photos(dataset, gallery, package)
    asked = ranker.encode_topics([topics[topic] for topic in table.topics.tolist()])
    found = judge(
        table, item, vectors, asked.topic, asked.query, [topics[topic].cat1 for topic in table.topics.tolist()]
    )
    found.about["counts"] = {"topics": len(table.topics), "candidates": len(table), "photos": len(gallery)}
    evaluation = found.evaluation(
        {
            **about,
            "dataset": dataset.name,
            "dataset_path": dataset.path,
            "dataset_digest": dataset.digest,
            "split": split,
        },
        seed=0,
    )
    return evaluation, render(evaluation, shelves(table, item, vectors, asked.query, gallery, topics, dataset))


def judge(
    table: TopicProducts,
    item: np.ndarray,
    vectors: np.ndarray,
    topic: np.ndarray,
    query: np.ndarray,
    category: Sequence[str],
) -> Findings:
    """table's topics t: vectors [photos, d] of which `item` [n] is each candidate's, topic and query [t, d]."""
    groups = table.groups()
    found = match_topics(
        topic,
        vectors,
        [
            CandidateList(int(table.topic[rows[0]]), item[rows][table.listed[rows]], table.liked[rows])
            for rows in groups
        ],
    )
    if not np.isnan(table.liked).any():
        lists = [CandidateList(int(table.topic[rows[0]]), item[rows], table.liked[rows]) for rows in groups]
        scores = [vectors[one.items] @ query[place] for place, one in enumerate(lists)]
        found.include(rank_candidates(scores, lists, category))
    return found


def shelves(
    table: TopicProducts,
    item: np.ndarray,
    vectors: np.ndarray,
    query: np.ndarray,
    gallery: np.ndarray,
    topics: Sequence[Topic],
    dataset: Dataset,
    n: int = 6,
) -> list[Showcase]:
    """Some topics with their candidates, best score first; the 20 % of them that were liked best are marked."""
    titles = dataset.products["title"].to_pylist()
    shown: list[Case] = []
    groups = table.groups()
    for place in np.random.default_rng(0).permutation(len(groups))[:n].tolist():
        rows = groups[place]
        topic = topics[int(table.topic[rows[0]])]
        scores = vectors[item[rows]] @ query[place]
        known = not np.isnan(table.liked[rows]).any()
        right = table.liked[rows] >= np.quantile(table.liked[rows], 0.8) if known else table.listed[rows]
        order = np.argsort(-scores, kind="stable")
        cards = [
            Card(
                titles[int(table.product[rows[i]])],
                thumbnail(dataset.read_image(int(gallery[item[rows[i]]]))),
                bool(right[i]),
                float(scores[i]),
            )
            for i in order[:8].tolist()
        ]
        said = " · ".join(filter(None, (topic.name, topic.desc, topic.date, topic.cat1, topic.cat2)))
        shown.append(Case(Card(said), cards, None, 1 + int(np.argmax(right[order]))))
    return [
        Showcase(
            "Shelves",
            "A topic and its candidates, best score first; marked are the 20 % that shoppers liked best.",
            shown,
            [],
        )
    ]
