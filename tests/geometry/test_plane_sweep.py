"""Depth from known cameras: found on a drawn scene, unsure where nothing can be told, its fast parts checked."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from threer.geometry.plane_sweep import (
    Others,
    consistency,
    inverse_depths,
    matching_cost,
    plane_sweep,
    semi_global,
)
from threer.geometry.projection import rays

H, W = 48, 64
K = torch.tensor([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]])
NEAR, FAR = 1.5, 3.0
BLANK = slice(4, 16), slice(4, 20)


def texture(x: Tensor, y: Tensor) -> Tensor:
    """Grey values of a wall at (x, y), the same from everywhere."""
    waves = torch.zeros_like(x)
    generator = torch.Generator().manual_seed(2)
    for a, b, c in (18 * torch.rand(12, 3, generator=generator)).tolist():
        waves += torch.sin((a - 9) * 3 * x + (b - 9) * 3 * y + c)
    return 0.5 + 0.1 * waves


def shifted(offset: float, size: tuple[int, int] = (H, W)) -> tuple[Tensor, Tensor]:
    """Picture and depth from ``offset`` to the right: a near wall left of the middle, a far one behind it."""
    direction = rays(K, *size)
    near = direction * NEAR
    is_near = near[..., 0] + offset < 0
    depth = torch.where(is_near, NEAR, FAR)
    x, y = direction[..., 0] * depth + offset, direction[..., 1] * depth
    return texture(x, y), depth


def motion(offset: float) -> Tensor:
    out = torch.eye(4)
    out[0, 3] = -offset
    return out


OFFSETS = (-0.3, -0.15, 0.15, 0.3)


def sweep(grey: Tensor, others: list[Tensor], offsets: tuple[float, ...] = OFFSETS):
    padded = torch.zeros(len(others), max(o.shape[0] for o in others), max(o.shape[1] for o in others))
    for place, other in zip(padded, others, strict=True):
        place[: other.shape[0], : other.shape[1]] = other
    compared = Others(
        padded,
        K.expand(len(others), 3, 3),
        torch.tensor([o.shape for o in others]),
        torch.stack([motion(o) for o in offsets]),
    )
    return plane_sweep(grey, K, compared, inverse_depths(1.0, 5.0, 24))


def test_depth_of_two_walls_is_found_between_the_planes() -> None:
    grey, truth = shifted(0.0)
    found = sweep(grey, [shifted(o)[0] for o in OFFSETS])
    error = (found.depth - truth).abs() / truth
    step = float(inverse_depths(1.0, 5.0, 24)[1] - inverse_depths(1.0, 5.0, 24)[0])
    assert float(error.median()) < 0.25 * step * FAR  # planes alone would leave a quarter of a step on average
    sure = found.conf >= found.conf.quantile(0.2)
    assert float((error[sure] < 0.05).float().mean()) > 0.97
    assert float(error[sure].mean()) < 0.5 * float(error[~sure].mean())


def test_other_pictures_may_differ_in_size() -> None:
    grey, truth = shifted(0.0)
    others = [shifted(o)[0] for o in OFFSETS]
    others[1] = shifted(OFFSETS[1], (H - 10, W - 14))[0]  # cut at the right and the bottom: K stays
    found = sweep(grey, others)
    error = (found.depth - truth).abs() / truth
    assert float((error < 0.05).float().mean()) > 0.85


def test_what_shows_nothing_or_is_seen_by_nobody_has_no_confidence() -> None:
    grey, _ = shifted(0.0)
    blank = grey.clone()
    blank[BLANK] = 0.5
    found = sweep(blank, [shifted(o)[0] for o in OFFSETS])
    inner = found.conf[BLANK][4:-4, 4:-4]
    assert 0 < float(inner.max()) < 0.2 * float(found.conf.median())
    depth = found.depth[BLANK][4:-4, 4:-4]
    assert float((depth - NEAR).abs().max()) < 0.25 * NEAR  # continued from the wall around it
    away = sweep(grey, [grey, grey], (50.0, -50.0))
    assert float(away.conf.max()) == 0
    assert torch.isfinite(away.depth).all()


def test_cost_is_that_of_normalised_cross_correlation() -> None:
    grey, _ = shifted(0.0)
    other, _ = shifted(0.15)
    compared = Others(other[None], K[None], torch.tensor([[H, W]]), motion(0.15)[None])
    cost, seen = matching_cost(grey, K, compared, torch.tensor([1 / NEAR]))
    row, column = 30, 12
    shift = 60.0 * 0.15 / NEAR  # whole pixels, so that nothing is interpolated
    assert shift == pytest.approx(6.0)
    a = grey[row - 3 : row + 4, column - 3 : column + 4].flatten()
    b = other[row - 3 : row + 4, column - 9 : column - 2].flatten()
    plain = torch.corrcoef(torch.stack([a, b]))[0, 1]
    assert float(cost[0, row, column]) == pytest.approx(1 - float(plain), abs=1e-3)
    assert bool(seen[0, row, column])
    assert not bool(seen[0, row, 2])  # leaves the other picture at the left


def test_smoothing_equals_its_recursion_written_out() -> None:
    cost = torch.rand(5, 6, 7, generator=torch.Generator().manual_seed(1))
    small, large = 0.1, 0.5
    expected = torch.zeros_like(cost)
    for dy, dx in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        path = torch.zeros_like(cost)
        for y in range(6) if dy >= 0 else reversed(range(6)):
            for x in range(7) if dx >= 0 else reversed(range(7)):
                if not (0 <= y - dy < 6 and 0 <= x - dx < 7):
                    path[:, y, x] = cost[:, y, x]
                    continue
                before = path[:, y - dy, x - dx]
                for d in range(5):
                    ways = [float(before[d]), float(before.min()) + large]
                    ways += [float(before[e]) + small for e in (d - 1, d + 1) if 0 <= e < 5]
                    path[d, y, x] = cost[d, y, x] + min(ways) - float(before.min())
        expected += path / 4
    torch.testing.assert_close(semi_global(cost, small, large), expected)


def test_consistency_counts_agreement_and_lets_hidden_points_be() -> None:
    _, depth = shifted(0.0)
    others = torch.stack([shifted(o)[1] for o in (-0.15, 0.15)])
    motions = torch.stack([motion(o) for o in (-0.15, 0.15)])
    agreed = consistency(depth, K, others, K.expand(2, 3, 3), motions, 0.05)
    assert float((agreed == 1).float().mean()) > 0.9
    nearer = consistency(depth * 0.7, K, others, K.expand(2, 3, 3), motions, 0.05)
    assert float(nearer.mean()) < 0.05
    unknown = consistency(depth, K, torch.full_like(others, torch.nan), K.expand(2, 3, 3), motions, 0.05)
    assert float(unknown.max()) == 0


@pytest.mark.parametrize(
    ("near", "far", "planes"), [(0.0, 1.0, 8), (2.0, 1.0, 8), (1.0, float("inf"), 8), (1, 2, 2)]
)
def test_planes_need_a_range(near: float, far: float, planes: int) -> None:
    with pytest.raises(ValueError, match="need 0 < nearest < farthest"):
        inverse_depths(near, far, planes)


def test_running_sums_are_those_of_pooling() -> None:
    from threer.geometry.plane_sweep import _box

    images = torch.rand(2, 9, 11, generator=torch.Generator().manual_seed(0))
    pooled = F.avg_pool2d(images[:, None], 7, 1, 3, count_include_pad=False)[:, 0]
    torch.testing.assert_close(_box(images, 7), pooled)
