"""A dual encoder's package, judged on a split of a dataset: which tasks, what their heads learn from, the report."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from shoplens.config import validate
from shoplens.datasets.format import Dataset
from shoplens.datasets.samples import Samples
from shoplens.errors import ShoplensError
from shoplens.evaluation import attributes, categories, clustering, matching, restricted, tasks
from shoplens.evaluation.attributes import Attributes, vocabularies
from shoplens.evaluation.embedded import EmbeddedSplit
from shoplens.evaluation.heads.extractor import Extractor, judge_hints
from shoplens.evaluation.judging import JudgingConfig
from shoplens.evaluation.leaks import Leaks, leaks
from shoplens.evaluation.report import report
from shoplens.evaluation.results import Evaluation, Findings
from shoplens.packages.embedding import embed_photos, embed_texts
from shoplens.schema import Split

Task = Literal["retrieval", "matching", "clustering", "attributes", "categories", "restricted"]
ALL: tuple[Task, ...] = ("retrieval", "matching", "clustering", "attributes", "categories", "restricted")
LEARNT: set[Task] = {"attributes", "categories", "restricted"}
"""Tasks whose heads are trained on the vectors of `train`."""
HELD_OUT = 5
"""One in so many catalogs of `train` stands in for a development split that is not there."""


class EvaluationConfig(JudgingConfig):
    """What an evaluation measures; `tasks: all` is every task.

    split         the photos that are judged
    prompt        turns a category into a text: `{leaf}` is its name, `{path}` the names from the root
    tasks         all but retrieval and matching also embed `development`, the learnt ones `train` too
    train         what linear heads learn from
    development   what thresholds, penalties and temperatures are chosen on; where it is not in the dataset, or is
                  the split that is judged, a fifth of the catalogs of `train` is held out for it
    restricted    id, name or `A > B` path of the category at and below which products are restricted
    precision     what restricted recognition and attribute answers aim at: their thresholds are set for it
    leaks         whether products whose catalog is also in `train`, `development` or the splits that the model was
                  trained on are left out of the split. A split by photo, all of whose products are, is kept whole,
                  and said to be one
    """

    prompt: str = "{leaf}"
    tasks: tuple[Task, ...] = Field(("retrieval", "matching"), min_length=1)
    train: Split = "train"
    development: Split = "val"
    attribute_prompt: str = "{value}"
    restricted: str | None = None
    precision: float = Field(0.9, gt=0, le=1)
    leaks: Literal["leave_out", "keep"] = "leave_out"

    @field_validator("tasks", mode="before")
    @classmethod
    def _all(cls, tasks: Any) -> Any:
        return ALL if tasks == "all" else tasks


def evaluate_dual_encoder(
    package: Path,
    settings: Mapping[str, Any],
    config: EvaluationConfig,
    dataset: Dataset,
    about: Mapping[str, Any],
) -> tuple[Evaluation, str]:
    """The tasks that `config` names, on its split, and the report."""
    split = config.split
    samples = Samples.of(dataset, [split])
    trained_on = settings.get("splits", [config.train])
    judged_apart = [name for name in (config.train, config.development) if name != split]
    learnt_from = [name for name in dict.fromkeys([*trained_on, *judged_apart]) if name in _splits(dataset)]
    leaked = leaks(samples, Samples.of(dataset, learnt_from)) if learnt_from else None
    left_out = leaked is not None and config.leaks == "leave_out" and not leaked.every
    if leaked is not None and left_out:
        samples = samples.keep(~np.isin(samples.product, leaked.products))
    embed = _embedding(package, dataset, settings["text_fields"], config.prompt)
    embedded = embed(samples)
    train, development = _learn_from(config, dataset, split, embed)
    found = measure(
        config,
        embedded,
        train,
        development,
        functools.partial(embed_texts, package=package),
        dataset.categories.find(config.restricted).path if config.restricted else (),
        _packaged_extractor(package, dataset, split),
    )
    if leaked is not None:
        found.about["leaks"] = _told(leaked, dataset, learnt_from, left_out)
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
    """What the tasks of `config` find on `split`; those that lack what they learn from find nothing.

    extractor   what is judged in place of attribute heads fitted anew
    """
    found = Findings()
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
            found.include(attributes.extract(*learn, encode, prompt=prompt, precision=config.precision, heads=heads))
            found.about["attribute_heads"] = "fitted for this evaluation" if heads is None else "the package's own"
            if extractor is not None:
                found.include(judge_hints(extractor, split))
        if "categories" in asked:
            found.include(categories.classify(*learn, encode))
        if "restricted" in asked and restricted_below:
            found.include(restricted.recognise(*learn, restricted_below, precision=config.precision))
    found.about["tasks"] = [task for task in ALL if task in asked]
    return found


def fit_attribute_heads(package: str | Path, dataset: Dataset, *, most: int) -> Extractor | None:
    """Adds an `Extractor` to the package's folder, fitted on the splits that its configuration names.

    It learns from `most` photos of the training split at most, drawn at random. Returns None, leaving the folder
    as it is, if the dataset has no attributes that can be learnt.
    """
    settings = json.loads((Path(package) / "config.json").read_text())
    config = validate(EvaluationConfig, {**settings["evaluation"], "tasks": ("attributes",)}, "evaluation")
    if config.train not in _splits(dataset):
        return None
    if not vocabularies(_attributes(dataset, np.unique(Samples.of(dataset, [config.train]).product))):
        return None
    embed = _embedding(package, dataset, settings["text_fields"], config.prompt)
    train, development = _learn_from(config, dataset, None, embed, most)
    assert train is not None and development is not None
    learnt_from = {"dataset": dataset.digest, "splits": [config.train, config.development]}
    extractor = Extractor.fit(train, development, dataset.categories, learnt_from, precision=config.precision)
    if extractor is not None:
        extractor.save(package)
    return extractor


def _packaged_extractor(package: str | Path, dataset: Dataset, split: str) -> Extractor | None:
    """The package's own, unless it has none or it learnt from the split that is judged."""
    extractor = Extractor.load(package)
    if extractor is None:
        return None
    seen = extractor.learnt_from["dataset"] == dataset.digest and split in extractor.learnt_from["splits"]
    return None if seen else extractor


def _embedding(
    package: str | Path, dataset: Dataset, text_fields: Sequence[str], prompt: str
) -> Callable[[Samples], EmbeddedSplit]:
    return functools.partial(
        embed_split,
        dataset,
        photos=functools.partial(embed_photos, dataset, package=package),
        encode=functools.partial(embed_texts, package=package),
        text_fields=text_fields,
        prompt=prompt,
    )


def embed_split(
    dataset: Dataset,
    samples: Samples,
    *,
    photos: Callable[[np.ndarray], np.ndarray],
    encode: attributes.Encode,
    text_fields: Sequence[str],
    prompt: str,
) -> EmbeddedSplit:
    """The photos of `samples`, the texts of their products and a prompt per leaf category, as vectors.

    photos   sample ids [n] -> unit vectors [n, d]; `encode` does the same for texts
    """
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
    """Of the products `rows` [p]."""
    found = dataset.products["attributes"].take(rows).to_pylist()
    return [{key: tuple(values) for key, values in given or [] if values} for given in found]


def _splits(dataset: Dataset) -> list[str]:
    return [name for name, n in dataset.manifest.photos_by_split.items() if n]


def _learn_from(
    config: EvaluationConfig, dataset: Dataset, split: str | None, embed: Any, most: int | None = None
) -> tuple[EmbeddedSplit | None, EmbeddedSplit | None]:
    """The training and the development split as vectors, as far as the tasks need them.

    split   the one that is judged, if one is
    most    photos of the training split at most, drawn at random
    Raises ShoplensError if the dataset does not have what they need.
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
                f"split {config.train} has one catalog only: none can be held out to choose thresholds on"
            )
        train, development = train.keep(~held_out), train.keep(held_out)
    return train, development


def _told(leaked: Leaks, dataset: Dataset, splits: list[str], left_out: bool) -> dict[str, Any]:
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
