"""Rigid motions and rotations. Poses are [..., 4, 4]; quaternions [..., 4] are w, x, y, z."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from threer.types import FloatArray

ROTATION_TOLERANCE = 1e-3


def invert(pose: Tensor) -> Tensor:
    """Inverse of rigid motions [..., 4, 4]: (R, t) -> (Rᵀ, -Rᵀ t)."""
    rotation = pose[..., :3, :3].mT
    out = torch.zeros_like(pose)
    out[..., :3, :3] = rotation
    out[..., :3, 3:] = -rotation @ pose[..., :3, 3:]
    out[..., 3, 3] = 1.0
    return out


def apply(transform: Tensor, points: Tensor) -> Tensor:
    """Move points by affine transforms.

    transform  [*batch, 4, 4]
    points     [*batch, ..., 3]: any number of dimensions between the batch and the coordinates
    """
    batch = transform.ndim - 2
    if points.shape[-1] != 3 or points.ndim - 1 < batch:
        raise ValueError(f"points must be [*{list(transform.shape[:-2])}, ..., 3], got {list(points.shape)}")
    between = (1,) * max(points.ndim - 2 - batch, 0)
    wide = transform.reshape(*transform.shape[:-2], *between, 4, 4)
    row = points if points.ndim - 1 > batch else points[..., None, :]
    moved = row @ wide[..., :3, :3].mT + wide[..., None, :3, 3]
    return moved.reshape(points.shape)


def relative_pose(c2w: Tensor, reference: Tensor) -> Tensor:
    """Poses [..., 4, 4] seen from ``reference`` [..., 4, 4], both camera-to-world: reference⁻¹ c2w."""
    return invert(reference) @ c2w


def quaternion_from_matrix(rotation: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] to unit quaternions [..., 4], w ≥ 0.

    Of the four ways to divide, the one by the largest component is taken, so that turns near 180° stay exact.
    """
    m = rotation
    diagonal = torch.stack(
        [
            1.0 + m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2],
            1.0 + m[..., 0, 0] - m[..., 1, 1] - m[..., 2, 2],
            1.0 - m[..., 0, 0] + m[..., 1, 1] - m[..., 2, 2],
            1.0 - m[..., 0, 0] - m[..., 1, 1] + m[..., 2, 2],
        ],
        dim=-1,
    )  # [..., 4] four times each component squared
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 1, 0] + m[..., 0, 1], m[..., 2, 0] + m[..., 0, 2], m[..., 2, 1] + m[..., 1, 2]
    ww, xx, yy, zz = diagonal.unbind(-1)
    candidates = torch.stack(
        [
            torch.stack([ww, wx, wy, wz], dim=-1),
            torch.stack([wx, xx, xy, xz], dim=-1),
            torch.stack([wy, xy, yy, yz], dim=-1),
            torch.stack([wz, xz, yz, zz], dim=-1),
        ],
        dim=-2,
    )  # [..., 4, 4] row i is the quaternion times four of its component i
    best = diagonal.argmax(dim=-1)[..., None, None].expand(*diagonal.shape[:-1], 1, 4)
    chosen = torch.gather(candidates, -2, best).squeeze(-2)
    unit = torch.nn.functional.normalize(chosen, dim=-1)
    return torch.where(unit[..., :1] < 0, -unit, unit)


def matrix_from_quaternion(quaternion: Tensor) -> Tensor:
    """Quaternions [..., 4] of any length but zero to rotation matrices [..., 3, 3]."""
    w, x, y, z = quaternion.unbind(-1)
    s = 2.0 / quaternion.square().sum(dim=-1)
    rows = [
        1.0 - s * (y * y + z * z),
        s * (x * y - w * z),
        s * (x * z + w * y),
        s * (x * y + w * z),
        1.0 - s * (x * x + z * z),
        s * (y * z - w * x),
        s * (x * z - w * y),
        s * (y * z + w * x),
        1.0 - s * (x * x + y * y),
    ]
    return torch.stack(rows, dim=-1).reshape(*quaternion.shape[:-1], 3, 3)


def pose_from_quaternion(translation: Tensor, quaternion: Tensor) -> Tensor:
    """Poses [..., 4, 4] from translations [..., 3] and quaternions [..., 4] of any length but zero."""
    pose = torch.zeros(*translation.shape[:-1], 4, 4, dtype=translation.dtype, device=translation.device)
    pose[..., :3, :3] = matrix_from_quaternion(quaternion)
    pose[..., :3, 3] = translation
    pose[..., 3, 3] = 1.0
    return pose


def is_pose(matrix: FloatArray) -> bool:
    """Whether ``matrix`` is [4, 4], finite, and a rigid motion: a rotation, a translation, 0 0 0 1 below."""
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.allclose(matrix[3], (0, 0, 0, 1)):
        return False
    R = matrix[:3, :3]
    return bool(np.abs(R @ R.T - np.eye(3)).max() <= ROTATION_TOLERANCE and np.linalg.det(R) > 0)


def rotation_angle(first: Tensor, second: Tensor) -> Tensor:
    """Geodesic angle [...] in radians between rotation matrices [..., 3, 3].

    From sine and cosine together: the arc cosine alone loses half the digits near 0° and 180°.
    """
    turn = first.mT @ second
    cosine = (turn.diagonal(dim1=-2, dim2=-1).sum(dim=-1) - 1.0) / 2.0
    sine = torch.linalg.matrix_norm(turn - turn.mT) / (2.0 * 2.0**0.5)
    return torch.atan2(sine, cosine)
