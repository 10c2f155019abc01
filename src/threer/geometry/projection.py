"""The pinhole camera: pixels, rays, intrinsics. Pixel centres are at integers; depth is z, never ray length."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from threer.geometry.lens import distort, undistort
from threer.types import FloatArray


def pixel_grid(
    height: int, width: int, *, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Pixel centres [H, W, 2] as (u, v)."""
    v, u = torch.meshgrid(
        torch.arange(height, device=device, dtype=dtype),
        torch.arange(width, device=device, dtype=dtype),
        indexing="ij",
    )
    return torch.stack([u, v], dim=-1)


def rays(K: Tensor, height: int, width: int, distortion: Tensor | None = None) -> Tensor:
    """Points at depth 1 seen by every pixel: K [..., 3, 3] (zero skew) -> [..., H, W, 3], z = 1.

    distortion  [..., 2] k1, k2 of `threer.geometry.lens`, or None for a pinhole
    """
    grid = pixel_grid(height, width, device=K.device, dtype=K.dtype)
    focal = torch.stack([K[..., 0, 0], K[..., 1, 1]], dim=-1)[..., None, None, :]
    centre = K[..., None, None, :2, 2]
    xy = (grid - centre) / focal
    if distortion is not None:
        xy = undistort(xy, distortion)
    return torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1)


def unproject(depth: Tensor, K: Tensor, distortion: Tensor | None = None) -> Tensor:
    """Depth maps [..., H, W] and intrinsics [..., 3, 3] to points [..., H, W, 3] in the camera's frame.

    distortion  [..., 2] k1, k2 of `threer.geometry.lens`, or None for a pinhole
    """
    return rays(K, depth.shape[-2], depth.shape[-1], distortion) * depth[..., None]


def project(points: Tensor, K: Tensor, distortion: Tensor | None = None) -> Tensor:
    """Points [*batch, ..., 3] in the camera's frame and K [*batch, 3, 3] to pixels [*batch, ..., 2].

    distortion  [*batch, 2] k1, k2 of `threer.geometry.lens`, or None for a pinhole

    NaN where a point is not in front of the camera.
    """
    between = (1,) * (points.ndim - 1 - (K.ndim - 2))
    wide = K.reshape(*K.shape[:-2], *between, 3, 3)
    z = points[..., 2:]
    focal = torch.stack([wide[..., 0, 0], wide[..., 1, 1]], dim=-1)
    xy = points[..., :2] / z
    if distortion is not None:
        xy = distort(xy, distortion)
    pixels = xy * focal + wide[..., :2, 2]
    return torch.where(z > 0, pixels, torch.nan)


def centred_intrinsics(focal: float, width: int, height: int) -> FloatArray:
    """K [3, 3] of square pixels and the exact image centre ((W-1)/2, (H-1)/2).

    The published systems put it at (W/2, H/2), half a pixel off (quirk D11).
    """
    return np.array([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]])


def transform_intrinsics(K: FloatArray, affine: FloatArray) -> FloatArray:
    """Intrinsics after the pixels were moved: K [..., 3, 3], affine [..., 2, 3] (pixel, 1) -> new pixel.

    With `Frame.to_original` this turns intrinsics of the network image into those of the original image.
    """
    affine = np.asarray(affine, dtype=np.float64)
    bottom = np.broadcast_to([0.0, 0.0, 1.0], (*affine.shape[:-2], 1, 3))
    moved: FloatArray = np.concatenate([affine, bottom], axis=-2) @ K
    return moved


def invert_affine(affine: FloatArray) -> FloatArray:
    """The pixel map [..., 2, 3] that undoes ``affine``."""
    linear = np.linalg.inv(np.asarray(affine, dtype=np.float64)[..., :2])
    inverse: FloatArray = np.concatenate([linear, -linear @ affine[..., 2:]], axis=-1)
    return inverse
