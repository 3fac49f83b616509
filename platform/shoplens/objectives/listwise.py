"""Ranking losses over a list of candidates, given how much each of them was liked."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def listwise(
    scores: Tensor,
    liked: Tensor,
    logit_scale: Tensor | float,
    *,
    targets: Literal["best", "soft"] = "soft",
    temperature: float = 1.0,
) -> Tensor:
    """Mean over lists of the cross-entropy of softmax(logit_scale * scores) to the targets.

    scores, liked   [G, K]
    targets         `soft`: softmax(liked / temperature), ListNet's top-one probabilities (Cao et al. 2007), equal
                    where candidates were liked equally; `best`: the most liked one, or those in equal shares
    """
    if targets == "soft":
        wanted = (liked / temperature).softmax(1)
    else:
        best = (liked == liked.amax(1, keepdim=True)).to(scores.dtype)
        wanted = best / best.sum(1, keepdim=True)
    return -(wanted.to(scores.dtype) * torch.log_softmax(logit_scale * scores, 1)).sum(1).mean()
