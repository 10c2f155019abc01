"""Depth of one picture from others with known cameras: plane sweep, semi-global smoothing, mutual check.

Collins 1996 (the sweep), Hirschmüller 2008 (the smoothing along scan lines). Grey pictures, any device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from threer.geometry.projection import rays

FLAT = 1e-4
"""Variance of grey values (0..1) in a window below which nothing can be compared."""
SMALL_STEP, LARGE_STEP = 0.1, 0.5
"""Penalties of the smoothing for a change by one plane and by more, in units of the cost (0 to 2)."""
MEDIAN = 5
SURE = 0.05
"""Depths of less confidence give way to what is around them."""
LEAST = 0.02
"""Keeps order among pixels of which one part of the confidence says nothing."""


@dataclass(frozen=True, eq=False)
class Others:
    """Pictures that one is compared with.

    grey     [N, h, w] 0..1, padded to one size at the right and the bottom
    K        [N, 3, 3]
    sizes    [N, 2] their own (h, w)
    motions  [N, 4, 4] from the frame of that one's camera to theirs
    """

    grey: Tensor
    K: Tensor
    sizes: Tensor
    motions: Tensor


@dataclass(frozen=True, eq=False)
class Swept:
    """depth [H, W], and confidence [H, W] 0..1, 0 where no other picture looked."""

    depth: Tensor
    conf: Tensor


def inverse_depths(nearest: float, farthest: float, planes: int, *, device: torch.device | None = None) -> Tensor:
    """[D] evenly spaced from 1 / farthest to 1 / nearest. Raises ValueError for an empty range."""
    if not 0 < nearest < farthest < math.inf or planes < 3:
        raise ValueError(f"need 0 < nearest < farthest and 3 planes, got {nearest}, {farthest}, {planes}")
    return torch.linspace(1 / farthest, 1 / nearest, planes, device=device)


def plane_sweep(grey: Tensor, K: Tensor, others: Others, inverse: Tensor, *, window: int = 7) -> Swept:
    """Depth of a picture by comparing it with others at every plane of equal depth.

    grey     [H, W] 0..1
    K        [3, 3] of it
    inverse  [D] inverse depths of the planes, evenly spaced
    window   side of the square that is compared by normalised cross-correlation

    At each pixel the better half of the pictures counts: the others may be hidden there. The result lies between
    planes; the confidence is how much better it is than what else was possible, times how well the pictures agree.
    """
    cost, seen = matching_cost(grey, K, others, inverse, window=window)
    smooth = semi_global(cost)
    best = smooth.argmin(dim=0)
    step = float(inverse[1] - inverse[0])
    found = _median(inverse[best] + step * _between_planes(smooth, best))
    photo = (1 - cost.gather(0, best[None])[0]).clamp(0, 1)
    conf = (_margin(smooth, best) + LEAST) * (photo + LEAST) * seen.any(dim=0) / (1 + LEAST) ** 2
    return Swept(1 / filled(found, (conf / SURE).clamp(LEAST**2, 1)), conf)


def matching_cost(
    grey: Tensor, K: Tensor, others: Others, inverse: Tensor, *, window: int = 7
) -> tuple[Tensor, Tensor]:
    """Cost [D, H, W], 0 (the same) over 1 (nothing to compare) to 2; and [D, H, W] whether anybody looked there."""
    count = len(others.grey)
    half = (count + 1) // 2
    directions = rays(K, *grey.shape)  # [H, W, 3]
    turned = torch.einsum("nij,hwj->nhwi", others.K @ others.motions[:, :3, :3], directions)
    moved = (others.K @ others.motions[:, :3, 3:])[:, None, None, :, 0]  # [N, 1, 1, 3]
    last = torch.tensor([others.grey.shape[2] - 1, others.grey.shape[1] - 1], device=grey.device)
    inside = others.sizes.flip(1)[:, None, None] - 1  # [N, 1, 1, 2] (x, y)
    mean, square = _box(grey[None], window), _box(grey[None].square(), window)
    own_spread = (square - mean.square()).clamp(min=0)
    costs, seen = [], []
    for value in inverse:
        point = turned + value * moved
        pixel = point[..., :2] / point[..., 2:]
        valid = (point[..., 2] > 0) & ((pixel >= 0) & (pixel <= inside)).all(dim=-1)
        at = torch.where(valid[..., None], 2 * pixel / last - 1, 2.0)
        warped = F.grid_sample(others.grey[:, None], at, align_corners=True)[:, 0]  # [N, H, W]
        stacked = _box(torch.cat([warped, warped.square(), warped * grey]), window)
        warped_mean, warped_square, product = torch.tensor_split(stacked, 3)
        spread = (warped_square - warped_mean.square()).clamp(min=0)
        comparable = valid & (own_spread > FLAT) & (spread > FLAT)
        likeness = (product - warped_mean * mean) / (own_spread * spread).clamp(min=FLAT**2).sqrt()
        likeness = torch.where(comparable, likeness, -2.0)
        ranked = likeness.topk(half, dim=0).values
        counted = ranked >= -1.5
        number = counted.sum(dim=0)
        agreed = (ranked * counted).sum(dim=0) / number.clamp(min=1)
        costs.append(1 - agreed)
        seen.append(valid.any(dim=0))
    return torch.stack(costs), torch.stack(seen)


def filled(values: Tensor, weight: Tensor) -> Tensor:
    """[H, W] with values of little weight (0..1) replaced by what is around: push and pull (Gortler et al. 1996).

    On inverse depths this continues planes, which is what surfaces without texture mostly are.
    """
    height, width = values.shape
    total = F.avg_pool2d(torch.stack([weight * values, weight]), 2, ceil_mode=True, count_include_pad=False)
    coarse, mass = total[0] / total[1].clamp(min=1e-8), total[1]
    if max(height, width) > 2:
        coarse = filled(coarse, (4 * mass).clamp(max=1))
    around = F.interpolate(coarse[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]
    return weight * values + (1 - weight) * around


def semi_global(cost: Tensor, small: float = SMALL_STEP, large: float = LARGE_STEP) -> Tensor:
    """Cost volume [D, H, W] with jumps between neighbours along rows and columns, both ways, made expensive."""
    by_row = cost.permute(1, 2, 0).contiguous()  # [H, W, D]
    by_column = cost.permute(2, 1, 0).contiguous()  # [W, H, D]
    vertical = _scan(by_row, small, large) + _scan(by_row.flip(0), small, large).flip(0)
    horizontal = _scan(by_column, small, large) + _scan(by_column.flip(0), small, large).flip(0)
    return (vertical.permute(2, 0, 1) + horizontal.permute(2, 1, 0)) / 4


def consistency(
    depth: Tensor, K: Tensor, others: Tensor, others_K: Tensor, motions: Tensor, tolerance: float
) -> Tensor:
    """[H, W] 0..1: of the other depth maps [N, h, w] that see a point, the share that has it at the same depth.

    A point nearer than what another picture sees there contradicts it; one that is hidden behind it does not count.
    NaN in ``others`` is where they have no depth. 0 where nobody sees the point.
    """
    points = rays(K, *depth.shape) * depth[..., None]
    moved = torch.einsum("nij,hwj->nhwi", motions[:, :3, :3], points) + motions[:, None, None, :3, 3]
    pixel = torch.einsum("nij,nhwj->nhwi", others_K, moved)
    z = moved[..., 2]
    pixel = pixel[..., :2] / pixel[..., 2:]
    last = torch.tensor([others.shape[2] - 1, others.shape[1] - 1], device=depth.device)
    valid = (z > 0) & ((pixel >= 0) & (pixel <= last)).all(dim=-1)
    at = torch.where(valid[..., None], 2 * pixel / last - 1, 2.0)
    there = F.grid_sample(others[:, None], at, mode="nearest", align_corners=True)[:, 0]
    compared = valid & torch.isfinite(there) & (there > 0) & (z < there * (1 + tolerance))
    agree = compared & (z > there * (1 - tolerance))
    return agree.sum(dim=0) / compared.sum(dim=0).clamp(min=1)


def _scan(cost: Tensor, small: float, large: float) -> Tensor:
    """The recursion of semi-global matching along the first dimension of [L, M, D]."""
    out = torch.empty_like(cost)
    before = cost[0]
    out[0] = before
    for i in range(1, len(cost)):
        least = before.amin(dim=1, keepdim=True)
        near = F.max_pool1d(-before[:, None], 3, 1, 1)[:, 0].neg() + small
        before = cost[i] + torch.minimum(torch.minimum(before, near), least + large) - least
        out[i] = before
    return out


def _between_planes(cost: Tensor, best: Tensor) -> Tensor:
    """[H, W] offset -½..½ of the vertex of the parabola through the best plane and those beside it."""
    middle = best.clamp(1, len(cost) - 2)
    below, at, above = (cost.gather(0, (middle + k)[None])[0] for k in (-1, 0, 1))
    offset = (below - above) / (2 * (below - 2 * at + above).clamp(min=1e-6))
    return torch.where(middle == best, offset.clamp(-0.5, 0.5), 0.0)


def _margin(cost: Tensor, best: Tensor) -> Tensor:
    """[H, W] 0..1: how much better the best plane is than the best one elsewhere."""
    planes = torch.arange(len(cost), device=cost.device)[:, None, None]
    elsewhere = torch.where((planes - best).abs() > 2, cost, torch.inf).amin(dim=0)
    lowest = cost.gather(0, best[None])[0]
    return ((elsewhere - lowest) / elsewhere.clamp(min=1e-6)).clamp(0, 1)


def _box(images: Tensor, window: int) -> Tensor:
    """Means [N, H, W] over a square window; at the border, over what is inside."""
    half = window // 2
    sums = _running_sum(_running_sum(F.pad(images, (half,) * 4), window, 1), window, 2)
    inside = F.pad(torch.ones_like(images[:1]), (half,) * 4)
    return sums / _running_sum(_running_sum(inside, window, 1), window, 2)


def _running_sum(values: Tensor, window: int, dim: int) -> Tensor:
    """Sums of ``window`` neighbours along ``dim``, by doubling: several times faster than pooling on a CPU."""
    length = values.shape[dim] - window + 1
    total, begin, width = torch.zeros_like(values.narrow(dim, 0, length)), 0, 1
    while width <= window:
        if window & width:
            total += values.narrow(dim, begin, length)
            begin += width
        rest = values.shape[dim] - width
        values = values.narrow(dim, 0, rest) + values.narrow(dim, width, rest)
        width *= 2
    return total


def _median(image: Tensor) -> Tensor:
    padded = F.pad(image[None, None], (MEDIAN // 2,) * 4, mode="replicate")
    return F.unfold(padded, MEDIAN)[0].median(dim=0).values.reshape(image.shape)
