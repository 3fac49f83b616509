"""Hyperbolic distances against Möbius addition in float64, search against brute force, delta against its definition."""

from __future__ import annotations

import math
from itertools import combinations

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from shoplens.errors import ShoplensError
from shoplens.objectives import hyperbolic
from shoplens.objectives.hyperbolic import (
    clipped_share,
    distance_of_product,
    distances,
    gromov_delta,
    lift_items,
    lift_queries,
    relative_delta,
    to_ball,
)

CURVATURES = (0.01, 0.1, 1.0)


def random_rows(n: int, d: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random rows with norms around Hyp-ViT's clip radius, 2.3."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, dtype=torch.float64, generator=generator).mul_(2.3 / math.sqrt(d)).to(dtype)


def exponential(v: Tensor, c: float, r: float | None) -> Tensor:
    """The exponential map by its formula, row by row."""
    longest = min(r or math.inf, math.atanh(hyperbolic.RIM) / math.sqrt(c))
    points = []
    for row in v:
        if row.norm() > longest:
            row = row * (longest / row.norm())
        norm = row.norm()
        points.append(torch.tanh(math.sqrt(c) * norm) * row / (math.sqrt(c) * norm))
    return torch.stack(points)


def moebius(x: Tensor, y: Tensor, c: float) -> Tensor:
    """(2/√c) artanh(√c |(-x) ⊕ y|) of points x [n, d] and y [m, d], by an n x m x d tensor."""
    x, y = -x[:, None, :], y[None, :, :]
    xy, xx, yy = (x * y).sum(-1, keepdim=True), (x * x).sum(-1, keepdim=True), (y * y).sum(-1, keepdim=True)
    added = ((1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y) / (1 + 2 * c * xy + c * c * xx * yy)
    return 2 / math.sqrt(c) * torch.atanh(math.sqrt(c) * added.norm(dim=-1))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 9),
    m=st.integers(1, 11),
    d=st.integers(1, 20),
    c=st.sampled_from(CURVATURES),
    r=st.sampled_from([None, 0.5, 2.3]),
    seed=st.integers(0, 2**31),
)
def test_distances_and_gradients_are_those_of_moebius_addition(
    n: int, m: int, d: int, c: float, r: float | None, seed: int
) -> None:
    x, y = random_rows(n, d, seed).requires_grad_(), random_rows(m, d, seed + 1).requires_grad_()
    ours = distances(to_ball(x, c, r), to_ball(y, c, r), c)
    theirs = moebius(exponential(x, c, r), exponential(y, c, r), c)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    weights = torch.randn(n, m, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    for mine, other in zip(
        torch.autograd.grad((ours * weights).sum(), (x, y)),
        torch.autograd.grad((theirs * weights).sum(), (x, y)),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(
    c=st.sampled_from(CURVATURES),
    r=st.sampled_from([None, 0.5, 2.3]),
    longest=st.sampled_from([1e-30, 1e-3, 1.0, 1e3, 1e6]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 2**31),
)
def test_points_that_coincide_lie_at_the_origin_or_at_the_rim_have_finite_distances_and_gradients(
    c: float, r: float | None, longest: float, dtype: torch.dtype, seed: int
) -> None:
    rows = longest * random_rows(6, 7, seed, dtype)
    rows = torch.cat([rows, rows[:2], torch.zeros(2, 7, dtype=dtype)]).requires_grad_()
    points = to_ball(rows, c, r)
    found = distances(points, points, c)
    assert found.dtype == points.dtype == dtype
    assert (c * points.square().sum(1) < 1).all()
    for i, j in [(0, 0), (0, 6), (7, 1), (8, 9)]:
        assert found[i, j] == 0
    assert found.isfinite().all()
    (gradient,) = torch.autograd.grad(found.sum(), rows, retain_graph=True)
    assert gradient.isfinite().all()
    (of_equal,) = torch.autograd.grad(distances(points, points, c).diagonal().sum(), rows)
    assert (of_equal == 0).all()


@pytest.mark.parametrize("c", CURVATURES)
def test_float32_is_close_to_float64(c: float) -> None:
    rows = random_rows(300, 128, 3)
    exact = distances(to_ball(rows, c, 2.3), to_ball(rows, c, 2.3), c)
    single = distances(to_ball(rows.float(), c, 2.3), to_ball(rows.float(), c, 2.3), c)
    torch.testing.assert_close(single.double(), exact, rtol=1e-5, atol=0)


def test_with_the_published_settings_points_lie_within_0_62_of_the_ball() -> None:
    points = to_ball(100 * random_rows(500, 16, 0), 0.1, 2.3)
    assert points.norm(dim=1).max().item() == pytest.approx(1.965, abs=1e-3)
    assert points.norm(dim=1).max().item() * math.sqrt(0.1) == pytest.approx(0.6215, abs=1e-4)
    assert distances(points, torch.zeros(1, 16, dtype=torch.float64), 0.1).max().item() == pytest.approx(4.6)


@pytest.mark.parametrize("c", CURVATURES)
def test_the_exponential_map_keeps_twice_the_norm_as_distance_to_the_origin(c: float) -> None:
    v = random_rows(50, 8, 1) / 2
    from_origin = distances(to_ball(v, c), torch.zeros(1, 8, dtype=torch.float64), c)[:, 0]
    torch.testing.assert_close(from_origin, 2 * v.norm(dim=1), rtol=1e-10, atol=1e-10)


def test_flat_space_is_the_limit_of_small_curvature() -> None:
    v = random_rows(20, 5, 2)
    points = to_ball(v, 1e-9)
    torch.testing.assert_close(distances(points, points, 1e-9), 2 * torch.cdist(v, v), rtol=1e-6, atol=1e-6)


def test_where_every_row_is_clipped_hyperbolic_ranking_is_cosine_ranking() -> None:
    v = 10 * random_rows(200, 12, 4)
    assert clipped_share(v, 0.1, 2.3) == 1
    points, unit = to_ball(v, 0.1, 2.3), v / v.norm(dim=1, keepdim=True)
    near, cosine = distances(points, points, 0.1), unit @ unit.T
    others = ~torch.eye(200, dtype=torch.bool)
    assert torch.equal(
        near[others].view(200, -1).argsort(stable=True), (-cosine[others]).view(200, -1).argsort(stable=True)
    )


def test_clipped_share_counts_what_the_radius_or_the_rim_shortens() -> None:
    v = torch.tensor([[0.0, 0.0], [2.2, 0.0], [0.0, 2.4], [30.0, 0.0]])
    assert clipped_share(v, 0.1, 2.3) == 0.5
    assert clipped_share(v, 0.1) == 0.25
    torch.testing.assert_close(to_ball(v, 0.1)[3].norm(), torch.tensor(hyperbolic.RIM * 10**0.5))


@pytest.mark.parametrize("c", CURVATURES)
@pytest.mark.parametrize("r", [None, 2.3])
def test_faiss_finds_the_hyperbolic_neighbours_of_brute_force(c: float, r: float | None) -> None:
    """10,000 points, some of them clipped. Lists may differ only if float64 distances agree to 1e-6."""
    items, asked = to_ball(random_rows(10_000, 24, 5), c, r), to_ball(random_rows(60, 24, 6), c, r)
    exact = torch.cat([moebius(part, items, c) for part in asked.split(6)]).numpy()
    index = faiss.IndexFlatIP(25)
    index.add(lift_items(items, c).float().numpy())
    products, found = index.search(lift_queries(asked, c).float().numpy(), 50)
    nearest = np.argsort(exact, axis=1)[:, :50]
    reached, best = (np.take_along_axis(exact, ids, axis=1) for ids in (found, nearest))
    np.testing.assert_allclose(reached, best, rtol=1e-6)
    assert (found == nearest).mean() > 0.99
    np.testing.assert_allclose(distance_of_product(torch.from_numpy(products), c).numpy(), best, rtol=1e-4)


@pytest.mark.parametrize("c", CURVATURES)
def test_lifted_inner_products_are_distances_in_float64(c: float) -> None:
    x, y = to_ball(random_rows(30, 9, 7), c, 2.3), to_ball(random_rows(40, 9, 8), c, 2.3)
    product = lift_queries(x, c) @ lift_items(y, c).T
    torch.testing.assert_close(distance_of_product(product, c), moebius(x, y, c), rtol=1e-10, atol=1e-10)
    to_itself = (lift_queries(x, c) * lift_items(x, c)).sum(1)
    torch.testing.assert_close(to_itself, -torch.ones(30, dtype=torch.float64))
    assert distance_of_product(to_itself, c).max() < 1e-5


@pytest.mark.parametrize(("c", "r"), [(0.0, 2.3), (-1.0, None), (math.nan, 2.3), (0.1, 0.0), (0.1, -2.0)])
def test_spaces_that_are_none_are_refused(c: float, r: float | None) -> None:
    """A radius of 0 would map every row to the origin; None means no clipping."""
    with pytest.raises(ShoplensError, match="must be a positive number"):
        to_ball(torch.ones(2, 2), c, r)


def four_point_delta(d: Tensor) -> float:
    """Half the gap between the two largest sums of opposite sides, maximised over all quadruples."""
    worst = 0.0
    for x, y, z, w in combinations(range(len(d)), 4):
        sums = sorted(float(s) for s in (d[x, y] + d[z, w], d[x, z] + d[y, w], d[x, w] + d[y, z]))
        worst = max(worst, (sums[2] - sums[1]) / 2)
    return worst


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 11), d=st.integers(1, 5), seed=st.integers(0, 2**31))
def test_delta_over_all_bases_is_that_of_all_quadruples_and_one_base_gives_half_of_it(
    n: int, d: int, seed: int
) -> None:
    points = random_rows(n, d, seed)
    metric = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    expected = four_point_delta(metric)
    assert gromov_delta(metric, range(n)) == pytest.approx(expected, abs=1e-12)
    assert expected / 2 - 1e-12 <= gromov_delta(metric, [0]) <= expected + 1e-12
    diameter = float(metric.max())
    relative = relative_delta(points, samples=n, bases=n, seed=seed)
    assert relative == pytest.approx(2 * expected / diameter if diameter else 0, abs=1e-12)
    assert 0 <= relative <= 1


@settings(max_examples=25, deadline=None)
@given(parents=st.lists(st.floats(0, 1), min_size=1, max_size=40), seed=st.integers(0, 2**31))
def test_delta_of_a_tree_is_zero(parents: list[float], seed: int) -> None:
    """Node i has an earlier node as its parent, at a random edge length."""
    length = np.random.default_rng(seed).exponential(size=len(parents))
    d = np.zeros((len(parents) + 1, len(parents) + 1))
    for node, draw in enumerate(parents, start=1):
        d[node, :node] = d[int(draw * (node - 1)), :node] + length[node - 1]
        d[:node, node] = d[node, :node]
    assert gromov_delta(torch.from_numpy(d), range(len(d))) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("c", CURVATURES)
def test_delta_of_the_hyperbolic_plane_is_log_2_over_the_root_of_its_curvature(c: float) -> None:
    """Reached by four points at right angles far from the origin."""
    generator = torch.Generator().manual_seed(0)
    plane = to_ball(5 / math.sqrt(c) * torch.randn(150, 2, dtype=torch.float64, generator=generator), c)
    most = math.log(2) / math.sqrt(c)
    assert gromov_delta(distances(plane, plane, c), range(0, 150, 10)) <= most
    far = 1e3 * torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]], dtype=torch.float64)
    corners = to_ball(far, c)
    assert gromov_delta(distances(corners, corners, c), [0]) == pytest.approx(most, rel=1e-3)


def test_relative_delta_of_a_square_a_line_and_a_point() -> None:
    square = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    assert relative_delta(square) == pytest.approx(2 * (math.sqrt(2) - 1) / math.sqrt(2))
    assert relative_delta(torch.arange(50.0)[:, None]) == 0
    assert relative_delta(torch.ones(9, 3)) == 0


def test_relative_delta_is_drawn_by_its_seed_and_refuses_what_is_not_finite() -> None:
    rows = random_rows(400, 6, 9)
    assert relative_delta(rows, samples=40, seed=1) == relative_delta(rows, samples=40, seed=1)
    assert relative_delta(rows, samples=40, seed=1) != relative_delta(rows, samples=40, seed=2)
    with pytest.raises(ShoplensError, match="finite"):
        relative_delta(torch.full((5, 2), torch.nan))
    with pytest.raises(ShoplensError, match="finite"):
        relative_delta(torch.empty(0, 2))
