"""Batches for metric learning: several photos of each of several classes, of any category or of a few.

An epoch is about one pass over the photos: those of each class are shuffled and cut into groups of `samples`, and
every group is met once. So a class comes in proportion to its photos, at most once a batch, and no photo twice.
A class with fewer photos than that is left out, and so is what remains of a class or does not fill a batch; the
shuffle chooses others each epoch.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from shoplens.config import Config
from shoplens.datasets.samples import Samples
from shoplens.errors import ShoplensError


class ClassBatches(Config):
    """A batch is `samples` photos of each of `classes` classes; with `categories`, of as many classes in each.

    categories  different categories that meet in a batch; null for classes of any
    level       depth of these categories (-1: leaves); one with fewer than `classes` classes is replaced by its
                parent. A category comes in proportion to its classes' photos, at most once a batch
    """

    classes: int = Field(32, ge=2)
    samples: int = Field(2, ge=2)
    categories: int | None = Field(None, ge=2)
    level: int = -1

    @property
    def size(self) -> int:
        return self.samples * self.classes * (self.categories or 1)


def class_plan(samples: Samples, label: np.ndarray, batch: ClassBatches, seed: int, epoch: int) -> np.ndarray:
    """Sample ids int64 [steps, batch.size], the photos of a class side by side and so the classes of a category.

    label   int64 [n] the class of each row of `samples`; negative: of none, left out

    The category of a class is that of its first photo. How many steps there are depends on neither seed nor epoch.
    Raises ShoplensError if there are too few classes, or categories, for one batch, or no such level.
    """
    rng = np.random.default_rng((seed, epoch, 4))
    known = np.flatnonzero(label >= 0)
    groups = known[_groups(label[known], batch.samples, rng)]
    of_group = label[groups[:, 0]]
    if batch.categories is None:
        met = _meetings(of_group, batch.classes, rng)
        if not len(met):
            raise _too_few(of_group, batch)
        return samples.sample[groups[met]].reshape(-1, batch.size)
    category = _categories(samples, label, batch)[groups[:, 0]]
    blocks = [np.empty((0, batch.classes), np.int64)]
    for one in np.unique(category[category >= 0]):
        inside = np.flatnonzero(category == one)
        blocks.append(inside[_meetings(of_group[inside], batch.classes, rng)])
    block = np.concatenate(blocks)
    met = _meetings(category[block[:, 0]], batch.categories, rng)
    if not len(met):
        raise _too_few(of_group, batch, categories=len(np.unique(category[block[:, 0]])))
    return samples.sample[groups[block[met]]].reshape(-1, batch.size)


def _groups(label: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Places of `label` [n] in groups of one label each, as many as there are whole ones: int64 [groups, samples]."""
    order = np.lexsort((rng.random(len(label)), label))
    nth, counts = _nth(label[order])
    return order[nth < counts // samples * samples].reshape(-1, samples)


def _meetings(code: np.ndarray, together: int, rng: np.random.Generator) -> np.ndarray:
    """Places of `code` [n] in rows of `together` different codes, as many rows as can be: int64 [rows, together].

    Equal codes stand next to each other in a random order that is dealt to the rows in turn.
    """
    _, code, counts = np.unique(code, return_inverse=True, return_counts=True)
    rows = _most_rows(counts, together)
    order = np.lexsort((rng.random(len(code)), rng.permutation(len(counts))[code]))
    dealt = order[_nth(code[order])[0] < rows][: rows * together]
    return dealt.reshape(together, rows).T[rng.permutation(rows)]


def _most_rows(counts: np.ndarray, together: int) -> int:
    """The most rows of different codes that codes with these `counts` fill.

    R rows take a code R times at most; they are filled where the sum of min(counts, R) reaches R x together, which
    holds for every smaller R too.
    """
    rows = np.arange(1, counts.sum() // together + 1)
    at_least = np.cumsum(np.bincount(counts, minlength=len(rows) + 1)[::-1])[::-1]
    return int((np.cumsum(at_least[1:])[: len(rows)] >= rows * together).sum())


def _nth(run: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each entry of runs of equal values [n]: how many of its run stand before it, and the length of the run."""
    starts = np.flatnonzero(np.diff(run, prepend=run[:1] - 1))
    lengths = np.diff(np.append(starts, len(run)))
    return np.arange(len(run)) - np.repeat(starts, lengths), np.repeat(lengths, lengths)


def _categories(samples: Samples, label: np.ndarray, batch: ClassBatches) -> np.ndarray:
    """int64 [n] the category that each row's class is drawn with, -1 for none."""
    classes, first, of_row, photos = np.unique(label, return_index=True, return_inverse=True, return_counts=True)
    usable = (classes >= 0) & (photos >= batch.samples)
    path = samples.category[first]
    deepest = path.shape[1]
    if not -deepest <= batch.level < deepest:
        raise ShoplensError(
            f"batches.level is {batch.level}, and the category tree has {deepest} levels: 0 is the root"
        )
    code = path[:, batch.level]
    for level in range(batch.level % deepest, 0, -1):
        _, of_code = np.unique(code, return_inverse=True)
        small = np.bincount(of_code, weights=usable)[of_code] < batch.classes
        code = np.where(small, path[:, level - 1], code)
    return code[of_row]


def _too_few(of_group: np.ndarray, batch: ClassBatches, categories: int | None = None) -> ShoplensError:
    there = f"{len(np.unique(of_group))} classes of {batch.samples} photos or more"
    if categories is None:
        return ShoplensError(
            f"{there} are too few for batches of {batch.classes}: lower batches.classes or batches.samples"
        )
    return ShoplensError(
        f"{there}, in {categories} categories of {batch.classes} such classes or more, are too few for batches of "
        f"{batch.categories} categories: lower batches.categories, batches.classes or batches.samples"
    )
