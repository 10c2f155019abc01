"""Dense prediction head (Ranftl et al., "Vision Transformers for Dense Prediction", section 3), as in DUSt3R."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from threer.nn.encoder import PATCH


@dataclass(frozen=True)
class DPTDims:
    """Widths: of the fusion path, of the last convolutions, of the four reassembled levels (fine to coarse)."""

    feature: int = 256
    last: int = 128
    layers: tuple[int, int, int, int] = (96, 192, 384, 768)


def dpt_taps(depth: int) -> tuple[int, int, int, int]:
    """Which layers a DPT head reads in a decoder of ``depth`` layers; 0 is the encoder's output."""
    return 0, depth // 2, 3 * depth // 4, depth


def upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class ResidualUnit(nn.Module):
    """Two 3×3 convolutions, each behind a ReLU, added to the unrectified input."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(F.relu(self.conv1(F.relu(x))))
        return out


class Fusion(nn.Module):
    """Adds a lateral level to the coarser path, refines, doubles the resolution. The coarsest has no lateral."""

    def __init__(self, dim: int, lateral: bool) -> None:
        super().__init__()
        self.lateral = ResidualUnit(dim) if lateral else None
        self.refine = ResidualUnit(dim)
        self.out = nn.Conv2d(dim, dim, 1)

    def forward(self, path: Tensor, level: Tensor | None = None) -> Tensor:
        if self.lateral is not None and level is not None:
            path = path + self.lateral(level)
        fused: Tensor = self.out(upsample(self.refine(path)))
        return fused


class DPTHead(nn.Module):
    """Tokens of four depths to a raw map with ``channels`` channels at full resolution."""

    def __init__(self, tap_dims: Sequence[int], channels: int = 4, dims: DPTDims | None = None) -> None:
        super().__init__()
        dims = dims or DPTDims()
        widths = dims.layers
        self.project = nn.ModuleList(nn.Conv2d(c, w, 1) for c, w in zip(tap_dims, widths, strict=True))
        self.resize = nn.ModuleList(
            (
                nn.ConvTranspose2d(widths[0], widths[0], 4, stride=4),
                nn.ConvTranspose2d(widths[1], widths[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(widths[3], widths[3], 3, stride=2, padding=1),
            )
        )
        self.level = nn.ModuleList(nn.Conv2d(w, dims.feature, 3, padding=1, bias=False) for w in widths)
        self.fuse = nn.ModuleList(Fusion(dims.feature, lateral=k < 3) for k in range(4))
        self.narrow = nn.Conv2d(dims.feature, dims.last, 3, padding=1)
        self.smooth = nn.Conv2d(dims.last, dims.last, 3, padding=1)
        self.out = nn.Conv2d(dims.last, channels, 1)

    def forward(self, taps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Four token lists [B, N, C_k] (see `dpt_taps`) -> raw [B, channels, H, W], ``size`` being (H, W)."""
        grid = (size[0] // PATCH, size[1] // PATCH)
        levels = [
            level(resize(project(torch.unflatten(tokens.transpose(1, 2), 2, grid))))
            for tokens, project, resize, level in zip(taps, self.project, self.resize, self.level, strict=True)
        ]  # fine to coarse: [B, feature, 4h, 4w], 2h, h, ⌈h/2⌉
        path = self.fuse[3](levels[3])
        path = path[..., : grid[0], : grid[1]]  # an odd grid was rounded up on the way down
        for k in (2, 1, 0):
            path = self.fuse[k](path, levels[k])
        out: Tensor = self.out(F.relu(self.smooth(upsample(self.narrow(path)))))
        return out
