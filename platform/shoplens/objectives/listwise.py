"""Listwise ranking losses over candidates with relevances."""

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
    """Mean over lists of the cross-entropy between targets and softmax(logit_scale * scores).

    scores, liked   [G, K]; `liked` is the relevance of each candidate
    targets         `soft`: softmax(liked / temperature), ListNet's top-one probabilities (Cao et al. 2007);
                    `best`: the most relevant candidate, in equal shares if there are several
    """
    if targets == "soft":
        target = (liked / temperature).softmax(1)
    else:
        best = (liked == liked.amax(1, keepdim=True)).to(scores.dtype)
        target = best / best.sum(1, keepdim=True)
    return -(target.to(scores.dtype) * torch.log_softmax(logit_scale * scores, 1)).sum(1).mean()
