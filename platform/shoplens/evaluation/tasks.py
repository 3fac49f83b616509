"""Retrieval between photos and texts, and all metrics that need only the evaluated split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse

from shoplens.evaluation.categories import ZERO_SHOT_TITLE, zero_shot_category
from shoplens.evaluation.embedded import MODALITIES, EmbeddedSplit
from shoplens.evaluation.matching import match, matching
from shoplens.evaluation.metrics import chance_recall, recall_at
from shoplens.evaluation.ranking import Retrieval, members, rank
from shoplens.evaluation.results import Evaluation, Findings, MetricInfo

RECALLS = (1, 5, 10)
HEADLINE_RECALL = 10


def evaluate_retrieval(split: EmbeddedSplit, seed: int = 0, about: Mapping[str, Any] | None = None) -> Evaluation:
    """Runs `retrieve` and `matching.match`; bootstrap groups are catalogs."""
    found = retrieve(split)
    found.include(match(split))
    return found.evaluation(about, seed)


def retrieve(split: EmbeddedSplit) -> Findings:
    """`text_to_image/recall@k`, `image_to_text/recall@k` (k = 1, 5, 10); `variants/recall@1`;
    `zero_shot_category/accuracy`, and `accuracy@levelN` for the levels above the leaves."""
    found = Findings()
    without_answer: dict[str, int] = {}
    both_ways = {
        "text_to_image": ("Text finds photos", text_to_image(split)),
        "image_to_text": ("Photo finds texts", image_to_text(split)),
    }
    for name, (title, task) in both_ways.items():
        found.titles[name] = title
        without_answer[name] = task.n_without_answer
        if not len(task):
            continue
        ranks = rank(task)
        for k in RECALLS:
            by_chance = chance_recall(k, ranks.n_right, ranks.n_gallery)
            info = MetricInfo(title=f"recall@{k}", task_title=title, headline=k == HEADLINE_RECALL)
            found.add(f"{name}/recall@{k}", recall_at(k, ranks.first), task.group, float(by_chance.mean()), info)
    own_text = variants(split)
    without_answer["variants"] = own_text.n_without_answer
    if len(own_text):
        ranks = rank(own_text)
        by_chance = chance_recall(1, ranks.n_right, ranks.n_gallery)
        info = MetricInfo(title="recall@1", task_title="variants")
        found.add("variants/recall@1", recall_at(1, ranks.first), own_text.group, float(by_chance.mean()), info)
    if split.category is not None:
        zero_shot = zero_shot_category(split)
        without_answer["zero_shot_category"] = zero_shot.n_without_category
        for name, outcomes in zero_shot.outcomes.items():
            info = MetricInfo(title=name.rpartition("/")[2], task_title=ZERO_SHOT_TITLE)
            found.add(name, outcomes, zero_shot.groups[name], zero_shot.chance[name], info)
        found.titles["zero_shot_category"] = ZERO_SHOT_TITLE
        found.about["accuracy_by_category"] = zero_shot.by_category
    found.about["counts"] = {
        "photos": len(split.images),
        "products": len(np.unique(split.product)),
        "catalogs": len(np.unique(split.catalog_of_product[split.product])),
        "texts": len(set(split.texts)),
        "categories": 0 if split.category_vectors is None else len(split.category_vectors),
    }
    found.about["queries_without_answer"] = without_answer
    return found


def retrieval_tasks(split: EmbeddedSplit) -> dict[str, Retrieval]:
    """Every retrieval task by name. A task without a query has length 0."""
    return {
        "text_to_image": text_to_image(split),
        "image_to_text": image_to_text(split),
        **{f"matching/{modality}": matching(split, modality) for modality in MODALITIES},
    }


def image_to_text(split: EmbeddedSplit) -> Retrieval:
    """Each photo is a query for a text of its catalog. The gallery is the distinct texts of the split.

    A text that several catalogs share is in the gallery once, and is right for each of them.
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
    """Each distinct text is a query for a photo of a catalog that has it. The gallery is all photos of the split."""
    row_of_text, texts_by_catalog = _distinct_texts(split)
    photos_by_catalog = members(split.catalog_of_product[split.product], texts_by_catalog.shape[1])
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


def variants(split: EmbeddedSplit) -> Retrieval:
    """Each photo is a query for its own listing's text. Wrong items are the other texts of its catalog.

    The task measures whether the model distinguishes listings of one product.
    """
    catalog = split.catalog_of_product
    place: dict[str, int] = {}
    text = np.array([place.setdefault(text, len(place)) for text in split.texts], dtype=np.int64)
    (catalog_of, _), row, of_product = np.unique(
        np.stack([catalog, text]), axis=1, return_index=True, return_inverse=True
    )
    of_photo = of_product[split.product]
    key = catalog_of[of_photo]
    asked = np.flatnonzero(np.bincount(catalog_of)[key] > 1)
    return Retrieval(
        queries=split.images[asked],
        query_row=asked,
        query_key=of_photo[asked],
        group=key[asked],
        gallery=split.text_vectors[row],
        gallery_row=row,
        right=members(np.arange(len(row)), len(row)),
        query_category=key[asked],
        gallery_category=catalog_of,
        n_without_answer=len(split.images) - len(asked),
    )


def _distinct_texts(split: EmbeddedSplit) -> tuple[np.ndarray, sparse.csr_array]:
    """First product row of each distinct text [t], and the catalogs that have it [t, catalogs]."""
    place: dict[str, int] = {}
    text_of_product = np.array([place.setdefault(text, len(place)) for text in split.texts], dtype=np.int64)
    row_of_text = np.unique(text_of_product, return_index=True)[1]
    catalog = split.catalog_of_product
    ones = np.ones(len(catalog), np.int32)
    shape = (len(place), int(catalog.max()) + 1)
    return row_of_text, sparse.csr_array((ones, (text_of_product, catalog)), shape=shape)
