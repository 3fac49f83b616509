"""Metric learning losses against loops over their definitions, in float64, and several workers against one."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from shoplens.config import validate
from shoplens.errors import ShoplensError
from shoplens.objectives.metric_learning import Kind, MetricConfig, MetricLoss, pairwise_cross_entropy
from tests.workers import together

KINDS = get_args(Kind)
MININGS = ("hardest", "semihard")


def drawn(classes: int, samples: int, d: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Rows [classes x samples, d] with norms around the clip radius, and their classes in random order."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(classes * samples, d, dtype=torch.float64, generator=generator).mul_(2.3 / math.sqrt(d))
    label = torch.arange(classes).repeat_interleave(samples)
    return rows.to(dtype).requires_grad_(), label[torch.randperm(len(label), generator=generator)]


def ball_distance(x: Tensor, y: Tensor, c: float) -> Tensor:
    """Distance of two points, by Möbius addition."""
    x = -x
    xy, xx, yy = x @ y, x @ x, y @ y
    added = ((1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y) / (1 + 2 * c * xy + c * c * xx * yy)
    return 2 / math.sqrt(c) * torch.atanh(math.sqrt(c) * added.norm())


def similarity(x: Tensor, y: Tensor, config: MetricConfig) -> Tensor:
    if config.kind == "spherical":
        return x @ y / (x.norm() * y.norm())
    root = math.sqrt(config.curvature)
    points = []
    for v in (x, y):
        if config.clip_radius is not None and v.norm() > config.clip_radius:
            v = v * config.clip_radius / v.norm()
        points.append(torch.tanh(root * v.norm()) * v / (root * v.norm()))
    return -ball_distance(*points, config.curvature)


def by_loops(rows: Tensor, label: Tensor, config: MetricConfig) -> Tensor:
    """Specification B2: for each ordered pair of slots, a cross-entropy with the mate as the target."""
    classes = label.unique().tolist()
    slots = [[rows[i] for i in torch.nonzero(label == one).flatten().tolist()] for one in classes]
    samples, terms = len(slots[0]), []
    for a in range(samples):
        for b in range(samples):
            if a == b:
                continue
            for i in range(len(classes)):
                to_b = [similarity(slots[i][a], slots[j][b], config) for j in range(len(classes))]
                to_a = [similarity(slots[i][a], slots[j][a], config) for j in range(len(classes)) if j != i]
                logits = torch.stack([*to_b, *to_a])[None] / config.temperature
                terms.append(functional.cross_entropy(logits, torch.tensor([i])))
    return torch.stack(terms).mean()


@pytest.mark.parametrize("kind", ["hyperbolic", "spherical"])
@settings(max_examples=12, deadline=None)
@given(
    classes=st.integers(1, 5),
    samples=st.integers(2, 3),
    d=st.integers(1, 6),
    c=st.sampled_from([0.01, 0.1, 1.0]),
    r=st.sampled_from([1.0, 2.3]),
    seed=st.integers(0, 2**31),
)
def test_pairwise_cross_entropy_and_its_gradient_are_those_of_loops(
    kind: Kind, classes: int, samples: int, d: int, c: float, r: float, seed: int
) -> None:
    rows, label = drawn(classes, samples, d, seed)
    config = MetricConfig(kind=kind, curvature=c, clip_radius=r)
    ours, theirs = MetricLoss(config, d, classes)(rows, label).loss, by_loops(rows, label, config)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    mine, other = (torch.autograd.grad(loss, rows)[0] for loss in (ours, theirs))
    torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["hyperbolic", "spherical"])
def test_two_photos_a_class_make_the_symmetric_normalised_cross_entropy(kind: Kind) -> None:
    """With m = 2 each row is compared with all other rows: the loss is NT-Xent (Chen et al. 2020)."""
    rows, label = drawn(7, 2, 5, 1)
    config = MetricConfig(kind=kind)
    logits = torch.stack([torch.stack([similarity(x, y, config) for y in rows]) for x in rows]) / config.temperature
    mate = (label[:, None] == label) & ~torch.eye(14, dtype=torch.bool)
    nt_xent = functional.cross_entropy(
        logits.masked_fill(torch.eye(14, dtype=torch.bool), -torch.inf), mate.int().argmax(1)
    )
    torch.testing.assert_close(MetricLoss(config, 5, 7)(rows, label).loss, nt_xent)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_coincide_and_rows_at_the_origin_have_finite_gradients(kind: Kind) -> None:
    generator = torch.Generator().manual_seed(2)
    rows = torch.cat([torch.zeros(2, 4), torch.ones(3, 4), torch.randn(3, 4, generator=generator)]).requires_grad_()
    label = torch.arange(4).repeat_interleave(2)
    terms = MetricLoss(MetricConfig(kind=kind), 4, 4)(rows, label)
    assert terms.loss.isfinite()
    assert torch.autograd.grad(terms.loss, rows)[0].isfinite().all()


@pytest.mark.parametrize("mining", MININGS)
@settings(max_examples=30, deadline=None)
@given(classes=st.integers(1, 5), samples=st.integers(1, 4), margin=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_triplets_are_those_of_a_loop(mining: Any, classes: int, samples: int, margin: float, seed: int) -> None:
    rows, label = drawn(classes, samples, 3, seed)
    unit = rows / rows.norm(dim=1, keepdim=True)
    positive = []
    for a in range(len(rows)):
        to = {j: (unit[a] - unit[j]).norm() for j in range(len(rows)) if j != a}
        mates = [distance for j, distance in to.items() if label[j] == label[a]]
        if not mates:
            continue
        farthest = max(mates)
        others = [distance for j, distance in to.items() if label[j] != label[a]]
        if mining == "semihard":
            others = [distance for distance in others if distance > farthest]
        if others and farthest - min(others) + margin > 0:
            positive.append(farthest - min(others) + margin)
    expected = torch.stack(positive).mean() if positive else (rows * 0).sum()
    config = MetricConfig(kind="triplet", mining=mining, margin=margin)
    ours = MetricLoss(config, 3, classes)(rows, label).loss
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)
    mine, other = (torch.autograd.grad(loss, rows)[0] for loss in (ours, expected))
    torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-7)


def test_arcface_takes_the_margin_in_radians_off_the_own_class() -> None:
    rows, label = drawn(6, 3, 8, 3)
    loss = MetricLoss(MetricConfig(kind="arcface"), 8, 9)
    (weights,) = loss.parameters()
    assert weights.shape == (8, 9)
    cosine = functional.normalize(rows, dim=1) @ functional.normalize(weights.detach().double(), dim=0)
    own = functional.one_hot(label, 9).bool()
    logits = 32 * torch.where(own, torch.cos(torch.acos(cosine) + 0.25), cosine)
    torch.testing.assert_close(loss(rows, label).loss, functional.cross_entropy(logits, label), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_only_arcface_has_parameters_for_a_model_to_hold(kind: Kind) -> None:
    model = nn.Sequential(nn.Linear(3, 4), MetricLoss(MetricConfig(kind=kind), 4, 10))
    learnt = {name for name, _ in model.named_parameters()} - {"0.weight", "0.bias"}
    assert len(learnt) == (kind == "arcface")
    assert model.state_dict().keys() == {"0.weight", "0.bias"} | learnt


@pytest.mark.parametrize("kind", KINDS)
def test_descent_brings_classes_together(kind: Kind) -> None:
    """Training turns random rows into rows whose nearest neighbour is mostly a mate."""
    rows, label = drawn(12, 3, 8, 4, torch.float32)
    torch.manual_seed(0)
    loss = MetricLoss(MetricConfig(kind=kind), 8, 12)
    optimizer = torch.optim.Adam([rows, *loss.parameters()], lr=0.05)
    found = []
    for _ in range(60):
        unit = functional.normalize(rows.detach(), dim=1)
        nearest = (unit @ unit.T).fill_diagonal_(-1).argmax(1)
        found.append((label[nearest] == label).float().mean().item())
        optimizer.zero_grad()
        loss(rows, label).loss.backward()
        optimizer.step()
    assert found[0] < 0.3
    assert found[-1] > 0.75


def test_clipped_share_is_told_where_there_is_a_ball() -> None:
    rows = torch.tensor([[1.0, 0], [3, 0], [0, 2.2], [0, 9]])
    label = torch.tensor([0, 0, 1, 1])
    terms = {kind: MetricLoss(MetricConfig(kind=kind), 2, 2)(rows, label) for kind in KINDS}
    assert terms["hyperbolic"].clipped == 0.5
    assert all(terms[kind].clipped is None for kind in KINDS if kind != "hyperbolic")
    unclipped = MetricLoss(MetricConfig(clip_radius=None), 2, 2)(rows, label)
    assert unclipped.clipped == 0
    assert unclipped.loss != terms["hyperbolic"].loss


def test_the_clip_radius_makes_longer_rows_equal() -> None:
    rows, label = drawn(5, 2, 4, 5)
    loss = MetricLoss(MetricConfig(), 4, 5)
    torch.testing.assert_close(loss(10 * rows, label).loss, loss(1000 * rows, label).loss)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_computes_in_float32(kind: Kind) -> None:
    rows, label = drawn(6, 2, 16, 6, torch.float32)
    loss = MetricLoss(MetricConfig(kind=kind), 16, 6)
    with torch.autocast("cpu", torch.bfloat16):
        inside, rounded = loss(rows, label).loss, loss(rows.bfloat16(), label).loss
    assert inside == loss(rows, label).loss
    assert rounded == loss(rows.bfloat16().float(), label).loss
    assert inside.dtype == rounded.dtype == torch.float32


@pytest.mark.parametrize("label", [[0, 0, 0, 1, 1, 2], [0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 1, 1]])
def test_classes_of_different_sizes_are_refused(label: list[int]) -> None:
    with pytest.raises(ShoplensError, match="as many rows of every class"):
        pairwise_cross_entropy(torch.zeros(6, 6), torch.tensor(label))


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ShoplensError, match="0 to 0"):
        MetricLoss(MetricConfig(), 4, 5)(torch.empty(0, 4), torch.empty(0, dtype=torch.int64))


@pytest.mark.parametrize("label", [[0, 1, 5], [0, -1, 2]])
def test_arcface_refuses_classes_it_has_no_weights_of(label: list[int]) -> None:
    with pytest.raises(ShoplensError, match="classes 0 to 4"):
        MetricLoss(MetricConfig(kind="arcface"), 3, 5)(torch.eye(3), torch.tensor(label))


def test_defaults_are_those_of_the_kind_and_given_values_stay() -> None:
    assert MetricConfig().temperature == 0.2
    assert MetricConfig(kind="spherical").temperature == 0.1
    assert MetricConfig(kind="spherical", temperature=0.05).temperature == 0.05
    assert MetricConfig(kind="arcface").margin == 0.25
    again = MetricConfig(kind="arcface", margin=0.4).model_dump()
    assert validate(MetricConfig, again, "objective").margin == 0.4


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"clip_radius": 0}, "clip_radius"),
        ({"curvature": 0}, "curvature"),
        ({"temperature": -1}, "temperature"),
        ({"kind": "arcface", "margin": 28.6}, "radians"),
        ({"kind": "cosine"}, "kind"),
        ({"temprature": 0.1}, "did you mean temperature"),
    ],
)
def test_settings_that_are_none_are_refused(tree: dict[str, object], said: str) -> None:
    with pytest.raises(ShoplensError, match=said):
        validate(MetricConfig, tree, "objective")


CASES = [MetricConfig(kind=kind) for kind in KINDS] + [MetricConfig(kind="triplet", mining="semihard")]
CLASSES, SAMPLES, DIM = 12, 3, 5


def _measured(loss: MetricLoss, rows: Tensor, label: Tensor, own: slice) -> list[Tensor]:
    """Loss, gradients of all rows and of the class weights, clipped share."""
    terms = loss(rows[own], label[own])
    leaves = [rows, *loss.parameters()]
    clipped = torch.zeros(()) if terms.clipped is None else terms.clipped
    return [terms.loss.detach(), *torch.autograd.grad(terms.loss, leaves), clipped]


def _case(config: MetricConfig) -> tuple[MetricLoss, Tensor, Tensor]:
    torch.manual_seed(0)
    loss = MetricLoss(config, DIM, CLASSES).double()
    return loss, *drawn(CLASSES, SAMPLES, DIM, 7)


def _rank(rank: int, world: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    share = CLASSES * SAMPLES // world
    found = [_measured(*_case(config), slice(rank * share, (rank + 1) * share)) for config in CASES]
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_workers_together_differentiate_the_whole_batch(tmp_path: Path) -> None:
    """Classes span workers. DDP's mean of the workers' gradients must equal the one-process gradient."""
    world = 2
    together(_rank, world, world, str(tmp_path))
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world)]
    for number, config in enumerate(CASES):
        alone = _measured(*_case(config), slice(None))
        for place, exact in enumerate(alone):
            mean = torch.stack([part[number][place] for part in parts]).mean(0)
            torch.testing.assert_close(mean, exact, rtol=1e-10, atol=1e-12, check_dtype=False)
