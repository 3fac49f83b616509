"""The contrastive loss of e-CLIP: InfoNCE whose targets are shared by all offers of a catalog."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from shoplens.objectives.gather import gather_rows, own_rows


class ContrastiveTerms(NamedTuple):
    """Scalars of this worker's rows; their mean over workers is the value of the global batch.

    loss    the symmetric soft-label InfoNCE
    excess  loss minus its floor mean_i log n_i (n_i = offers of i's catalog in the batch), so that batches
            with different shares of duplicates compare
    """

    loss: Tensor
    excess: Tensor
    image_accuracy: Tensor
    text_accuracy: Tensor


def soft_label_contrastive(image: Tensor, text: Tensor, catalog: Tensor, logit_scale: Tensor) -> ContrastiveTerms:
    """Symmetric InfoNCE with targets Z_ij = [c_i = c_j] / n_i (e-CLIP; CLIP where every `catalog` is unique).

    image, text   unit rows [n, d] of this worker; the batch is the rows of all workers
    catalog       int64 [n], equal numbers mean the same product
    logit_scale   scalar 1/temperature

    A row's loss is `logsumexp_j(s x_i.y_j) - s x_i.mean(y of i's catalog)`: the targets enter as a mean row,
    never as a matrix.
    """
    images, texts, catalogs = gather_rows(image), gather_rows(text), gather_rows(catalog)
    own = own_rows(len(catalogs))
    _, group, counts = torch.unique(catalogs, return_inverse=True, return_counts=True)
    from_image = logit_scale * image @ texts.T
    from_text = logit_scale * text @ images.T
    mean_text = _group_mean(texts, group, counts)[group[own]]
    mean_image = _group_mean(images, group, counts)[group[own]]
    image_loss = from_image.logsumexp(1) - logit_scale * (image * mean_text).sum(1)
    text_loss = from_text.logsumexp(1) - logit_scale * (text * mean_image).sum(1)
    loss = (image_loss + text_loss).mean() / 2
    with torch.no_grad():
        floor = counts[group[own]].to(loss.dtype).log().mean()
        image_accuracy = (group[from_image.argmax(1)] == group[own]).float().mean()
        text_accuracy = (group[from_text.argmax(1)] == group[own]).float().mean()
    return ContrastiveTerms(loss, loss.detach() - floor, image_accuracy, text_accuracy)


def _group_mean(rows: Tensor, group: Tensor, counts: Tensor) -> Tensor:
    """Mean row of each group, [groups, d]."""
    sums = rows.new_zeros(len(counts), rows.shape[1]).index_add(0, group, rows)
    return sums / counts.unsqueeze(1)
