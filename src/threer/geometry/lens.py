"""Radial lens distortion of Brown and Conrady with two coefficients, as OpenCV's k1, k2: on normalised coordinates.

A point at (x, y) of the plane z = 1 appears at (x, y) (1 + k1 r² + k2 r⁴), r² = x² + y².
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDS = 8  # of Newton's method; five reach float32's limit for the lenses of phones and webcams


def distort(xy: Tensor, distortion: Tensor) -> Tensor:
    """Where the lens puts points: xy [*batch, ..., 2] at z = 1, distortion [*batch, 2] (k1, k2) -> like xy."""
    k1, k2 = _coefficients(xy, distortion)
    r2 = (xy * xy).sum(-1, keepdim=True)
    return xy * (1 + r2 * (k1 + r2 * k2))


def undistort(xy: Tensor, distortion: Tensor) -> Tensor:
    """What `distort` takes to xy [*batch, ..., 2]; distortion [*batch, 2] (k1, k2) -> like xy.

    Holds where the lens is one to one, which is 1 + 3 k1 r² + 5 k2 r⁴ > 0.
    """
    k1, k2 = _coefficients(xy, distortion)
    seen = torch.linalg.vector_norm(xy, dim=-1, keepdim=True)
    radius = seen
    for _ in range(_ROUNDS):
        r2 = radius * radius
        excess = radius * (1 + r2 * (k1 + r2 * k2)) - seen
        radius = radius - excess / (1 + r2 * (3 * k1 + 5 * r2 * k2)).clamp(min=0.1)
    return xy * torch.where(seen > 0, radius / seen.clamp(min=1e-12), 1.0)


def _coefficients(xy: Tensor, distortion: Tensor) -> tuple[Tensor, Tensor]:
    between = (1,) * (xy.ndim - distortion.ndim)
    wide = distortion.reshape(*distortion.shape[:-1], *between, 2)
    return wide[..., :1], wide[..., 1:]
