"""Heads that turn decoder tokens into pointmaps (DUSt3R, section 3.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from threer.nn.blocks import MLP
from threer.nn.encoder import PATCH

PointMode = Literal["exp", "linear", "square"]


def to_points(raw: Tensor, mode: PointMode = "exp") -> Tensor:
    """Raw vectors [..., 3] to points [..., 3]: same direction, distance expm1(norm), norm or norm²."""
    if mode == "linear":
        return raw
    distance: Tensor = torch.linalg.vector_norm(raw, dim=-1, keepdim=True)
    direction = raw / distance.clamp(min=1e-8)
    return direction * (distance.square() if mode == "square" else distance.expm1())


def from_points(points: Tensor, mode: PointMode = "exp") -> Tensor:
    """The raw vectors [..., 3] that `to_points` turns into ``points`` [..., 3]."""
    if mode == "linear":
        return points
    distance: Tensor = torch.linalg.vector_norm(points, dim=-1, keepdim=True)
    direction = points / distance.clamp(min=1e-8)
    return direction * (distance.sqrt() if mode == "square" else distance.log1p())


def to_confidence(raw: Tensor, least: float = 1.0, most: float = math.inf) -> Tensor:
    """Raw values to confidences in [least, most]: least + exp(raw)."""
    return least + raw.exp().clamp(max=most - least)


def turn_to_front(raw: Tensor) -> Tensor:
    """Raw vectors [..., 3] with those that point behind the camera reversed, so that z ≥ 0 (CUT3R, linear head)."""
    return raw * raw[..., 2:].sign()


def to_colour(raw: Tensor) -> Tensor:
    """Raw values to colours in (-1, 1)."""
    return (raw.sigmoid() * (1 - 2e-6) + 1e-6) * 2 - 1


def to_pose(raw: Tensor, mode: PointMode = "exp") -> tuple[Tensor, Tensor]:
    """Raw [..., 7] to a translation [..., 3] and a unit quaternion [..., 4] (w, x, y, z) with w ≥ 0."""
    quaternion = F.normalize(raw[..., 3:], dim=-1)
    return to_points(raw[..., :3], mode), torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def camera_rays(size: tuple[int, int], tangent: float, device: torch.device | None = None) -> Tensor:
    """[3, H, W] directions (x/f, y/f, 1) of a pinhole camera; x/f = ``tangent`` at half of the longer side."""
    height, width = size
    focal = max(height, width) / 2 / tangent
    y = (torch.arange(height, device=device, dtype=torch.float32) - (height - 1) / 2) / focal
    x = (torch.arange(width, device=device, dtype=torch.float32) - (width - 1) / 2) / focal
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((columns, rows, torch.ones_like(rows)))


class LinearHead(nn.Module):
    """One layer, or with ``hidden`` two, from a token to the 16×16 pixels of its patch: raw x, y, z and confidence.

    ``ray_prior`` (tangent of half the field of view) adds a fixed bundle of rays to the raw points, so that an
    untrained head already predicts the frustum of a camera and training only has to bend it. ``pixel_bias`` is the
    side of a square, learned map that is added as well (enlarged where the image is not of that size): the answer
    that needs no image, which small networks otherwise spend most of their training on.
    """

    def __init__(
        self,
        dim: int,
        ray_prior: float | None = None,
        pixel_bias: int | None = None,
        hidden: int | None = None,
        channels: int = 4,
    ) -> None:
        super().__init__()
        self.ray_prior = ray_prior
        self.pixel_bias = None if pixel_bias is None else nn.Parameter(torch.zeros(4, pixel_bias, pixel_bias))
        out = channels * PATCH**2
        self.linear = nn.Linear(dim, out) if hidden is None else MLP(dim, hidden, out)

    def forward(self, taps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Last of ``taps`` [B, N, C] -> raw [B, channels, H, W] for images of ``size`` (H, W)."""
        rows, columns = size[0] // PATCH, size[1] // PATCH
        patches = self.linear(taps[-1]).transpose(1, 2).unflatten(2, (rows, columns))  # [B, channels·256, h, w]
        raw = F.pixel_shuffle(patches, PATCH)
        if self.ray_prior is not None:
            raw = raw + F.pad(camera_rays(size, self.ray_prior, raw.device), (0, 0, 0, 0, 0, 1))
        if self.pixel_bias is not None:
            bias = self.pixel_bias.unsqueeze(0)
            raw = raw + (bias if bias.shape[-2:] == size else F.interpolate(bias, size, mode="bilinear"))
        return raw
