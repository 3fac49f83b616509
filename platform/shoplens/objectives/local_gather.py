"""InfoNCE over workers with local gradients, as in many public implementations: rows of other workers are constants."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from shoplens.objectives.gather import gather_rows, own_rows


def info_nce_with_local_gradients(image: Tensor, text: Tensor, logit_scale: Tensor) -> Tensor:
    """InfoNCE in both directions, as the mean over this worker's unit rows [n, d] against the rows of all workers.

    The mean of the loss over workers is the loss of the global batch. With more than one worker the gradient is not: it
    misses the terms in which own rows are negatives on other workers. Only for parity with models that were trained
    like this; use `contrastive` otherwise.
    """
    texts, images = _with_own(text), _with_own(image)
    label = torch.arange(len(texts), device=texts.device)[own_rows(len(texts))]
    of_text = functional.cross_entropy(logit_scale * text @ images.T, label)
    of_image = functional.cross_entropy(logit_scale * image @ texts.T, label)
    return (of_text + of_image) / 2


def _with_own(rows: Tensor) -> Tensor:
    everyone = gather_rows(rows)
    own = own_rows(len(everyone))
    return torch.cat([everyone[: own.start], rows, everyone[own.stop :]])
