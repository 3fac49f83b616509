"""CLIK's group query against the reference values of its specification, and against a loop over queries."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from shoplens.nn.clik import GroupQuery, GroupQueryConfig, MemoryBank, attend
from shoplens.objectives.contrastive import ObjectiveConfig, contrastive
from shoplens.objectives.listwise import listwise

REFERENCE = GroupQueryConfig(
    reads="attention", residual=False, temperature=1.0, learn_temperature=False, bank=5, exclude_own=False
)
TAU = 0.07


def s(n: int, a: float, b: float, *shape: int) -> Tensor:
    return torch.sin(a * torch.arange(n, dtype=torch.float64) + b).reshape(shape)


def near(value: Tensor, *expected: float) -> None:
    torch.testing.assert_close(
        value.detach().flatten(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=6e-7, check_dtype=False
    )


@pytest.fixture
def head() -> GroupQuery:
    query = GroupQuery(REFERENCE, 4).double()
    with torch.no_grad():
        query.aggregate.weight.copy_(0.5 * s(32, 0.37, 0.05, 4, 8))
        query.aggregate.bias.copy_(0.1 * s(4, 0.8, 0.3, 4))
    return query


def test_the_golden_head(head: GroupQuery) -> None:
    """Values of an independent float64 implementation, to the digits recorded here."""
    topics, images = (x.requires_grad_() for x in (s(20, 0.7, 0.1, 5, 4), s(20, 0.9, 0.5, 5, 4)))
    ranked, candidates = (x.requires_grad_() for x in (s(8, 1.1, 0.2, 2, 4), s(24, 0.3, 1.0, 2, 3, 4)))
    unit_topics, unit_images = (functional.normalize(x, dim=-1) for x in (topics, images))
    near((unit_topics @ unit_images.T)[0], 0.742045, -0.358828, -0.054240, 0.429645, -0.741412)

    own = torch.arange(5)
    scale = torch.tensor(1 / TAU, dtype=torch.float64)
    match = contrastive(unit_images, unit_topics, own, scale, ObjectiveConfig(kind="clip")).loss
    assert match.item() == pytest.approx(17.400889183560, abs=1e-10)

    assert head.bank is not None
    head.bank.double().write(unit_images, own, own)
    query = functional.normalize(ranked, dim=-1)
    attended = attend(query, head.bank.rows, torch.ones(2, 5, dtype=torch.bool), 1.0)
    near(attended.weights[0], 0.396688, 0.064513, 0.284684, 0.115080, 0.139035)
    near(attended.weights[1], 0.113272, 0.331510, 0.061168, 0.427875, 0.066175)
    near((attended.weights @ head.bank.rows).norm(dim=1), 0.511819, 0.524313)
    near(attended.virtual, 0.569003, 0.694118, 0.293939, -0.328687, -0.665951, -0.415122, 0.149863, 0.601435)
    group = head(query)
    near(group, 0.639938, -0.479180, 0.515325, -0.308716, 0.043781, 0.046265, 0.786105, -0.614802)
    scores = torch.einsum("gd,gkd->gk", group, functional.normalize(candidates, dim=-1))
    near(scores, 0.159509, 0.367948, -0.012676, -0.194539, -0.284878, 0.122229)
    liked = torch.tensor([[9.0, 2, 1], [9.0, 2, 1]], dtype=torch.float64)
    rank = listwise(scores, liked, 1 / TAU, targets="best")
    assert rank.item() == pytest.approx(3.785227045341, abs=1e-10)

    total = 20 * match + rank
    assert total.item() == pytest.approx(351.803010716547, abs=1e-9)
    assert torch.autograd.grad(rank, images, retain_graph=True, allow_unused=True) == (None,)
    total.backward()
    norms = [x.grad.norm() for x in (topics, images, ranked, candidates, head.aggregate.weight) if x.grad is not None]
    near(torch.stack(norms), 72.136753, 71.150530, 1.473302, 8.868020, 61.024167)
    assert head.aggregate.bias.grad is not None
    near(head.aggregate.bias.grad, 20.621261, 22.728356, 15.653929, 23.147376)


def test_the_bank_is_a_ring_that_a_whole_batch_replaces() -> None:
    bank = MemoryBank(5, 2)
    rows = torch.arange(14.0).reshape(7, 2)
    bank.write(rows[:3], torch.arange(3), torch.arange(3))
    assert bank.valid.tolist() == [True, True, True, False, False]
    bank.write(rows[3:6], torch.arange(3, 6), torch.arange(3, 6))
    assert bank.topic.tolist() == [5, 1, 2, 3, 4]
    assert torch.equal(bank.rows[0], rows[5])
    bank.write(rows, torch.arange(7), torch.arange(7))
    assert sorted(bank.topic.tolist()) == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("reads", ["nothing", "mean", "attention"])
def test_masked_rows_count_for_nothing(reads: str) -> None:
    """Masking rows of the bank has the effect of removing them."""
    torch.manual_seed(0)
    config = GroupQueryConfig(reads=reads, residual=False, bank=9)  # type: ignore[arg-type]
    head = GroupQuery(config, 6).double()
    query = functional.normalize(torch.randn(2, 6, dtype=torch.float64), dim=1)
    if head.bank is None:
        torch.testing.assert_close(head(query), functional.normalize(head.aggregate(query), dim=1))
        return
    rows = functional.normalize(torch.randn(8, 6, dtype=torch.float64), dim=1)
    head.bank.double().write(rows, torch.tensor([0, 0, 1, 2, 3, 4, 5, 6]), torch.tensor([9, 8, 7, 6, 5, 4, 3, 2]))
    allowed = head.bank.open_to(torch.tensor([0, 7]), torch.tensor([[6, 100], [2, 3]]))
    assert allowed[:, :8].tolist() == [
        [False, False, True, False, True, True, True, True],
        [True, True, True, True, True, True, False, False],
    ]
    assert not allowed[:, 8].any()
    for g in range(2):
        if reads == "mean":
            virtual = rows[allowed[g, :8]].mean(0)
        else:
            seen = rows[allowed[g, :8]]
            virtual = torch.softmax(seen @ query[g] / head.temperature, 0) @ seen
        expected = head.aggregate(torch.cat([query[g], virtual / virtual.norm()]))
        torch.testing.assert_close(head(query, allowed)[g], expected / expected.norm())


def test_a_residual_query_starts_as_its_topic_and_an_empty_bank_harms_nothing() -> None:
    head = GroupQuery(GroupQueryConfig(reads="attention", bank=4), 6)
    query = functional.normalize(torch.randn(3, 6), dim=1)
    torch.testing.assert_close(head(query), query)


def test_attention_to_the_nearest_alone() -> None:
    bank = functional.normalize(torch.randn(7, 3, dtype=torch.float64), dim=1)
    query = functional.normalize(torch.randn(2, 3, dtype=torch.float64), dim=1)
    weights = attend(query, bank, torch.ones(2, 7, dtype=torch.bool), 0.1, nearest=3).weights
    assert (weights > 0).sum(1).tolist() == [3, 3]
    for row, scores in zip(weights, query @ bank.T, strict=True):
        best = scores.topk(3)
        torch.testing.assert_close(row[best.indices], (best.values / 0.1).softmax(0))


def test_listwise_targets() -> None:
    """Against explicit sums. Equally liked candidates share the target in any order."""
    generator = torch.Generator().manual_seed(1)
    scores = torch.rand(3, 4, dtype=torch.float64, generator=generator)
    liked = torch.tensor([[0.0, 2, 2, 1], [5, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.float64)
    total = {"best": 0.0, "soft": 0.0}
    for row, values in zip(scores.tolist(), liked.tolist(), strict=True):
        partition = math.log(sum(math.exp(3 * x) for x in row))
        best = [float(v == max(values)) for v in values]
        soft = [math.exp(v / 0.5) for v in values]
        for name, wanted in (("best", best), ("soft", soft)):
            total[name] += sum(w / sum(wanted) * (partition - 3 * x) for w, x in zip(wanted, row, strict=True)) / 3
    assert listwise(scores, liked, 3.0, targets="best").item() == pytest.approx(total["best"])
    assert listwise(scores, liked, 3.0, temperature=0.5).item() == pytest.approx(total["soft"])


def test_of_equally_near_rows_no_more_are_attended_to_than_asked() -> None:
    bank = functional.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [-1.0, 0.0]]), dim=1)
    query = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    allowed = torch.ones(3, 5, dtype=torch.bool)
    allowed[2, 1:] = False
    weights = attend(query, bank, allowed, 0.1, nearest=2).weights
    assert (weights > 0).sum(1).tolist() == [2, 2, 1]
    torch.testing.assert_close(weights[0], torch.tensor([0.0, 0.5, 0.5, 0.0, 0.0]))
