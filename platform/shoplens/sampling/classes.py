"""Batches for metric learning: several photos of each of several classes, optionally of few categories.

An epoch is about one pass over the photos. The photos of each class are shuffled and cut into groups of `samples`, and
every group is drawn once. So a class is drawn in proportion to its photos, at most once a batch, and no photo is drawn
twice. Classes with fewer than `samples` photos are left out, as are photos that fill no group and groups that fill no
batch; the shuffle leaves out different ones each epoch.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from shoplens.config import Config
from shoplens.datasets.samples import Samples
from shoplens.errors import ShoplensError


class ClassBatches(Config):
    """Batches of `samples` photos from each of `classes` classes, optionally from each of `categories` categories."""

    classes: int = Field(32, ge=2, description="classes in a batch, or in each category of a batch")
    samples: int = Field(2, ge=2, description="photos of each class")
    categories: int | None = Field(
        None,
        ge=2,
        description="categories in a batch; each is drawn in proportion to its photos, at most once a batch. null: "
        "classes of any category",
    )
    level: int = Field(
        -1,
        description="level of these categories (0: root, -1: leaf). A category with fewer than `classes` classes is "
        "replaced by its parent",
    )

    @property
    def size(self) -> int:
        """Photos in a batch."""
        return self.samples * self.classes * (self.categories or 1)


def class_plan(samples: Samples, label: np.ndarray, batch: ClassBatches, seed: int, epoch: int) -> np.ndarray:
    """Sample ids int64 [steps, batch.size]. Photos of a class are adjacent, and so are classes of a category.

    label   int64 [n]: class of each row of `samples`; negative: none, the photo is left out

    The category of a class is that of its first photo. The number of steps depends on neither seed nor epoch.
    Raises ShoplensError if there are too few classes or categories for one batch, or if the level does not exist.
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
    """Indices into `label` [n] in full groups of one label each: int64 [groups, samples]."""
    order = np.lexsort((rng.random(len(label)), label))
    nth, counts = _nth(label[order])
    return order[nth < counts // samples * samples].reshape(-1, samples)


def _meetings(code: np.ndarray, together: int, rng: np.random.Generator) -> np.ndarray:
    """Indices into `code` [n] in as many rows as possible of `together` different codes: int64 [rows, together].

    The indices are sorted by code, in random order of codes, and dealt to the rows in turn. So equal codes never meet.
    """
    _, code, counts = np.unique(code, return_inverse=True, return_counts=True)
    rows = _most_rows(counts, together)
    order = np.lexsort((rng.random(len(code)), rng.permutation(len(counts))[code]))
    dealt = order[_nth(code[order])[0] < rows][: rows * together]
    return dealt.reshape(together, rows).T[rng.permutation(rows)]


def _most_rows(counts: np.ndarray, together: int) -> int:
    """The largest number of rows of `together` different codes, given how often each code occurs.

    R rows take a code at most R times, so R is feasible if sum(min(counts, R)) >= R * together. If R is feasible, so
    is every smaller R.
    """
    rows = np.arange(1, counts.sum() // together + 1)
    at_least = np.cumsum(np.bincount(counts, minlength=len(rows) + 1)[::-1])[::-1]
    return int((np.cumsum(at_least[1:])[: len(rows)] >= rows * together).sum())


def _nth(run: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each entry of runs of equal values [n]: its index within the run, and the length of the run."""
    starts = np.flatnonzero(np.diff(run, prepend=run[:1] - 1))
    lengths = np.diff(np.append(starts, len(run)))
    return np.arange(len(run)) - np.repeat(starts, lengths), np.repeat(lengths, lengths)


def _categories(samples: Samples, label: np.ndarray, batch: ClassBatches) -> np.ndarray:
    """int64 [n]: the category of each row's class, -1 for none. Small categories are replaced by their parent."""
    classes, first, of_row, photos = np.unique(label, return_index=True, return_inverse=True, return_counts=True)
    usable = (classes >= 0) & (photos >= batch.samples)
    path = samples.category[first]
    deepest = path.shape[1]
    if not -deepest <= batch.level < deepest:
        raise ShoplensError(
            f"batches.level is {batch.level}, and the category tree has {deepest} levels: 0 is the root, -1 the leaf"
        )
    code = path[:, batch.level]
    for level in range(batch.level % deepest, 0, -1):
        _, of_code = np.unique(code, return_inverse=True)
        small = np.bincount(of_code, weights=usable)[of_code] < batch.classes
        code = np.where(small, path[:, level - 1], code)
    return code[of_row]


def _too_few(of_group: np.ndarray, batch: ClassBatches, categories: int | None = None) -> ShoplensError:
    available = f"{len(np.unique(of_group))} classes of {batch.samples} photos or more"
    if categories is None:
        return ShoplensError(
            f"{available} are too few for batches of {batch.classes}: lower batches.classes or batches.samples"
        )
    return ShoplensError(
        f"{available}, in {categories} categories of {batch.classes} such classes or more, are too few for batches of "
        f"{batch.categories} categories: lower batches.categories, batches.classes or batches.samples"
    )
