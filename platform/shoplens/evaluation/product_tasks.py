"""Evaluation of a dual encoder on a split of a dataset: the tasks, the splits their heads learn from, the report.

Photos and texts become vectors by two functions of the caller, so that this module knows no model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from shoplens.config import validate
from shoplens.curation.short_queries import Facts, ShortQueriesConfig, short_queries
from shoplens.datasets.format import Dataset
from shoplens.datasets.samples import Samples
from shoplens.errors import ShoplensError
from shoplens.evaluation import attributes, categories, clustering, matching, queries, restricted, tasks
from shoplens.evaluation.embedded import EmbeddedSplit
from shoplens.evaluation.heads.extractor import Extractor, judge_hints
from shoplens.evaluation.heads.vocabulary import Attributes, vocabularies
from shoplens.evaluation.judging import JudgingConfig
from shoplens.evaluation.leaks import Leaks, leaks
from shoplens.evaluation.product_report import report
from shoplens.evaluation.results import Evaluation, Findings
from shoplens.schema import Split

Task = Literal["retrieval", "matching", "search", "clustering", "attributes", "categories", "restricted"]
ALL: tuple[Task, ...] = ("retrieval", "matching", "search", "clustering", "attributes", "categories", "restricted")
LEARNT: set[Task] = {"attributes", "categories", "restricted"}
"""Tasks whose heads are trained on the vectors of `train`."""
HELD_OUT = 5
"""If there is no development split, one in this many catalogs of `train` is held out in its place."""
CHANCE = (
    "Chance is random scores (matching), one cluster for all or every offer alone (clustering), "
    "the most frequent answers (attributes, categories)."
)
Photos = Callable[[np.ndarray], np.ndarray]
"""Sample ids (int64 [n]) -> float32 unit vectors [n, d]."""


class EvaluationConfig(JudgingConfig):
    """Settings of an evaluation of a dual encoder."""

    prompt: str = Field(
        "{leaf}",
        description="Text that stands for a category: `{leaf}` is its name, `{path}` the names from the root.",
    )
    tasks: tuple[Task, ...] = Field(
        ("retrieval", "matching", "search"),
        min_length=1,
        description="Tasks to measure; `all` is every task. All but retrieval, matching and search also embed "
        "`development`. "
        "Attributes, categories and restricted also embed `train`.",
    )
    train: Split = Field("train", description="Split that linear heads learn from.")
    development: Split = Field(
        "val",
        description="Split on which thresholds, penalties and temperatures are chosen. If the dataset does not have "
        "it, or it is the split that is judged, a fifth of the catalogs of `train` is held out in its place.",
    )
    attribute_prompt: str = Field(
        "{value}",
        description="Text that stands for an attribute value in the zero-shot baseline: `{key}` and `{value}` are "
        "filled in.",
    )
    restricted: str | None = Field(
        None,
        description="Category whose products, with those below it, are restricted: an id, a name or a path `A > B`.",
    )
    precision: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Precision that the thresholds of attribute answers and restricted products are set for.",
    )
    leaks: Literal["leave_out", "keep"] = Field(
        "leave_out",
        description="What happens to products whose catalog is also in `train`, `development` or the splits that the "
        "model was trained on. `leave_out` removes them from the split. A split by photo shares all of its catalogs; "
        "it is kept whole, and the report says so.",
    )

    @field_validator("tasks", mode="before")
    @classmethod
    def _all(cls, tasks: Any) -> Any:
        return ALL if tasks == "all" else tasks


def evaluate(
    package: str | Path,
    settings: Mapping[str, Any],
    config: EvaluationConfig,
    dataset: Dataset,
    about: Mapping[str, Any],
    *,
    photos: Photos,
    encode: attributes.Encode,
) -> tuple[Evaluation, str]:
    """Measures the tasks of `config` on its split. Returns the evaluation and its report in HTML.

    package    folder of the package; its attribute heads are judged, if it has any
    settings   the package's `config.json`: `text_fields`, and the training `splits`
    """
    split = config.split
    samples = Samples.of(dataset, [split])
    trained_on = settings.get("splits", [config.train])
    heads_use = [name for name in (config.train, config.development) if name != split]
    learnt_from = [name for name in dict.fromkeys([*trained_on, *heads_use]) if name in _splits(dataset)]
    leaked = leaks(samples, Samples.of(dataset, learnt_from)) if learnt_from else None
    left_out = leaked is not None and config.leaks == "leave_out" and not leaked.every
    if leaked is not None and left_out:
        samples = samples.keep(~np.isin(samples.product, leaked.products))
    embed = _embedding(dataset, settings["text_fields"], config.prompt, photos, encode)
    embedded = embed(samples)
    train, development = _learn_from(config, dataset, split, embed)
    found = measure(
        config,
        embedded,
        train,
        development,
        encode,
        dataset.categories.find(config.restricted).path if config.restricted else (),
        _packaged_extractor(package, dataset, split),
    )
    if "search" in config.tasks:
        found.include(_search(dataset, config.train, embedded, np.unique(samples.product), encode))
    if leaked is not None:
        found.about["leaks"] = _leaks_in_numbers(leaked, dataset, learnt_from, left_out)
    evaluation = found.evaluation(about, seed=0)
    return evaluation, report(evaluation, embedded, dataset)


def measure(
    config: EvaluationConfig,
    split: EmbeddedSplit,
    train: EmbeddedSplit | None,
    development: EmbeddedSplit | None,
    encode: attributes.Encode,
    restricted_below: tuple[str, ...],
    extractor: Extractor | None = None,
) -> Findings:
    """Results of the tasks of `config` on `split`. A task without the split it learns from is left out.

    restricted_below   category path of the restricted products; empty for none
    extractor          attribute heads to judge; without it, heads are fitted
    """
    found = Findings(notes={"products": CHANCE})
    asked = set(config.tasks)
    if "retrieval" in asked:
        found.include(tasks.retrieve(split))
    if "matching" in asked:
        found.include(matching.match(split, development))
    if "clustering" in asked and development is not None:
        found.include(clustering.cluster(split, development))
    if train is not None and development is not None:
        learn = (train, development, split)
        if "attributes" in asked:
            heads = None if extractor is None else extractor.heads
            prompt = config.attribute_prompt
            hints = None if extractor is None else judge_hints(extractor, split)
            found.include(
                attributes.extract(*learn, encode, prompt=prompt, precision=config.precision, heads=heads, beside=hints)
            )
            found.about["attribute_heads"] = "fitted for this evaluation" if heads is None else "the package's own"
        if "categories" in asked:
            found.include(categories.classify(*learn, encode))
        if "restricted" in asked and restricted_below:
            found.include(restricted.recognise(*learn, restricted_below, precision=config.precision))
    found.about["tasks"] = [task for task in ALL if task in asked]
    return found


def fit_attribute_heads(
    package: str | Path,
    settings: Mapping[str, Any],
    dataset: Dataset,
    *,
    most: int,
    photos: Photos,
    encode: attributes.Encode,
) -> Extractor | None:
    """Fits an `Extractor` on the splits that the package's settings name, and saves it in the package's folder.

    settings   the package's `config.json`
    most       maximum of training photos; a larger training split is sampled at random

    Returns None and leaves the folder as it is if the dataset has no attributes that can be learnt.
    """
    config = validate(EvaluationConfig, {**settings["evaluation"], "tasks": ("attributes",)}, "evaluation")
    if config.train not in _splits(dataset):
        return None
    if not vocabularies(_attributes(dataset, np.unique(Samples.of(dataset, [config.train]).product))):
        return None
    embed = _embedding(dataset, settings["text_fields"], config.prompt, photos, encode)
    train, development = _learn_from(config, dataset, None, embed, most)
    assert train is not None and development is not None
    learnt_from = {"dataset": dataset.digest, "splits": [config.train, config.development]}
    extractor = Extractor.fit(train, development, dataset.categories, learnt_from, precision=config.precision)
    if extractor is not None:
        extractor.save(package)
    return extractor


def _packaged_extractor(package: str | Path, dataset: Dataset, split: str) -> Extractor | None:
    """The package's extractor. None if the package has none, or if it learnt from the split that is judged."""
    extractor = Extractor.load(package)
    if extractor is None:
        return None
    seen = extractor.learnt_from["dataset"] == dataset.digest and split in extractor.learnt_from["splits"]
    return None if seen else extractor


def _embedding(
    dataset: Dataset, text_fields: Sequence[str], prompt: str, photos: Photos, encode: attributes.Encode
) -> Callable[[Samples], EmbeddedSplit]:
    return functools.partial(embed_split, dataset, photos=photos, encode=encode, text_fields=text_fields, prompt=prompt)


def embed_split(
    dataset: Dataset,
    samples: Samples,
    *,
    photos: Photos,
    encode: attributes.Encode,
    text_fields: Sequence[str],
    prompt: str,
) -> EmbeddedSplit:
    """Encodes the photos of `samples`, the texts of their products, and one prompt for each leaf category."""
    rows, product = np.unique(samples.product, return_inverse=True)
    catalog_of_row = np.zeros(dataset.products.num_rows, dtype=np.int64)
    catalog_of_row[samples.product] = samples.catalog
    every_text = dataset.texts(text_fields)
    texts = [every_text[row] for row in rows]
    category_ids = dataset.products["category_id"].take(rows).to_pylist()
    leaves = sorted({c for c in category_ids if c}, key=lambda c: dataset.categories[c].order)
    code = {category_id: row for row, category_id in enumerate(leaves)}
    paths = [dataset.categories[category_id].path for category_id in leaves]
    prompts = [prompt.format(leaf=path[-1], path=" ".join(path)) for path in paths]
    vectors = encode([*texts, *prompts])
    return EmbeddedSplit(
        images=photos(samples.sample),
        samples=samples.sample,
        product=product,
        texts=texts,
        text_vectors=vectors[: len(texts)],
        catalog=catalog_of_row[rows],
        category=np.array([code.get(c, -1) for c in category_ids], dtype=np.int64) if leaves else None,
        category_vectors=vectors[len(texts) :] if leaves else None,
        category_paths=paths,
        attributes=_attributes(dataset, rows),
    )


def _attributes(dataset: Dataset, rows: np.ndarray) -> list[Attributes]:
    """Attributes of the products `rows` [p]."""
    listed = dataset.products["attributes"].take(rows).to_pylist()
    return [{key: tuple(values) for key, values in given or [] if values} for given in listed]


def _splits(dataset: Dataset) -> list[str]:
    return [name for name, n in dataset.manifest.photos_by_split.items() if n]


def _learn_from(
    config: EvaluationConfig, dataset: Dataset, split: str | None, embed: Any, most: int | None = None
) -> tuple[EmbeddedSplit | None, EmbeddedSplit | None]:
    """The training and the development split as vectors; None for a split that the tasks do not need.

    split   the split that is judged, if any
    most    maximum of training photos; a larger training split is sampled at random

    Raises ShoplensError if the training split is the split that is judged. Raises it too if a development split must
    be held out of the training split, and that has only one catalog.
    """
    asked = set(config.tasks)
    if not asked & {*LEARNT, "clustering"}:
        return None, None
    apart = config.development in _splits(dataset) and config.development != split
    development = embed(Samples.of(dataset, [config.development])) if apart else None
    if apart and not asked & LEARNT:
        return None, development
    if config.train == split:
        raise ShoplensError(f"heads that learn from split {split} cannot be judged on it: choose another split")
    samples = Samples.of(dataset, [config.train])
    if most is not None and len(samples) > most:
        samples = samples.keep(np.random.default_rng(0).permutation(len(samples)) < most)
    train = embed(samples)
    if development is None:
        held_out = train.catalog_of_product % HELD_OUT == 0
        if held_out.all():
            raise ShoplensError(
                f"split {config.train} has only one catalog, so none can be held out to choose thresholds: "
                "add a development split"
            )
        train, development = train.keep(~held_out), train.keep(held_out)
    return train, development


def _search(
    dataset: Dataset, train: str, split: EmbeddedSplit, products: np.ndarray, encode: attributes.Encode
) -> Findings:
    """The search task. The meaning of words is learnt from the products of `train`, or from all without that split.

    products   rows of the split's products in the dataset, int64 [p]
    """
    facts = Facts.of(dataset)
    learnt_from = np.arange(len(facts.codes))
    if train in _splits(dataset):
        learnt_from = np.unique(Samples.of(dataset, [train]).product)
    known = short_queries(dataset, facts, learnt_from, ShortQueriesConfig())
    return queries.search(split, facts.codes[products], known, facts.levels, encode)


def _leaks_in_numbers(leaked: Leaks, dataset: Dataset, splits: list[str], left_out: bool) -> dict[str, Any]:
    words = [frozenset(title.casefold().split()) for title in dataset.products["title"].to_pylist()]
    ours, theirs = dataset.product_row[leaked.near].T
    same = np.array([words[a] == words[b] for a, b in zip(ours, theirs, strict=True)], dtype=bool)
    return {
        "with": splits,
        "catalogs": len(leaked.catalogs),
        "of": leaked.n_catalogs,
        "products": len(leaked.products),
        "left_out": left_out and len(leaked.products) > 0,
        "by_photo": leaked.every,
        "near_duplicates": len(leaked.near),
        "same_words": int(same.sum()),
        "near": leaked.near[np.argsort(~same, kind="stable")][:6].tolist(),
    }
