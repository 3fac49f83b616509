"""Hyperbolic space as the Poincaré ball {x : c |x|² < 1} of curvature -c, and as inner products (Lorentz lift).

Every function takes rows of float32 or float64 and keeps their type and device. Distances are Hyp-ViT's
(Ermolov et al. 2022), in the arsinh form, which needs one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from shoplens.errors import ShoplensError

RIM = 1 - 1e-3
"""Share of the ball's radius that points reach at most: nearer to the rim float32 loses 1 - c |x|²."""
_COINCIDE = 16
"""|x|² + |y|² - 2 x.y of equal rows is off by up to 6 roundings of |x|² + |y|² (seen at 2 to 1,024 dimensions)."""


def to_ball(vectors: Tensor, curvature: float, clip_radius: float | None = None) -> Tensor:
    """Rows [n, d] shortened to `clip_radius` at most, then mapped into the ball by the exponential map at 0, [n, d].

    tanh(√c |v|) v / (√c |v|) lies at the distance 2 |v| from the origin. None clips at the rim alone.
    Raises ShoplensError if the curvature or the radius is not positive.
    """
    root = math.sqrt(_positive("curvature", curvature))
    tiny = math.sqrt(torch.finfo(vectors.dtype).tiny)
    norm = torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp(min=tiny)
    return vectors * (torch.tanh(root * norm.clamp(max=_longest(curvature, clip_radius))) / (root * norm))


def clipped_share(vectors: Tensor, curvature: float, clip_radius: float | None = None) -> Tensor:
    """Scalar: the share of rows [n, d] that `to_ball` shortens.

    At 1 all points have one norm, and the ranking by distance is that by cosine.
    """
    norm = torch.linalg.vector_norm(vectors.detach(), dim=1)
    return (norm > _longest(curvature, clip_radius)).to(norm.dtype).mean()


def distances(x: Tensor, y: Tensor, curvature: float) -> Tensor:
    """Of the points x [n, d] to the points y [m, d] of the ball, [n, m], in O(n m) memory.

    d = 2/√c arsinh(√c |x - y| / √((1 - c |x|²) (1 - c |y|²))). Points whose difference is lost in the rounding of
    the matrix product, about 6e-8 of their norms in float64 and 1.4e-3 in float32, have distance and gradient 0.
    Raises ShoplensError if the curvature is not positive.
    """
    root = math.sqrt(_positive("curvature", curvature))
    of_x, of_y = x.square().sum(1)[:, None], y.square().sum(1)[None, :]
    apart = of_x + of_y - 2 * (x @ y.T)
    coincide = apart <= _COINCIDE * torch.finfo(x.dtype).eps * (of_x + of_y).detach()
    ratio = curvature * apart / ((1 - curvature * of_x) * (1 - curvature * of_y))
    return 2 / root * torch.asinh(ratio.masked_fill(coincide, 1).sqrt().masked_fill(coincide, 0))


def lift_queries(points: Tensor, curvature: float) -> Tensor:
    """Points [n, d] of the ball on the hyperboloid, (u, u0) [n, d + 1]; see `lift_items`."""
    root = math.sqrt(_positive("curvature", curvature))
    squared = curvature * points.square().sum(1, keepdim=True)
    return torch.cat([2 * root * points, 1 + squared], dim=1) / (1 - squared)


def lift_items(points: Tensor, curvature: float) -> Tensor:
    """Points [n, d] of the ball as (v, -v0) [n, d + 1], the mirror image of `lift_queries`.

    The inner product of a lifted query and a lifted item is -cosh(√c d), which falls with their distance d: a search
    for the largest inner products finds the nearest points. In float32 it is exact to about 1e-7 u0 v0.
    """
    lifted = lift_queries(points, curvature)
    return torch.cat([lifted[:, :-1], -lifted[:, -1:]], dim=1)


def distance_of_product(product: Tensor, curvature: float) -> Tensor:
    """The distances, of any shape, whose lifted inner products these are."""
    return torch.acosh((-product).clamp(min=1)) / math.sqrt(_positive("curvature", curvature))


def gromov_delta(distance: Tensor, bases: Iterable[int]) -> float:
    """How far a metric [n, n] is from that of a tree (0), as the largest delta of the base points.

    With w running over every point it is the four-point delta (Gromov 1987); one base gives at least half of that.
    n³ comparisons a base, 3 n² numbers of memory.
    """
    largest = distance.new_zeros(())
    best, room = torch.empty_like(distance), torch.empty_like(distance)
    for base in bases:
        to_base = distance[:, base]
        product = (to_base[:, None] + to_base[None, :] - distance) / 2
        best.fill_(-torch.inf)
        for through in product:
            torch.minimum(through[:, None], through[None, :], out=room)
            torch.maximum(best, room, out=best)
        largest = torch.maximum(largest, (best - product).max())
    return float(largest)


@torch.no_grad()
def relative_delta(vectors: Tensor, *, samples: int = 1000, bases: int = 4, seed: int = 0) -> float:
    """2 delta / diameter of vectors [n, d] under Euclidean distance: 0 for a tree, 1 at most (Khrulkov et al. 2020).

    Of at most `samples` different rows and `bases` base points, drawn by `seed`; 0 where all rows are equal.
    Raises ShoplensError if there are no rows, or they are not finite.
    """
    if not len(vectors) or not torch.isfinite(vectors).all():
        raise ShoplensError("hyperbolicity needs vectors, all of them finite: the training may have diverged")
    chosen = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(seed))[:samples]
    drawn = vectors[chosen.to(vectors.device)]
    distance = torch.cdist(drawn, drawn, compute_mode="donot_use_mm_for_euclid_dist")
    diameter = float(distance.max())
    return 2 * gromov_delta(distance, range(min(bases, len(drawn)))) / diameter if diameter else 0.0


def _longest(curvature: float, clip_radius: float | None) -> float:
    """The largest norm that a tangent vector keeps."""
    rim = math.atanh(RIM) / math.sqrt(_positive("curvature", curvature))
    return rim if clip_radius is None else min(_positive("clip radius", clip_radius), rim)


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ShoplensError(f"the {name} of hyperbolic space must be a positive number, not {value}")
    return value
