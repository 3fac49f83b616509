"""Hyperbolic geometry: the Poincaré ball {x : c |x|² < 1} of curvature -c, and its lift to inner products.

Every function takes float32 or float64 rows and keeps their type and device. Distances are those of Hyp-ViT
(Ermolov et al. 2022) in the arsinh form, which needs one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from shoplens.errors import ShoplensError

RIM = 1 - 1e-3
"""Largest norm of a point, as a share of the ball's radius. Nearer to the rim, float32 cannot represent 1 - c |x|²."""
_COINCIDE = 16
"""Tolerance, in roundings of |x|² + |y|², below which two points coincide.

For equal rows, |x|² + |y|² - 2 x.y was off by up to 6 roundings (measured at 2 to 1,024 dimensions)."""


def to_ball(vectors: Tensor, curvature: float, clip_radius: float | None = None) -> Tensor:
    """Maps rows [n, d] into the ball by the exponential map at 0, after clipping their norm to `clip_radius`.

    The point tanh(√c |v|) v / (√c |v|) has the distance 2 |v| to the origin. `clip_radius=None` clips at the rim only.
    Raises ShoplensError if the curvature or the radius is not positive.
    """
    root = math.sqrt(_positive("curvature", curvature))
    tiny = math.sqrt(torch.finfo(vectors.dtype).tiny)
    norm = torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp(min=tiny)
    return vectors * (torch.tanh(root * norm.clamp(max=_longest(curvature, clip_radius))) / (root * norm))


def clipped_share(vectors: Tensor, curvature: float, clip_radius: float | None = None) -> Tensor:
    """Share of rows [n, d] that `to_ball` clips, a scalar.

    If it is 1, all points have the same norm, and ranking by distance equals ranking by cosine.
    """
    norm = torch.linalg.vector_norm(vectors.detach(), dim=1)
    return (norm > _longest(curvature, clip_radius)).to(norm.dtype).mean()


def distances(x: Tensor, y: Tensor, curvature: float) -> Tensor:
    """Distances [n, m] between points x [n, d] and y [m, d] of the ball, in O(n m) memory.

    d = 2/√c arsinh(√c |x - y| / √((1 - c |x|²) (1 - c |y|²))). Rounding in the matrix product hides differences
    below about 6e-8 of the norms in float64 and 1.4e-3 in float32. Such pairs have distance 0 and gradient 0.
    Raises ShoplensError if the curvature is not positive.
    """
    root = math.sqrt(_positive("curvature", curvature))
    of_x, of_y = x.square().sum(1)[:, None], y.square().sum(1)[None, :]
    squared = of_x + of_y - 2 * (x @ y.T)
    coincide = squared <= _COINCIDE * torch.finfo(x.dtype).eps * (of_x + of_y).detach()
    ratio = curvature * squared / ((1 - curvature * of_x) * (1 - curvature * of_y))
    return 2 / root * torch.asinh(ratio.masked_fill(coincide, 1).sqrt().masked_fill(coincide, 0))


def lift_queries(points: Tensor, curvature: float) -> Tensor:
    """Lifts points [n, d] of the ball to the hyperboloid, (u, u0) [n, d + 1]; see `lift_items`."""
    root = math.sqrt(_positive("curvature", curvature))
    squared = curvature * points.square().sum(1, keepdim=True)
    return torch.cat([2 * root * points, 1 + squared], dim=1) / (1 - squared)


def lift_items(points: Tensor, curvature: float) -> Tensor:
    """Lifts points [n, d] of the ball to (v, -v0) [n, d + 1]: `lift_queries` with its last number negated.

    The inner product of a lifted query and a lifted item is -cosh(√c d), which decreases with their distance d.
    So a maximum inner product search returns the nearest points. In float32 its error is about 1e-7 u0 v0.
    """
    lifted = lift_queries(points, curvature)
    return torch.cat([lifted[:, :-1], -lifted[:, -1:]], dim=1)


def distance_of_product(product: Tensor, curvature: float) -> Tensor:
    """Distances from lifted inner products -cosh(√c d), of any shape."""
    return torch.acosh((-product).clamp(min=1)) / math.sqrt(_positive("curvature", curvature))


def gromov_delta(distance: Tensor, bases: Iterable[int]) -> float:
    """Gromov's delta of a metric [n, n]: 0 for a tree metric. The maximum over the given base points.

    With every point as a base it is the four-point delta (Gromov 1987). One base gives at least half of that.
    Each base takes n³ comparisons; memory is 3 n² numbers.
    """
    largest = distance.new_zeros(())
    best, buffer = torch.empty_like(distance), torch.empty_like(distance)
    for base in bases:
        to_base = distance[:, base]
        product = (to_base[:, None] + to_base[None, :] - distance) / 2
        best.fill_(-torch.inf)
        for through in product:
            torch.minimum(through[:, None], through[None, :], out=buffer)
            torch.maximum(best, buffer, out=best)
        largest = torch.maximum(largest, (best - product).max())
    return float(largest)


@torch.no_grad()
def relative_delta(vectors: Tensor, *, samples: int = 1000, bases: int = 4, seed: int = 0) -> float:
    """Relative delta of vectors [n, d]: 2 delta / diameter under Euclidean distance (Khrulkov et al. 2020).

    It lies between 0 (a tree) and 1. `seed` draws at most `samples` rows and `bases` base points among them.
    The result is 0 if all rows are equal.
    Raises ShoplensError if there are no rows, or they are not finite.
    """
    if not len(vectors) or not torch.isfinite(vectors).all():
        raise ShoplensError("hyperbolicity needs at least one vector, all finite: the training may have diverged")
    chosen = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(seed))[:samples]
    drawn = vectors[chosen.to(vectors.device)]
    distance = torch.cdist(drawn, drawn, compute_mode="donot_use_mm_for_euclid_dist")
    diameter = float(distance.max())
    return 2 * gromov_delta(distance, range(min(bases, len(drawn)))) / diameter if diameter else 0.0


def _longest(curvature: float, clip_radius: float | None) -> float:
    """The norm above which a tangent vector is clipped."""
    rim = math.atanh(RIM) / math.sqrt(_positive("curvature", curvature))
    return rim if clip_radius is None else min(_positive("clip radius", clip_radius), rim)


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ShoplensError(f"the {name} of hyperbolic space must be a positive number, not {value}")
    return value
