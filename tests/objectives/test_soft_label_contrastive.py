"""The loss against its definition with the N x N target matrix, in float64."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import multiprocessing
from torch.nn import functional

from shoplens.objectives.soft_label_contrastive import soft_label_contrastive


def dense(image: torch.Tensor, text: torch.Tensor, catalog: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """L = 1/2N sum_i -sum_j Z_ij log softmax_j(s x_i.y_j) - sum_j Z_ij log softmax_j(s y_i.x_j)."""
    same = (catalog[:, None] == catalog[None, :]).to(image.dtype)
    target = same / same.sum(1, keepdim=True)
    logits = scale * image @ text.T
    by_image = -(target * logits.log_softmax(1)).sum(1)
    by_text = -(target * logits.T.log_softmax(1)).sum(1)
    return (by_image + by_text).mean() / 2


def draw(n: int, d: int, catalogs: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    image = functional.normalize(torch.randn(n, d, dtype=torch.float64), dim=1).requires_grad_()
    text = functional.normalize(torch.randn(n, d, dtype=torch.float64), dim=1).requires_grad_()
    return image, text, torch.randint(catalogs, (n,)), torch.tensor(14.3, dtype=torch.float64, requires_grad=True)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 37), d=st.integers(1, 19), catalogs=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_value_and_gradients_equal_the_dense_form(n: int, d: int, catalogs: int, seed: int) -> None:
    image, text, catalog, scale = draw(n, d, catalogs, seed)
    ours = torch.autograd.grad(soft_label_contrastive(image, text, catalog, scale).loss, (image, text, scale))
    theirs = torch.autograd.grad(dense(image, text, catalog, scale), (image, text, scale))
    torch.testing.assert_close(
        soft_label_contrastive(image, text, catalog, scale).loss,
        dense(image, text, catalog, scale),
        rtol=1e-12,
        atol=1e-12,
    )
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12)


def test_unique_catalogs_are_clip() -> None:
    image, text, _, scale = draw(23, 8, 1, 3)
    logits = scale * image @ text.T
    labels = torch.arange(23)
    clip = (functional.cross_entropy(logits, labels) + functional.cross_entropy(logits.T, labels)) / 2
    torch.testing.assert_close(soft_label_contrastive(image, text, labels, scale).loss, clip)


def test_one_text_a_catalog_makes_soft_labels_and_clip_identical() -> None:
    """eclip specification, control case (a): no gain is possible there."""
    image, text, catalog, scale = draw(31, 8, 6, 4)
    shared = text.detach()[catalog].requires_grad_()
    soft = soft_label_contrastive(image, shared, catalog, scale).loss
    clip = soft_label_contrastive(image, shared, torch.arange(31), scale).loss
    torch.testing.assert_close(soft, clip, rtol=1e-12, atol=1e-12)
    for mine, other in zip(
        torch.autograd.grad(soft, (image, scale)), torch.autograd.grad(clip, (image, scale)), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12)


def test_excess_is_zero_at_the_floor() -> None:
    """Perfectly grouped embeddings at a large scale reach mean log n_i, where the excess vanishes."""
    catalog = torch.tensor([0, 0, 0, 1, 1, 2])
    rows = torch.eye(3, dtype=torch.float64)[catalog]
    terms = soft_label_contrastive(rows, rows, catalog, torch.tensor(100.0, dtype=torch.float64))
    floor = np.log([3, 3, 3, 2, 2, 1]).mean()
    assert terms.loss.item() == pytest.approx(floor, abs=1e-12)
    assert terms.excess.item() == pytest.approx(0, abs=1e-12)
    assert terms.image_accuracy == terms.text_accuracy == 1


def _rank(rank: int, world: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", GLOO_SOCKET_IFNAME="lo")
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    image, text, catalog, scale = draw(12, 5, 4, 11)
    share = 12 // world
    own = slice(rank * share, (rank + 1) * share)
    x, y = image.detach()[own].requires_grad_(), text.detach()[own].requires_grad_()
    loss = soft_label_contrastive(x, y, catalog[own], scale).loss
    loss.backward()
    torch.save((loss.detach(), x.grad, y.grad, scale.grad), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("world", [2, 3])
def test_workers_together_differentiate_the_global_batch(world: int, tmp_path: Path) -> None:
    """Catalogs span workers; DDP's mean of the workers' gradients must be the one-process gradient."""
    multiprocessing.spawn(_rank, (world, str(tmp_path)), nprocs=world)
    image, text, catalog, scale = draw(12, 5, 4, 11)
    loss = dense(image, text, catalog, scale)
    loss.backward()
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world)]
    torch.testing.assert_close(torch.stack([part[0] for part in parts]).mean(), loss.detach())
    assert image.grad is not None
    assert text.grad is not None
    torch.testing.assert_close(torch.cat([part[1] for part in parts]) / world, image.grad)
    torch.testing.assert_close(torch.cat([part[2] for part in parts]) / world, text.grad)
    torch.testing.assert_close(torch.stack([part[3] for part in parts]).mean(), scale.grad)
