"""Contrastive losses against their definitions with N x N matrices, in float64."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from shoplens.config import validate
from shoplens.errors import ShoplensError
from shoplens.objectives import tiles
from shoplens.objectives.contrastive import Kind, ObjectiveConfig, contrastive
from tests.workers import together

KINDS = get_args(Kind)
SCALE, BIAS = 14.3, -2.7


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "ROWS", 7)
    monkeypatch.setattr(tiles, "COLUMNS", 10)


class Drawn:
    """A random batch: float64 unit rows, catalogs of several offers, categories that may contradict the catalogs."""

    def __init__(self, n: int, d: int, catalogs: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.image = functional.normalize(torch.randn(n, d, dtype=torch.float64), dim=1).requires_grad_()
        self.text = functional.normalize(torch.randn(n, d, dtype=torch.float64), dim=1).requires_grad_()
        self.catalog = torch.randint(catalogs, (n,))
        leaf = torch.randint(-1, 5, (n,))
        self.category = torch.stack([leaf, torch.where(leaf < 0, -1, 10 + leaf // 2)], 1)
        self.scale = torch.tensor(SCALE, dtype=torch.float64, requires_grad=True)
        self.bias = torch.tensor(BIAS, dtype=torch.float64, requires_grad=True)

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        return self.image, self.text, self.scale, self.bias

    def loss(self, objective: ObjectiveConfig, own: slice | None = None) -> Tensor:
        own = own or slice(0, len(self.catalog))
        return contrastive(
            self.image[own],
            self.text[own],
            self.catalog[own],
            self.scale,
            objective,
            logit_bias=self.bias,
            category=self.category[own],
        ).loss


def dense(drawn: Drawn, objective: ObjectiveConfig) -> Tensor:
    n = len(drawn.catalog)
    same = drawn.catalog[:, None] == drawn.catalog[None, :]
    eye = torch.eye(n, dtype=torch.float64)
    logits = drawn.scale * drawn.image @ drawn.text.T
    own = objective.own_pair
    if objective.kind == "sigmoid":
        target = (1 - own) * same.double() + own * eye
        return functional.binary_cross_entropy_with_logits(logits + drawn.bias, target, reduction="sum") / n
    target = eye
    if objective.kind == "mask":
        logits = logits.masked_fill(same & (eye == 0), -1e300)
    if objective.kind == "soft":
        target = own * eye + (1 - own) * shares(same)
    if objective.kind == "graded":
        first = [int(torch.nonzero(row)[0]) for row in same]
        path = drawn.category[first]
        known = path >= 0
        leaf = same | ((path[:, None, 0] == path[None, :, 0]) & known[:, None, 0])
        parent = leaf | ((path[:, None, 1] == path[None, :, 1]) & known[:, None, 1])
        near, far = objective.grades
        target = own * eye + (1 - own - near - far) * shares(same) + near * shares(leaf) + far * shares(parent)
    from_image = -(target * logits.log_softmax(1)).sum(1)
    from_text = -(target * logits.T.log_softmax(1)).sum(1)
    return (from_image + from_text).mean() / 2


def shares(together: Tensor) -> Tensor:
    return together.double() / together.sum(1, keepdim=True)


def gradients(loss: Tensor, drawn: Drawn) -> list[Tensor]:
    computed = torch.autograd.grad(loss, drawn.leaves, allow_unused=True)
    return [
        torch.zeros_like(leaf) if gradient is None else gradient
        for gradient, leaf in zip(computed, drawn.leaves, strict=True)
    ]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 41),
    d=st.integers(1, 19),
    catalogs=st.integers(1, 40),
    own_pair=st.sampled_from([0.0, 0.13, 0.9]),
    seed=st.integers(0, 2**31),
)
def test_value_and_gradients_equal_the_dense_form(
    kind: Kind, n: int, d: int, catalogs: int, own_pair: float, seed: int
) -> None:
    drawn = Drawn(n, d, catalogs, seed)
    objective = ObjectiveConfig(kind=kind, own_pair=own_pair)
    ours, theirs = drawn.loss(objective), dense(drawn, objective)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for mine, other in zip(gradients(ours, drawn), gradients(theirs, drawn), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_float32_is_close_to_float64_at_any_scale(kind: Kind, scale: float) -> None:
    """At CLIP's largest scale the scores span a range of 200; exp of that overflows float32."""
    drawn = Drawn(301, 33, 90, 5)
    objective = ObjectiveConfig(kind=kind)
    drawn.scale = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    exact = gradients(dense(drawn, objective), drawn)
    drawn.image, drawn.text, drawn.scale, drawn.bias = (leaf.detach().float().requires_grad_() for leaf in drawn.leaves)
    for mine, other in zip(gradients(drawn.loss(objective), drawn), exact, strict=True):
        assert (mine - other).norm() <= 1e-5 * other.norm()


def test_bfloat16_rows_are_accumulated_in_float32() -> None:
    """The rows and their gradients are rounded once, to 2^-9 each; sums are not rounded."""
    drawn = Drawn(301, 33, 90, 6)
    objective = ObjectiveConfig()
    drawn.image, drawn.text = (rows.detach().bfloat16().requires_grad_() for rows in (drawn.image, drawn.text))
    drawn.scale = drawn.scale.detach().float().requires_grad_()
    found = gradients(drawn.loss(objective), drawn)
    drawn.image, drawn.text, drawn.scale = (leaf.detach().double().requires_grad_() for leaf in drawn.leaves[:3])
    for mine, other in zip(found[:2], gradients(dense(drawn, objective), drawn)[:2], strict=True):
        assert (mine - other).norm() <= 2**-8 * other.norm()


def test_autocast_takes_the_rows_in_its_type() -> None:
    drawn = Drawn(40, 16, 9, 7)
    rows = [leaf.detach().float() for leaf in drawn.leaves[:3]]
    with torch.autocast("cpu", torch.bfloat16):
        inside = contrastive(rows[0], rows[1], drawn.catalog, rows[2], ObjectiveConfig()).loss
    rounded = [rows[0].bfloat16(), rows[1].bfloat16()]
    assert inside == contrastive(*rounded, drawn.catalog, rows[2], ObjectiveConfig()).loss
    assert inside.dtype == torch.float32


def test_clip_is_cross_entropy() -> None:
    drawn = Drawn(23, 8, 4, 3)
    logits, labels = drawn.scale * drawn.image @ drawn.text.T, torch.arange(23)
    clip = (functional.cross_entropy(logits, labels) + functional.cross_entropy(logits.T, labels)) / 2
    torch.testing.assert_close(drawn.loss(ObjectiveConfig(kind="clip")), clip)


def test_one_text_a_catalog_makes_soft_labels_and_clip_identical() -> None:
    """Control case (a) of the e-CLIP specification: soft labels cannot gain anything there."""
    drawn = Drawn(31, 8, 6, 4)
    drawn.text = drawn.text.detach()[drawn.catalog].requires_grad_()
    soft, clip = (drawn.loss(ObjectiveConfig(kind=kind)) for kind in ("soft", "clip"))
    torch.testing.assert_close(soft, clip, rtol=1e-12, atol=1e-12)
    of_soft, of_clip = gradients(soft, drawn), gradients(clip, drawn)
    for index in (0, 2):
        torch.testing.assert_close(of_soft[index], of_clip[index], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["soft", "graded"])
def test_excess_is_zero_at_the_floor(kind: Kind) -> None:
    """If each softmax equals its target, the loss is the targets' entropy and the excess is 0."""
    catalog = torch.tensor([0, 0, 0, 1, 1, 2])
    category = torch.tensor([[0], [0], [0], [0], [0], [1]])
    objective = ObjectiveConfig(kind=kind, own_pair=0.1, grades=(0.2,))
    same, related = catalog[:, None] == catalog, category == category.T
    target = 0.1 * torch.eye(6, dtype=torch.float64) + 0.9 * shares(same)
    if kind == "graded":
        target += 0.2 * (shares(related) - shares(same))
    logits = (target + 1e-30).log()
    terms = contrastive(
        logits,
        torch.eye(6, dtype=torch.float64),
        catalog,
        torch.ones((), dtype=torch.float64),
        objective,
        category=category,
    )
    assert terms.loss.item() == pytest.approx(-(target * logits).sum(1).mean().item(), abs=1e-12)
    assert terms.excess.item() == pytest.approx(0, abs=1e-12)


def test_excess_of_the_sigmoid_form_counts_pairs_of_doubtful_targets() -> None:
    """Four rows in two catalogs: each ordered pair within a catalog has target 1/2 and entropy log 2."""
    rows = torch.zeros(4, 3, dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    terms = contrastive(rows, rows, torch.tensor([0, 0, 1, 1]), one, ObjectiveConfig(kind="sigmoid", own_pair=0.5))
    assert terms.loss.item() == pytest.approx(4 * np.log(2))
    assert terms.excess.item() == pytest.approx(3 * np.log(2))


@pytest.mark.parametrize("kind", KINDS)
def test_hardness_is_the_mean_similarity_to_other_catalogs(kind: Kind) -> None:
    drawn = Drawn(29, 6, 9, 8)
    terms = contrastive(
        drawn.image, drawn.text, drawn.catalog, drawn.scale, ObjectiveConfig(kind=kind), category=drawn.category
    )
    other = drawn.catalog[:, None] != drawn.catalog
    similarity = drawn.image @ drawn.text.T
    expected = torch.stack([row[out].mean() for row, out in zip(similarity, other, strict=True)]).mean()
    torch.testing.assert_close(terms.hardness, expected.detach())


def test_graded_targets_need_categories() -> None:
    drawn = Drawn(5, 3, 2, 0)
    with pytest.raises(ShoplensError, match="category"):
        contrastive(drawn.image, drawn.text, drawn.catalog, drawn.scale, ObjectiveConfig(kind="graded"))


@pytest.mark.parametrize("shares", [{"own_pair": 0.95}, {"grades": [-0.1]}])
def test_shares_that_are_none_are_refused(shares: dict[str, object]) -> None:
    with pytest.raises(ShoplensError, match="shares"):
        validate(ObjectiveConfig, {"kind": "graded", **shares}, "objective")


def _rank(rank: int, world: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", GLOO_SOCKET_IFNAME="lo")
    tiles.ROWS, tiles.COLUMNS = 3, 10
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    found = {}
    for kind in KINDS:
        drawn = Drawn(36, 5, 8, 11)
        share = 36 // world
        loss = drawn.loss(ObjectiveConfig(kind=kind, own_pair=0.1), slice(rank * share, (rank + 1) * share))
        found[kind] = [loss.detach(), *gradients(loss, drawn)]
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3, 4])
def test_workers_together_differentiate_the_global_batch(world: int, tmp_path: Path) -> None:
    """Catalogs span workers. DDP's mean of the workers' gradients must equal the one-process gradient."""
    together(_rank, world, world, str(tmp_path))
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world)]
    for kind in KINDS:
        drawn = Drawn(36, 5, 8, 11)
        loss = dense(drawn, ObjectiveConfig(kind=kind, own_pair=0.1))
        for place, exact in enumerate([loss.detach(), *gradients(loss, drawn)]):
            mean = torch.stack([part[kind][place] for part in parts]).mean(0)
            torch.testing.assert_close(mean, exact, rtol=1e-12, atol=1e-12)
