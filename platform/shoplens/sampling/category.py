"""Category-based hard negatives: batches with many products of one category (e-CLIP, hard)."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from shoplens.config import Config
from shoplens.datasets.samples import Samples
from shoplens.errors import ShoplensError
from shoplens.sampling.uniform import steps_per_epoch, uniform_plan


class CategoryNegatives(Config):
    """Batches of `catalogs` x `offers` samples from each of several categories, plus uniformly drawn samples."""

    catalogs: int = Field(16, ge=2, description="catalogs drawn from a category")
    offers: int = Field(2, ge=1, description="samples drawn from each catalog")
    uniform_share: float = Field(0.25, ge=0, lt=1, description="share of the batch that is drawn uniformly")
    level: int = Field(
        -1,
        description="level of the drawn categories (0: root, -1: leaf). A category with fewer than `catalogs` "
        "catalogs is replaced by its parent",
    )
    start_step: int = Field(0, ge=0, description="first training step with such batches; batches before it are uniform")


def category_plan(samples: Samples, batch_size: int, options: CategoryNegatives, seed: int, epoch: int) -> np.ndarray:
    """Sample ids int64 [steps, batch_size], with as many steps as a uniform epoch and no sample twice in a batch.

    A category is drawn with probability proportional to its number of catalogs.
    Raises ShoplensError if the samples have no categories, or do not fill one batch.
    """
    steps = steps_per_epoch(samples, batch_size)
    rng = np.random.default_rng((seed, epoch, 1))
    draws = _Categories(samples, options)
    plan = uniform_plan(samples, batch_size, seed, epoch)
    row_of = np.full(samples.sample.max() + 1, -1)
    row_of[samples.sample] = np.arange(len(samples))
    n_hard = round(batch_size * (1 - options.uniform_share))
    for step in range(steps):
        hard: dict[int, None] = {}
        for _ in range(100):
            if len(hard) >= n_hard:
                break
            hard.update(dict.fromkeys(draws.draw(rng).tolist()))
        chosen = list(hard)[:n_hard]
        taken = np.zeros(len(samples), dtype=bool)
        taken[chosen] = True
        rest = row_of[plan[step]]
        rest = rest[~taken[rest]][: batch_size - len(chosen)]
        plan[step] = samples.sample[np.concatenate([np.array(chosen, dtype=np.int64), rest])]
    return plan


class _Categories:
    """Rows grouped by category and catalog. A category with too few catalogs is merged into its parent."""

    def __init__(self, samples: Samples, options: CategoryNegatives) -> None:
        code = samples.category[:, options.level]
        for level in range(samples.category.shape[1] - 1, 0, -1):
            small = _catalogs_per_row(code, samples.catalog) < options.catalogs
            code = np.where(small, samples.category[:, level - 1], code)
        known = np.flatnonzero(code >= 0)
        if not len(known):
            raise ShoplensError(
                "category-based negatives need products with a category; this dataset has none: use uniform batches"
            )
        rows = known[np.lexsort((known, samples.catalog[known], code[known]))]
        pairs = np.stack([code[rows], samples.catalog[rows]])
        starts = np.flatnonzero(np.any(np.diff(pairs, prepend=-2, axis=1), axis=0))
        self._groups = np.split(rows, starts[1:])
        _, first = np.unique(pairs[0, starts], return_index=True)
        self._bounds = np.append(first, len(starts))
        sizes = np.diff(self._bounds)
        self._probability = sizes / sizes.sum()
        self._options = options

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Rows of up to `catalogs` x `offers` samples of one category."""
        category = rng.choice(len(self._probability), p=self._probability)
        low, high = self._bounds[category], self._bounds[category + 1]
        catalogs = rng.choice(np.arange(low, high), size=min(self._options.catalogs, high - low), replace=False)
        offers = self._options.offers
        return np.concatenate(
            [
                rng.choice(group, size=min(offers, len(group)), replace=False)
                for group in map(self._groups.__getitem__, catalogs)
            ]
        )


def _catalogs_per_row(code: np.ndarray, catalog: np.ndarray) -> np.ndarray:
    """int64 [n]: the number of distinct catalogs in each row's category."""
    distinct = np.unique(np.stack([code, catalog]), axis=1)[0]
    categories, counts = np.unique(distinct, return_counts=True)
    return counts[np.searchsorted(categories, code)]
