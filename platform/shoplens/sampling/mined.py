"""Mined hard negatives: batches of products that the current model confuses with each other.

Mining is positive-aware (NV-Retriever, TopK-PercPos): a neighbour whose score is close to the score of the anchor's own
pair is probably an unlabelled duplicate, and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from shoplens.config import Config
from shoplens.datasets.samples import Samples
from shoplens.sampling.uniform import uniform_plan

ROWS_AT_ONCE = 1024


class MinedNegatives(Config):
    """Batches of anchors with their hardest negatives, plus uniformly drawn samples."""

    negatives: int = Field(3, ge=1, description="hard negatives of an anchor")
    ceiling: float = Field(
        0.95, gt=0, le=1, description="largest score of a negative, as a share of the score of the anchor's own pair"
    )
    uniform_share: float = Field(0.25, ge=0, lt=1, description="share of the batch that is drawn uniformly")
    start_epoch: int = Field(1, ge=1, description="first epoch with such batches, from 0; earlier epochs are uniform")


@dataclass(frozen=True)
class Mined:
    """Hard negatives of n samples.

    neighbours   int32 [n, k]: rows of the samples, hardest first; -1 fills missing entries
    guarded      share of the k nearest texts that the ceiling left out
    """

    neighbours: np.ndarray
    guarded: float


@torch.no_grad()
def mine(image: Tensor, text: Tensor, catalog: Tensor, options: MinedNegatives) -> Mined:
    """The nearest texts of each photo, without those of its own catalog and those above the ceiling.

    image, text   unit rows [n, d] of the training samples, on the device that compares them
    catalog       int64 [n]

    Takes O(n^2 d) time, and memory for 1,024 rows of scores.
    """
    found, guarded = [], 0
    k = min(options.negatives, len(image))
    own = (image * text).sum(1)
    for start in range(0, len(image), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        scores = image[rows] @ text.T
        scores.masked_fill_(catalog[rows, None] == catalog[None, :], -torch.inf)
        too_near = scores > options.ceiling * own[rows, None]
        guarded += int(too_near.gather(1, scores.topk(k).indices).sum())
        hardest = scores.masked_fill_(too_near, -torch.inf).topk(k)
        found.append(torch.where(hardest.values == -torch.inf, -1, hardest.indices).int().cpu())
    return Mined(torch.cat(found).numpy(), guarded / (len(image) * k))


def mined_plan(
    samples: Samples, neighbours: np.ndarray, batch_size: int, options: MinedNegatives, seed: int, epoch: int
) -> np.ndarray:
    """Sample ids int64 [steps, batch_size], with as many steps as a uniform epoch and no sample twice in a batch.

    neighbours   int32 [n, k]: rows of `samples`, as in `Mined`

    Anchors are drawn in random order without replacement.
    """
    plan = uniform_plan(samples, batch_size, seed, epoch)
    row_of = np.full(samples.sample.max() + 1, -1)
    row_of[samples.sample] = np.arange(len(samples))
    n_hard = round(batch_size * (1 - options.uniform_share))
    anchors = iter(np.random.default_rng((seed, epoch, 2)).permutation(len(samples)).tolist())
    for step, uniform in enumerate(row_of[plan]):
        chosen: dict[int, None] = {}
        while len(chosen) < n_hard:
            anchor = next(anchors)
            mates = neighbours[anchor]
            chosen.update(dict.fromkeys([anchor, *mates[mates >= 0].tolist()]))
        hard = np.array(list(chosen)[:n_hard], dtype=np.int64)
        rest = uniform[~np.isin(uniform, hard)][: batch_size - n_hard]
        plan[step] = samples.sample[np.concatenate([hard, rest])]
    return plan
