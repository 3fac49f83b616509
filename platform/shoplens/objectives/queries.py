"""Contrastive loss of photos and short queries. A query is right for every photo whose product has the asked facts."""

from __future__ import annotations

import torch
from torch import Tensor

from shoplens.objectives.gather import gather_rows, gather_rows_with_gradient


def matches(facts: Tensor, asks: Tensor) -> Tensor:
    """Whether a product has all facts that a query asks: bool [n, m]. A query that asks nothing is right for none.

    facts   int64 [n, k], values as codes from 0; negative: unknown, so a query that asks for the fact is not right
    asks    int64 [m, k], likewise; negative: the query says nothing of the fact
    """
    right = (asks >= 0).any(1).expand(len(facts), len(asks)).clone()
    for fact in range(facts.shape[1]):
        asked = asks[:, fact]
        right &= (asked < 0) | (facts[:, fact, None] == asked)
    return right


def query_loss(image: Tensor, query: Tensor, facts: Tensor, asks: Tensor, logit_scale: Tensor) -> Tensor:
    """Cross entropy of the scores to targets that share 1 among all right pairs of a row, in both directions.

    With the right pairs R of the global batch, of photos x_1..N and queries q_1..M, and scores S = scale x q^T:

        loss = 1/2N sum_i [logsumexp_j S_ij - mean_{j in R_i} S_ij] + 1/2M sum_j [logsumexp_i S_ij - mean_{i in R_j} S_ij]

    A photo or query without a right pair adds nothing. N x M scores are held: a batch has few queries.

    image        unit rows [n, d] of this worker, with equal n and m on all workers
    query        unit rows [m, d]
    facts, asks  as in `matches`, of those rows

    The mean over workers is the loss of the global batch.
    """
    every_image, every_query = gather_rows_with_gradient(image), gather_rows_with_gradient(query)
    every_facts, every_asks = gather_rows(facts), gather_rows(asks)
    of_images = _cross_entropy(logit_scale * image @ every_query.T, matches(facts, every_asks))
    of_queries = _cross_entropy(logit_scale * query @ every_image.T, matches(every_facts, asks).T)
    return (of_images + of_queries) / 2


def _cross_entropy(scores: Tensor, right: Tensor) -> Tensor:
    count = right.sum(1)
    aligned = (scores * right).sum(1) / count.clamp(min=1)
    return torch.where(count > 0, torch.logsumexp(scores, 1) - aligned, 0.0).mean()
