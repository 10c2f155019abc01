"""Frames as tiles of 8×8 pixels and back, and the rays that their pixels look along.

Rays come through the lens, as world directions with camera z = 1, so that the distance along them is z-depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from threer.geometry.lens import undistort

TILE = 8


@dataclass(frozen=True, eq=False)
class Views:
    """n frames that are rendered together: size (W, H), c2w [n, 4, 4], K [n, 3, 3], distortion [n, 2]."""

    size: tuple[int, int]
    c2w: Tensor
    K: Tensor
    distortion: Tensor

    def part(self, first: int, end: int) -> Views:
        """The frames ``first``..``end`` - 1."""
        return Views(self.size, self.c2w[first:end], self.K[first:end], self.distortion[first:end])

    def of_tiles(self, values: Tensor) -> Tensor:
        """What frames have [n, ...], for each of their tiles [n · tiles, ...]."""
        width, height = self.size
        return values.repeat_interleave((width // TILE) * (height // TILE), dim=0)

    def rays(self, offset: tuple[float, float] = (0.0, 0.0)) -> Tensor:
        """[n · tiles, TILE², 3] through all pixels, ``offset`` (x, y) pixels beside their centres."""
        width, height = self.size
        n, device = len(self.c2w), self.c2w.device
        fx, cx, fy, cy = (self.K[:, i, j].view(-1, 1, 1, 1, 1) for i, j in ((0, 0), (0, 2), (1, 1), (1, 2)))
        x = (torch.arange(width, device=device) + offset[0]).view(1, 1, width // TILE, 1, TILE) - cx
        y = (torch.arange(height, device=device) + offset[1]).view(1, height // TILE, 1, TILE, 1) - cy
        shape = (n, height // TILE, width // TILE, TILE, TILE)
        seen = torch.stack([(x / fx).expand(shape), (y / fy).expand(shape)], -1).view(n, -1, 2)
        if bool(self.distortion.any()):
            seen = undistort(seen, self.distortion)
        camera = torch.cat([seen, torch.ones_like(seen[..., :1])], -1)
        world = camera @ self.c2w[:, :3, :3].transpose(1, 2)
        return world.view(-1, TILE * TILE, 3)

    def rays_at(self, frame: Tensor, place: Tensor) -> Tensor:
        """[m, r, 3] through places [m, r, 2] (x, y) in pixels of the frames [m] int64."""
        K = self.K[frame].unsqueeze(1)
        seen = (place - K[..., :2, 2]) / K[..., [0, 1], [0, 1]]
        if bool(self.distortion.any()):
            seen = undistort(seen, self.distortion[frame])
        camera = torch.cat([seen, torch.ones_like(seen[..., :1])], -1)
        return camera @ self.c2w[frame, :3, :3].transpose(1, 2)


def to_frames(values: Tensor, size: tuple[int, int]) -> Tensor:
    """[n · tiles, TILE², c] -> [n, H, W, c]; also of smaller tiles, as of quads, in frames as much smaller."""
    side = int(values.shape[1] ** 0.5)
    width, height = (s // TILE * side for s in size)
    grid = values.view(-1, height // side, width // side, side, side, values.shape[-1])
    return grid.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, values.shape[-1])


def to_tiles(frames: Tensor) -> Tensor:
    """[n, H, W, c] -> [n · tiles, TILE², c]."""
    n, height, width, channels = frames.shape
    grid = frames.view(n, height // TILE, TILE, width // TILE, TILE, channels)
    return grid.permute(0, 1, 3, 2, 4, 5).reshape(-1, TILE * TILE, channels)
