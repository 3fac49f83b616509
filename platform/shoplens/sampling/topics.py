"""Batches of CLIK: pairs of a topic and one of its products to match, and lists of a topic's products to rank."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from shoplens.curation.topics import TopicProducts
from shoplens.errors import ShoplensError

Draw = Literal["random", "stratified", "reference"]


class TopicBatch(NamedTuple):
    """What a batch holds: `matching` pairs of different topics, `groups` lists of `candidates` products each.

    It is laid out in `blocks` equal parts, each its pairs and then its lists, so that workers, whose number
    divides that of the blocks, find whole lists in their shares.
    """

    matching: int
    groups: int
    candidates: int

    @property
    def size(self) -> int:
        return self.matching + self.groups * self.candidates

    @property
    def blocks(self) -> int:
        return math.gcd(self.matching, self.groups) if self.matching and self.groups else self.matching + self.groups

    def apart(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A batch, or a worker's share of it, as pairs [m] and lists [g, candidates].

        Raises ShoplensError if the share is no whole number of blocks.
        """
        block = self.size // self.blocks
        if len(rows) % block:
            raise ShoplensError(
                f"a batch of {self.blocks} blocks cannot be shared evenly: take a number of workers that divides it"
            )
        parts = rows.reshape(-1, block)
        pairs = self.matching // self.blocks
        return parts[:, :pairs].reshape(-1), parts[:, pairs:].reshape(-1, self.candidates)


def topic_plan(
    table: TopicProducts,
    batch: TopicBatch,
    seed: int,
    epoch: int,
    *,
    draw: Draw = "stratified",
    one_topic: bool = False,
) -> np.ndarray:
    """Rows of `table`, int64 [steps, batch.size]; every topic of enough products is ranked once an epoch.

    A pair is of a product that the topic lists, where it lists any; a list is of all its candidates.

    draw        how a list is drawn from a topic's products: at `random`; `stratified`, evenly from the most, the
                middling and the least liked thirds; or weighted by counts as the `reference` does
    one_topic   the lists of a step are all of one topic, as in the reference (a step a topic); else of different
    Raises ShoplensError if there are too few topics for a batch.
    """
    rng = np.random.default_rng((seed, epoch, 3))
    groups = table.groups()
    enough = [rows for rows in groups if len(rows) >= batch.candidates]
    fitting = [rows[table.listed[rows]] if table.listed[rows].any() else rows for rows in groups]
    liking = table.counted if draw == "reference" else table.liked
    if len(groups) < batch.matching or len(enough) < (1 if one_topic else batch.groups):
        raise ShoplensError(
            f"{len(groups)} topics, {len(enough)} of them with {batch.candidates} products or more, are too few for "
            f"batches of {batch.matching} topics to match and {batch.groups} to rank: lower batches.matching, "
            "batches.groups or batches.candidates"
        )
    order = rng.permutation(len(enough))
    if batch.groups and not one_topic:
        short = -len(order) % batch.groups
        order = np.concatenate([order, rng.permutation(order[: len(order) - len(order) % batch.groups])[:short]])
    steps = len(order) if one_topic or not batch.groups else len(order) // batch.groups
    plan = np.empty((steps, batch.size), np.int64)
    for step in range(steps):
        chosen = rng.choice(len(groups), batch.matching, replace=False)
        pairs = np.array([rng.choice(fitting[i]) for i in chosen], dtype=np.int64)
        whose = [order[step]] * batch.groups if one_topic else order[step * batch.groups : (step + 1) * batch.groups]
        lists_of = [enough[i][drawn(liking[enough[i]], batch.candidates, draw, rng)] for i in whose]
        plan[step] = _laid_out(pairs, np.array(lists_of, dtype=np.int64).reshape(batch.groups, -1), batch)
    return plan


def _laid_out(pairs: np.ndarray, lists: np.ndarray, batch: TopicBatch) -> np.ndarray:
    return np.concatenate([pairs.reshape(batch.blocks, -1), lists.reshape(batch.blocks, -1)], axis=1).reshape(-1)


def drawn(liked: np.ndarray, k: int, draw: Draw, rng: np.random.Generator) -> np.ndarray:
    """k different places of `liked` [n >= k].

    `reference`: the best of five drawn in proportion to liking, and k - 1 others in proportion to how far they fall
    short of the best that remains.
    """
    n = len(liked)
    if draw == "random" or np.isnan(liked).any():
        return rng.permutation(n)[:k]
    if draw == "stratified":
        order = np.lexsort((rng.random(n), -liked))
        thirds = [rng.permutation(third) for third in np.array_split(order, 3)]
        dealt = [third[i] for i in range(len(thirds[0])) for third in thirds if i < len(third)]
        return np.array(dealt[:k])
    weight = liked + rng.random(n) * 1e-8
    if n == k:
        return np.arange(n)
    first = _weighted(weight, min(5, n), rng)
    best = first[np.argmax(weight[first])]
    others = np.delete(np.arange(n), best)
    short = weight[others].max() - weight[others]
    return np.concatenate([[best], others[_weighted(short, k - 1, rng)]])


def _weighted(weight: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k places drawn without replacement in proportion to `weight`: the first k of an exponential race."""
    with np.errstate(divide="ignore"):
        return np.argsort(rng.exponential(size=len(weight)) / weight, kind="stable")[:k]
