"""Sizes and scales of pointmaps: what is masked plays no part, whatever it holds."""

from __future__ import annotations

import math

import pytest
import torch

from threer.geometry.gauge import Fit, Measure, best_scale, size_of
from threer.geometry.scale import SMALLEST_SCALE


def points() -> torch.Tensor:
    return 1 + torch.rand(2, 3, 4, 5, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("how", ["mean", "median", "sqrt", "log1p"])
def test_masked_points_play_no_part_in_the_size(how: Measure) -> None:
    xyz, masks = points(), torch.ones(2, 3, 4, 5, dtype=torch.bool)
    masks[..., 2:] = False
    expected = size_of(xyz[..., :2, :], None, how)
    xyz[..., 2:, :] = math.nan
    torch.testing.assert_close(size_of(xyz, masks, how), expected)
    nothing = size_of(xyz, torch.zeros_like(masks), how)
    torch.testing.assert_close(nothing, torch.full((2,), SMALLEST_SCALE))


@pytest.mark.parametrize("how", ["mean", "median", "weiszfeld"])
def test_masked_points_play_no_part_in_the_scale(how: Fit) -> None:
    source, masks = points(), torch.ones(2, 3, 4, 5, dtype=torch.bool)
    target = torch.tensor([2.0, 5.0])[:, None, None, None, None] * source
    masks[..., 2:] = False
    source[..., 2:, :] = math.nan
    target[..., 3:, :] = math.inf
    torch.testing.assert_close(best_scale(source, target, masks, how), torch.tensor([2.0, 5.0]))
