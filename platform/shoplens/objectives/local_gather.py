"""InfoNCE over workers as many public implementations have it: rows of other workers come without their gradient."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from shoplens.objectives.gather import gather_rows, own_rows


def info_nce_with_local_gradients(image: Tensor, text: Tensor, logit_scale: Tensor) -> Tensor:
    """Mean over own rows [n, d], unit, of both directions against the rows of all workers.

    The value's mean over workers is that of the global batch; its gradient is not, with more than one worker:
    own rows are not told how they served as negatives elsewhere. For parity with what was trained so; use
    `contrastive` otherwise.
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
