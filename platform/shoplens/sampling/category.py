"""Category-based hard negatives: batches in which products of the same category meet (e-CLIP, hard)."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from shoplens.config import Config
from shoplens.datasets.samples import Samples
from shoplens.errors import ShoplensError
from shoplens.sampling.uniform import steps_per_epoch, uniform_plan


class CategoryNegatives(Config):
    """A batch is categories x catalogs x offers of the same category, and a `uniform_share` of any.

    level       depth of the categories that are drawn (-1: leaves); a category with fewer than `catalogs`
                catalogs is replaced by its parent
    start_step  the first training step with such batches; before it they are uniform
    """

    catalogs: int = Field(16, ge=2)
    offers: int = Field(2, ge=1)
    uniform_share: float = Field(0.25, ge=0, lt=1)
    level: int = -1
    start_step: int = Field(0, ge=0)


def category_plan(samples: Samples, batch_size: int, options: CategoryNegatives, seed: int, epoch: int) -> np.ndarray:
    """As many batches as a uniform epoch has, int64 [steps, batch_size], no sample twice in a batch.

    A category is drawn with probability proportional to its number of catalogs.
    Raises ShoplensError if the samples have no categories.
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
    """Rows grouped by category (walked up where small) and catalog, ready to draw from."""

    def __init__(self, samples: Samples, options: CategoryNegatives) -> None:
        code = samples.category[:, options.level]
        for level in range(samples.category.shape[1] - 1, 0, -1):
            small = _catalogs_per_row(code, samples.catalog) < options.catalogs
            code = np.where(small, samples.category[:, level - 1], code)
        known = np.flatnonzero(code >= 0)
        if not len(known):
            raise ShoplensError("category-based negatives need products with a category; this dataset has none")
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
        """Rows of `catalogs` x `offers` of one category (fewer where there are not so many)."""
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
    """For each row, how many distinct catalogs its category has."""
    distinct = np.unique(np.stack([code, catalog]), axis=1)[0]
    categories, counts = np.unique(distinct, return_counts=True)
    return counts[np.searchsorted(categories, code)]
