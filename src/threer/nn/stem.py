"""A convolutional stem: what small vision transformers learn faster with (Xiao et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions behind a norm over the channels of each pixel group, added to the input."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, dim)
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(F.gelu(self.conv1(self.norm(x))))
        return out


class ConvStem(nn.Module):
    """Images [B, channels, H, W] to what is added to the projections of their 16×16 patches, [B, dim, H/16, W/16].

    Four stages, each halving the resolution, of the given widths; a residual block in all but the first, two in the
    last two. ``gain`` starts at zero, so weights trained without a stem go on where they were.
    """

    def __init__(self, dim: int, widths: Sequence[int], channels: int = 3) -> None:
        super().__init__()
        if len(widths) != 4:
            raise ValueError(f"a stem has four widths, one for each halving, got {list(widths)}")
        stages: list[nn.Module] = []
        before = channels
        for width, blocks in zip(widths, (0, 1, 2, 2), strict=True):
            stages.append(nn.Conv2d(before, width, 3, stride=2, padding=1))
            stages += [ResidualBlock(width) for _ in range(blocks)] or [nn.GELU()]
            before = width
        self.stages = nn.Sequential(*stages)
        self.norm = nn.GroupNorm(1, before)
        self.out = nn.Conv2d(before, dim, 1)
        self.gain = nn.Parameter(torch.zeros(dim, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.out(self.norm(self.stages(images.contiguous(memory_format=torch.channels_last))))
        return features * self.gain
