"""Pre-norm transformer blocks: self-attention for the encoder, self- and cross-attention for the decoders.

Tokens of several views are [B, V, N, C]; each view is attended to on its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from threer.nn.rope import RopeTable, apply_rope

NORM_EPS = 1e-6


def layer_norm(dim: int, eps: float = NORM_EPS) -> nn.LayerNorm:
    return nn.LayerNorm(dim, eps=eps)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[..., N, C] -> [..., heads, N, C/heads]."""
    return torch.unflatten(x, -1, (heads, -1)).transpose(-3, -2)


def merge_heads(x: Tensor) -> Tensor:
    """[..., heads, N, D] -> [..., N, heads·D]."""
    return x.transpose(-3, -2).flatten(-2)


class MLP(nn.Module):
    """Two fully connected layers with an exact GELU between them."""

    def __init__(self, dim: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.up = nn.Linear(dim, hidden)
        self.down = nn.Linear(hidden, out or dim)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.down(F.gelu(self.up(x)))
        return projected


class SelfAttention(nn.Module):
    """Multi-head attention of the tokens of one view among themselves."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, rope: RopeTable | None, scale: float | None = None) -> Tensor:
        """x [B, N, C], rope [B, N, 2, Q] -> [B, N, C]. ``scale`` of the logits is 1/√(head size) by default."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        if rope is not None:
            q, k = apply_rope(q, rope), apply_rope(k, rope)
        attended: Tensor = self.out(merge_heads(F.scaled_dot_product_attention(q, k, v, scale=scale)))
        return attended


class CrossAttention(nn.Module):
    """Attention of every target view to every memory view, max-pooled over the memory views (SLAM3R, section 3.2).

    Each memory view has its own softmax; the elementwise maximum is taken after the output projection. With one
    memory view this is ordinary cross-attention.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, memory: Tensor, rope: RopeTable | None, memory_rope: RopeTable | None) -> Tensor:
        """x [B, T, N, C], memory [B, M, N', C], ropes [B, T, N, 2, Q] and [B, M, N', 2, Q] -> [B, T, N, C]."""
        batch, targets, tokens, _ = x.shape
        memories = memory.shape[1]
        if memory.shape[2] == 1:  # a single key takes all the weight: who asks does not matter
            alone: Tensor = self.out(self.value(memory)).amax(dim=1, keepdim=True)
            return alone.expand_as(x)
        # A softmax is over keys only, so the targets can share one long row of queries per memory view:
        # keys and values are never repeated.
        q = split_heads(self.query(x).flatten(1, 2), self.heads)  # [B, heads, T·N, D]
        k = split_heads(self.key(memory).flatten(0, 1), self.heads)  # [B·M, heads, N', D]
        v = split_heads(self.value(memory).flatten(0, 1), self.heads)
        if rope is not None:
            q = apply_rope(q, rope.flatten_views())
        if memory_rope is not None:
            k = apply_rope(k, memory_rope.merge_batch())
        q = q.unsqueeze(1).expand(-1, memories, -1, -1, -1).flatten(0, 1)  # [B·M, heads, T·N, D]
        attended: Tensor = self.out(merge_heads(F.scaled_dot_product_attention(q, k, v)))
        return attended.view(batch, memories, targets, tokens, -1).amax(dim=1)


class EncoderBlock(nn.Module):
    """Self-attention and MLP, each behind a norm and a skip connection."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0, eps: float = NORM_EPS) -> None:
        super().__init__()
        self.attention_norm = layer_norm(dim, eps)
        self.attention = SelfAttention(dim, heads)
        self.mlp_norm = layer_norm(dim, eps)
        self.mlp = MLP(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, rope: RopeTable | None, scale: float | None = None) -> Tensor:
        """x [B, N, C] -> [B, N, C]. ``scale`` of the attention logits is one over √(head size) by default."""
        x = x + self.attention(self.attention_norm(x), rope, scale)
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out


class ModulatedNorm(nn.Module):
    """A norm whose shift and scale follow one conditioning token (Peebles and Xie 2023, section 3.2)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = layer_norm(dim)
        self.modulation = nn.Linear(dim, 2 * dim)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x [B, N, C], condition [B, C] -> [B, N, C]."""
        shift, scale = self.modulation(F.silu(condition)).unsqueeze(1).chunk(2, dim=-1)
        modulated: Tensor = self.norm(x) * (1 + scale) + shift
        return modulated


class ModulatedBlock(nn.Module):
    """An encoder block with modulated norms."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = ModulatedNorm(dim)
        self.attention = SelfAttention(dim, heads)
        self.mlp_norm = ModulatedNorm(dim)
        self.mlp = MLP(dim, 4 * dim)

    def forward(self, x: Tensor, condition: Tensor, rope: RopeTable | None) -> Tensor:
        """x [B, N, C], condition [B, C] -> [B, N, C]."""
        x = x + self.attention(self.attention_norm(x, condition), rope)
        out: Tensor = x + self.mlp(self.mlp_norm(x, condition))
        return out


class DecoderBlock(nn.Module):
    """Self-attention, cross-attention to the other stream's views, MLP."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.attention_norm = layer_norm(dim)
        self.attention = SelfAttention(dim, heads)
        self.query_norm = layer_norm(dim)
        self.memory_norm = layer_norm(dim)
        self.cross = CrossAttention(dim, heads)
        self.mlp_norm = layer_norm(dim)
        self.mlp = MLP(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, memory: Tensor, rope: RopeTable | None, memory_rope: RopeTable | None) -> Tensor:
        """x [B, T, N, C] attends to memory [B, M, N', C], which is left as it is -> [B, T, N, C]."""
        own = self.attention(self.attention_norm(x).flatten(0, 1), rope.merge_batch() if rope else None)
        x = x + own.view_as(x)
        x = x + self.cross(self.query_norm(x), self.memory_norm(memory), rope, memory_rope)
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out
