"""One photo's normal equations: how small motions of its camera and of the pairs that see it change the loss."""

from __future__ import annotations

import torch
from torch import Tensor

PAIR = 7
"""Numbers of a pair: turn, shift and growth."""


def photo_block(
    seen: Tensor, depth: Tensor, targets: Tensor, weights: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Matrix [k + 7 D, k + 7 D] and right side of a photo's equations, its depths eliminated.

    seen     [P, 3] rays of its sampled pixels, z = 1
    depth    [P] the best for these weights
    targets  [D, P, 3] where its D pairs put the points, in the camera's frame
    weights  [D, P] of the squared distances
    rows     [D, 3, 7, k + 7] see `motion_rows`
    """
    apart = seen * depth[:, None] - targets
    # Small motions move a point by what is linear in these: its place, 1, and how its ray and depth lean.
    lean = seen[:, :2] * depth[:, None]
    common = torch.cat([torch.ones_like(lean[:, :1]), lean, depth[:, None]], dim=1)  # [P, 4]
    basis = torch.cat([targets, common.expand(*targets.shape[:2], 4)], dim=-1)  # [D, P, 7]
    weighted = basis * weights[..., None]
    moments = weighted.mT @ basis  # [D, 7, 7]
    inner = (rows.mT @ moments[:, None] @ rows).sum(dim=1)  # [D, k, k]
    pulls = -((weighted.mT @ apart).mT[..., None, :] @ rows).sum(dim=1)[:, 0]  # [D, k]
    along = (weighted[..., None, :] * seen[:, :, None]).flatten(-2)  # [D, P, 3 · 7]
    shares = along @ rows.flatten(1, 2)  # [D, P, k]: how each number pushes along each ray
    stiffness = (weights * seen.square().sum(dim=-1)).sum(dim=0)  # [P]
    pull = (weights * (apart * seen).sum(dim=-1)).sum(dim=0)

    # The camera's numbers are common to all D, each pair's are its own.
    own = rows.shape[-1] - 7
    size = own + 7 * len(targets)
    matrix, side = targets.new_zeros(size, size), targets.new_zeros(size)
    matrix[:own, :own] = inner[:, :own, :own].sum(dim=0)
    side[:own] = pulls[:, :own].sum(dim=0)
    side[own:] = pulls[:, own:].flatten()
    matrix[:own, own:] = inner[:, :own, own:].transpose(0, 1).reshape(own, -1)
    matrix[own:, :own] = matrix[:own, own:].T
    for d in range(len(targets)):
        part = slice(own + 7 * d, own + 7 * d + 7)
        matrix[part, part] = inner[d, own:, own:]
    pushes = torch.cat([shares[..., :own].sum(dim=0), shares[..., own:].transpose(0, 1).flatten(1)], dim=1)
    used = stiffness > 0
    pushes, stiffness, pull = pushes[used], stiffness[used], pull[used]
    matrix -= pushes.T @ (pushes / stiffness[:, None])
    side += (pull / stiffness) @ pushes
    return matrix, side


def motion_rows(turn: Tensor, middle: Tensor, own: int) -> Tensor:
    """[D, 3, 7, own + 7] how the numbers of a camera and a pair move each axis of the seen point less the pair's.

    turn    [3, 3] the camera's
    middle  [D, 3] about which each pair turns and grows, in the camera's frame
    own     the camera's numbers: turn, shift, logarithm of the focal length; room for the principal point

    The seven are the target's place, 1, x and y of the seen point, and its depth: the moves are linear in them.
    """
    rows = torch.zeros(len(middle), 3, 7, own + PAIR, dtype=torch.float64)
    for axis in range(3):
        after, before = (axis + 1) % 3, (axis + 2) % 3
        # The camera turns by a and moves by b: the difference moves by a × Z + b.
        rows[:, axis, before, after] = 1.0
        rows[:, axis, after, before] = -1.0
        rows[:, axis, 3, 3 + axis] = 1.0
        # The pair turns by a, moves by b, grows by s about its middle: by -(a × q + b + s q), q = Z - middle.
        for column in range(3):  # in the world's axes
            rows[:, axis, before, own + column] = -turn[column, after]
            rows[:, axis, after, own + column] = turn[column, before]
            rows[:, axis, 3, own + column] = (
                turn[column, after] * middle[:, before] - turn[column, before] * middle[:, after]
            )
            rows[:, axis, 3, own + 3 + column] = -turn[column, axis]
        rows[:, axis, axis, own + 6] = -1.0
        rows[:, axis, 3, own + 6] = middle[:, axis]
    rows[:, 0, 4, 6] = rows[:, 1, 5, 6] = -1.0
    return rows


def skew(vectors: Tensor) -> Tensor:
    """[..., 3] to the matrices [..., 3, 3] of their cross products."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(*vectors.shape[:-1], 3, 3)
