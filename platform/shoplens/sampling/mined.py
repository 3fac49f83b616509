"""Mined hard negatives: batches in which products meet that the model, as it stands, takes for one another.

Positive-aware: a neighbour whose score comes too near the anchor's own pair is taken for an unlabelled
duplicate and left out (NV-Retriever, TopK-PercPos).
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
    """A batch is anchors, each with its hardest negatives, and a `uniform_share` of any.

    negatives     hard negatives of an anchor
    ceiling       a negative's score is at most this share of the anchor's own pair's score
    start_epoch   the first epoch with such batches; before it they are uniform
    """

    negatives: int = Field(3, ge=1)
    ceiling: float = Field(0.95, gt=0, le=1)
    uniform_share: float = Field(0.25, ge=0, lt=1)
    start_epoch: int = Field(1, ge=1)


@dataclass(frozen=True)
class Mined:
    """`neighbours` int32 [n, k], hardest first, -1 where there are no more; `guarded`: the share of the k that
    would have been taken, had they not come too near the anchor's own pair."""

    neighbours: np.ndarray
    guarded: float


@torch.no_grad()
def mine(image: Tensor, text: Tensor, catalog: Tensor, options: MinedNegatives) -> Mined:
    """The texts that each photo is nearest to, other than those of its catalog.

    image, text   unit rows [n, d] of the training samples, on the device that shall compare them
    catalog       int64 [n]

    n^2 d products, taken a thousand rows at a time.
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
    """As many batches as a uniform epoch has, int64 [steps, batch_size], no sample twice in a batch.

    neighbours   int32 [n, k] rows of `samples`, as `mine` finds them

    Anchors are taken in the order of the uniform pass.
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
