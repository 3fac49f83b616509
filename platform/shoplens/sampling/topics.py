"""Batches of CLIK: (topic, product) pairs for matching, and lists of a topic's products for ranking."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from shoplens.curation.topics import TopicProducts
from shoplens.errors import ShoplensError

Draw = Literal["random", "stratified", "reference"]


class TopicBatch(NamedTuple):
    """Shape of a batch: `matching` pairs of different topics, and `groups` lists of `candidates` products each.

    A batch consists of `blocks` equal blocks, each with its pairs first and then its lists. If the number of workers
    divides `blocks`, every worker's share has only whole lists.
    """

    matching: int
    groups: int
    candidates: int

    @property
    def size(self) -> int:
        """Photos in a batch."""
        return self.matching + self.groups * self.candidates

    @property
    def blocks(self) -> int:
        return math.gcd(self.matching, self.groups) if self.matching and self.groups else self.matching + self.groups

    def apart(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Splits a batch, or a worker's share of it, into pairs [m] and lists [g, candidates].

        Raises ShoplensError if the share is not a whole number of blocks.
        """
        block = self.size // self.blocks
        if len(rows) % block:
            raise ShoplensError(
                f"a batch of {self.blocks} blocks cannot be shared evenly: take a number of workers that divides "
                f"{self.blocks}"
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
    """Rows of `table`, int64 [steps, batch.size]. Every topic with enough products is ranked once an epoch.

    The product of a pair is one that the topic lists, if it lists any. A list is drawn from all candidates of a topic.

    draw        how a list is drawn from a topic's products: `random`; `stratified`: evenly from the most, middle and
                least liked thirds; `reference`: weighted by counts, as the reference implementation does
    one_topic   all lists of a step are of one topic, as in the reference (one step a topic); else of different topics
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
    """k different indices into `liked` [n >= k].

    `reference` draws five in proportion to `liked` and takes the best. It draws the other k - 1 in proportion to their
    difference from the best remaining one.
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
    """k indices drawn without replacement in proportion to `weight`: the first k of an exponential race."""
    with np.errstate(divide="ignore"):
        return np.argsort(rng.exponential(size=len(weight)) / weight, kind="stable")[:k]
