"""Rotary position embedding for tokens on a 2-D grid (RoPE-100 of CroCo v2, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BASE = 100.0


@dataclass(frozen=True)
class RopeTable:
    """Cosines and sines for one set of tokens and one head size: made once, used by every layer.

    cos, sin  [..., N, 2, Q] float32, second last axis (y, x), Q a quarter of the head size
    """

    cos: Tensor
    sin: Tensor

    def flatten_views(self) -> RopeTable:
        """[B, V, N, 2, Q] -> [B, V·N, 2, Q]: the views of a sample in one row of tokens."""
        return RopeTable(self.cos.flatten(1, 2), self.sin.flatten(1, 2))

    def merge_batch(self) -> RopeTable:
        """[B, V, N, 2, Q] -> [B·V, N, 2, Q]: every view a sample of its own."""
        return RopeTable(self.cos.flatten(0, 1), self.sin.flatten(0, 1))


def rope_table(positions: Tensor, head_dim: int, base: float = BASE) -> RopeTable:
    """Angles of tokens at ``positions`` [..., N, 2], integer (y, x), which may be negative.

    Angles are computed in float32 whatever the network runs in: bfloat16 cannot tell far positions apart.
    Raises ValueError when ``head_dim`` is not a multiple of 4.
    """
    if head_dim % 4:
        raise ValueError(f"head size {head_dim} is not a multiple of 4, as a 2-D rotary embedding needs")
    quarter = head_dim // 4
    exponent = torch.arange(quarter, device=positions.device, dtype=torch.float32) / quarter
    angles = positions.to(torch.float32).unsqueeze(-1) * base**-exponent  # [..., N, 2, Q]
    return RopeTable(angles.cos(), angles.sin())


def apply_rope(x: Tensor, table: RopeTable) -> Tensor:
    """Rotate queries or keys ``x`` [B, heads, N, D] by their tokens' positions ([B, N, 2, Q] table).

    The first half of D turns with y, the second with x; inside a half element k is paired with k + Q.
    """
    cos, sin = table.cos.unsqueeze(-4), table.sin.unsqueeze(-4)  # [B, 1, N, 2, Q]
    u, v = torch.unflatten(x, -1, (2, 2, cos.shape[-1])).unbind(-2)  # each [B, heads, N, 2, Q]
    rotated = torch.stack((u * cos - v * sin, v * cos + u * sin), dim=-2)
    return rotated.flatten(-3).to(x.dtype)
