"""The tasks of a dual encoder, as plain functions from a split's vectors to outcomes.

Retrieval between photos and texts, product matching by catalog, zero-shot categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import sparse

from shoplens.errors import ShoplensError
from shoplens.evaluation.evaluation import Evaluation
from shoplens.evaluation.metrics import TIE, chance_average_precision, chance_recall, recall_at
from shoplens.evaluation.ranking import SCORES_AT_ONCE, Ranks, Retrieval, rank

Modality = Literal["image", "text", "fused"]
RECALLS = (1, 5, 10)


@dataclass(frozen=True)
class EmbeddedSplit:
    """A split as vectors: n photos of p products, c candidate categories; rows of unit length, float32.

    `catalog[i] < 0` means that the product's catalog is unknown: it is then a catalog of its own.
    `category[i] < 0` means that the product has no candidate category. `category_vectors` are of the
    prompt texts of the categories at `category_paths` (leaves, root first).
    """

    images: np.ndarray
    """[n, d]"""
    samples: np.ndarray
    """[n] sample id (row of `Dataset.images`)"""
    product: np.ndarray
    """[n] row of the photo's product"""
    texts: Sequence[str]
    """[p]"""
    text_vectors: np.ndarray
    """[p, d]"""
    catalog: np.ndarray
    """[p] code of the product's catalog"""
    category: np.ndarray | None = None
    """[p] row of the product's category"""
    category_vectors: np.ndarray | None = None
    """[c, d]"""
    category_paths: Sequence[tuple[str, ...]] = ()
    """[c]"""

    def __post_init__(self) -> None:
        """Raises ShoplensError on vectors that are not finite: comparing them would flatter the model."""
        n, p = len(self.images), len(self.texts)
        if len(self.samples) != n or len(self.product) != n:
            raise ValueError(f"{n} photos, but {len(self.samples)} sample ids and {len(self.product)} product rows")
        if len(self.text_vectors) != p or len(self.catalog) != p:
            raise ValueError(f"{p} texts, but {len(self.text_vectors)} text vectors and {len(self.catalog)} catalogs")
        if not n:
            raise ShoplensError("the split has no photo to evaluate on: choose another split")
        if self.product.min() < 0 or self.product.max() >= p:
            raise ValueError("a product row is out of range")
        if (self.category is None) != (self.category_vectors is None):
            raise ValueError("category and category_vectors go together")
        if self.category is not None and self.category_vectors is not None:
            if len(self.category) != p or self.category.max(initial=-1) >= len(self.category_vectors):
                raise ValueError("category must hold a row of category_vectors for every product")
            if self.category_paths and len(self.category_paths) != len(self.category_vectors):
                raise ValueError("one category path for each category vector")
        for name in ("images", "text_vectors", "category_vectors"):
            vectors = getattr(self, name)
            bad = 0 if vectors is None else int((~np.isfinite(vectors).all(axis=1)).sum())
            if bad:
                raise ShoplensError(
                    f"the model gives {bad} of {len(vectors)} {name.replace('_', ' ')} that are not finite: its training diverged"
                )

    @property
    def catalog_of_product(self) -> np.ndarray:
        """[p] codes 0.. without gaps, unknown catalogs each their own."""
        own = int(self.catalog.max(initial=0)) + 1 + np.arange(len(self.catalog))
        return np.unique(np.where(self.catalog < 0, own, self.catalog), return_inverse=True)[1]


def evaluate_retrieval(split: EmbeddedSplit, seed: int = 0, about: Mapping[str, Any] | None = None) -> Evaluation:
    """Every task that the split has queries for, with intervals by catalog and the level of chance.

    `text_to_image/recall@k`, `image_to_text/recall@k` (k = 1, 5, 10); `matching/{image,text,fused}/recall@1`
    and `.../map`; `zero_shot_category/accuracy`, and `accuracy@levelN` for the levels above the leaves.
    """
    outcomes: dict[str, np.ndarray] = {}
    groups: dict[str, np.ndarray] = {}
    chance: dict[str, float] = {}
    without_answer: dict[str, int] = {}
    for name, task in retrieval_tasks(split).items():
        without_answer[name] = task.n_without_answer
        if not len(task):
            continue
        for metric, (values, by_chance) in _retrieval_metrics(name, rank(task)).items():
            outcomes[metric], groups[metric], chance[metric] = values, task.group, float(by_chance.mean())
    tables: dict[str, Any] = {}
    if split.category is not None:
        zero_shot = zero_shot_category(split)
        without_answer["zero_shot_category"] = zero_shot.n_without_category
        outcomes |= zero_shot.outcomes
        groups |= zero_shot.groups
        chance |= zero_shot.chance
        tables["accuracy_by_category"] = zero_shot.by_category
    counts = {
        "photos": len(split.images),
        "products": len(np.unique(split.product)),
        "catalogs": len(np.unique(split.catalog_of_product[split.product])),
        "texts": len(set(split.texts)),
        "categories": 0 if split.category_vectors is None else len(split.category_vectors),
    }
    ours = {"counts": counts, "queries_without_answer": without_answer, **tables}
    return Evaluation.of(outcomes, groups, chance=chance, about={**(about or {}), **ours}, seed=seed)


def retrieval_tasks(split: EmbeddedSplit) -> dict[str, Retrieval]:
    """Every retrieval task by name; one without a query has length 0."""
    return {
        "text_to_image": text_to_image(split),
        "image_to_text": image_to_text(split),
        "matching/image": matching(split, "image"),
        "matching/text": matching(split, "text"),
        "matching/fused": matching(split, "fused"),
    }


def _retrieval_metrics(name: str, ranks: Ranks) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Metric name -> (outcomes, chance), each [queries]."""
    matches = name.startswith("matching/")
    metrics = {
        f"{name}/recall@{k}": (recall_at(k, ranks.first), chance_recall(k, ranks.n_right, ranks.n_gallery))
        for k in ((1,) if matches else RECALLS)
    }
    if matches:
        by_chance = chance_average_precision(ranks.n_right, ranks.n_gallery)
        metrics[f"{name}/map"] = (ranks.average_precision, by_chance)
    return metrics


def image_to_text(split: EmbeddedSplit) -> Retrieval:
    """Every photo asks for a text of its catalog, among the distinct texts of the split.

    A text that several catalogs share stands in the gallery once and is right for each of them.
    """
    row_of_text, texts_by_catalog = _distinct_texts(split)
    key = split.catalog_of_product[split.product]
    return Retrieval(
        queries=split.images,
        query_row=np.arange(len(split.images)),
        query_key=key,
        group=key,
        gallery=split.text_vectors[row_of_text],
        gallery_row=row_of_text,
        right=texts_by_catalog.T.tocsr(),
    )


def text_to_image(split: EmbeddedSplit) -> Retrieval:
    """Every distinct text asks for a photo of a catalog that bears it, among all photos of the split."""
    row_of_text, texts_by_catalog = _distinct_texts(split)
    photos_by_catalog = _members(split.catalog_of_product[split.product], texts_by_catalog.shape[1])
    right = (texts_by_catalog @ photos_by_catalog).tocsr()
    answered = np.flatnonzero(np.diff(right.indptr))
    return Retrieval(
        queries=split.text_vectors[row_of_text[answered]],
        query_row=row_of_text[answered],
        query_key=answered,
        group=split.catalog_of_product[row_of_text[answered]],
        gallery=split.images,
        gallery_row=np.arange(len(split.images)),
        right=right,
        n_without_answer=len(row_of_text) - len(answered),
    )


def matching(split: EmbeddedSplit, modality: Modality) -> Retrieval:
    """Every item asks for the other items of its catalog: the same product, offered elsewhere.

    `image`: photos among photos. Where a catalog has several listings, photos of the query's own listing are
    left out of its gallery (matching across sellers); where it has one, that listing's other photos are
    the right ones. `text`: listings among listings, by their texts. `fused`: photos as the normalised sum of
    photo and text vector; asked only of catalogs with several listings, since the photos of one
    listing share its text and would find each other by that.
    """
    catalog = split.catalog_of_product
    if modality == "text":
        vectors, owner = split.text_vectors, np.arange(len(split.texts))
        key, single = catalog, np.zeros(len(catalog), bool)
    else:
        vectors, key = split.images, catalog[split.product]
        listings = np.bincount(catalog[np.unique(split.product)], minlength=int(catalog.max()) + 1)
        single = listings[key] == 1
        owner = np.where(single, len(split.texts) + np.arange(len(vectors)), split.product)
        if modality == "fused":
            vectors = split.images + split.text_vectors[split.product]
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    owner = np.unique(owner, return_inverse=True)[1]
    mates = np.bincount(key)[key] - np.bincount(owner)[owner]
    asked = np.flatnonzero((mates > 0) & ~(single & (modality == "fused")))
    return Retrieval(
        queries=vectors[asked],
        query_row=asked,
        query_key=key[asked],
        group=key[asked],
        gallery=vectors,
        gallery_row=np.arange(len(vectors)),
        right=_members(key, int(catalog.max()) + 1),
        query_owner=owner[asked],
        left_out=_members(owner, int(owner.max()) + 1),
        n_without_answer=len(vectors) - len(asked),
    )


@dataclass(frozen=True)
class ZeroShot:
    """Outcomes, groups and chance by metric name; accuracy of each category; photos without a category."""

    outcomes: dict[str, np.ndarray]
    groups: dict[str, np.ndarray]
    chance: dict[str, float]
    by_category: list[dict[str, Any]]
    n_without_category: int


def zero_shot_category(split: EmbeddedSplit) -> ZeroShot:
    """Each photo takes the category whose prompt is nearest; right at a level if the nearest shares the path to it.

    Chance is a uniform guess among the candidate categories.
    """
    if split.category is None or split.category_vectors is None:
        raise ValueError("the split has no category vectors")
    of_photo = split.category[split.product]
    asked = np.flatnonzero(of_photo >= 0)
    truth = of_photo[asked]
    group = split.catalog_of_product[split.product[asked]]
    paths = split.category_paths
    depth = np.array([len(path) for path in paths], dtype=np.int64)
    answers = {"zero_shot_category/accuracy": (np.arange(len(split.category_vectors)), np.arange(len(asked)))}
    for level in range(1, int(depth.max(initial=0))):
        places: dict[tuple[str, ...], int] = {}
        answer = np.array([places.setdefault(tuple(path[:level]), len(places)) for path in paths])
        answers[f"zero_shot_category/accuracy@level{level}"] = (answer, np.flatnonzero(depth[truth] >= level))
    outcomes, groups, chance = {}, {}, {}
    for name, (answer, judged) in answers.items():
        photos = split.images[asked[judged]]
        outcomes[name] = _answers_right(photos, split.category_vectors, answer, truth[judged])
        groups[name] = group[judged]
        shares = np.bincount(answer)[answer] / len(answer)
        chance[name] = float(shares[truth[judged]].mean()) if len(judged) else 0.0
    correct = outcomes["zero_shot_category/accuracy"]
    by_category = [
        {
            "category": list(paths[code]) if paths else [str(code)],
            "n": int((truth == code).sum()),
            "accuracy": float(correct[truth == code].mean()),
        }
        for code in np.unique(truth).tolist()
    ]
    return ZeroShot(outcomes, groups, chance, by_category, len(of_photo) - len(asked))


def _answers_right(photos: np.ndarray, candidates: np.ndarray, answer: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """[n] 1.0 where the best candidate [c] with the answer of candidate `truth[i]` beats all of other answers."""
    right = np.zeros(len(photos))
    step = max(1, SCORES_AT_ONCE // len(candidates))
    for start in range(0, len(photos), step):
        scores = photos[start : start + step] @ candidates.T
        same = answer[None, :] == answer[truth[start : start + step], None]
        best_right = np.where(same, scores, -np.inf).max(axis=1)
        best_wrong = np.where(same, -np.inf, scores).max(axis=1)
        right[start : start + step] = best_right - TIE > best_wrong
    return right


def _members(code: np.ndarray, n_codes: int) -> sparse.csr_array:
    """[n_codes, len(code)]: which items bear each code."""
    items = np.arange(len(code))
    return sparse.csr_array((np.ones(len(code), np.int32), (code, items)), shape=(n_codes, len(code)))


def _distinct_texts(split: EmbeddedSplit) -> tuple[np.ndarray, sparse.csr_array]:
    """First product row of each distinct text [t], and which catalogs bear it [t, catalogs]."""
    place: dict[str, int] = {}
    text_of_product = np.array([place.setdefault(text, len(place)) for text in split.texts], dtype=np.int64)
    row_of_text = np.unique(text_of_product, return_index=True)[1]
    catalog = split.catalog_of_product
    ones = np.ones(len(catalog), np.int32)
    shape = (len(place), int(catalog.max()) + 1)
    return row_of_text, sparse.csr_array((ones, (text_of_product, catalog)), shape=shape)
