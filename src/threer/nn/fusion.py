"""Fast3R's decoder: every token of every view attends to every other (Yang et al., CVPR 2025, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn

from threer.nn.blocks import EncoderBlock
from threer.nn.encoder import sincos_code

VIEW_CODES = 1000
"""Views that can be told apart."""
NORM_EPS = 1e-5
SHARPENING = math.sqrt(math.log(137) / math.log(20))
"""Attention logits grow by this factor at evaluation, where there are more views than in training."""


def view_codes(ids: Tensor, dim: int) -> Tensor:
    """Fixed code [..., dim], float32, of view ids [...]; worked out in float64, as far ids need, on the CPU."""
    return sincos_code(ids.cpu().double(), dim).float()


def draw_view_ids(batch: int, views: int, seed: int) -> Tensor:
    """[B, V] int64: 0 for the first view, different random ids for the others, drawn anew for each sample."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randperm(VIEW_CODES - 1, generator=generator)[: views - 1] + 1 for _ in range(batch)]
    return torch.nn.functional.pad(torch.stack(rows), (1, 0))


class FusionDecoder(nn.Module):
    """Transformer blocks over the tokens of all views together, without positions.

    ``sharpen`` makes attention more selective at evaluation.
    """

    def __init__(self, dim: int, depth: int, heads: int, mlp_ratio: float = 4.0, sharpen: bool = True) -> None:
        super().__init__()
        self.head_dim = dim // heads
        self.sharpen = sharpen
        self.blocks = nn.ModuleList(EncoderBlock(dim, heads, mlp_ratio, NORM_EPS) for _ in range(depth))

    @property
    def scale(self) -> float:
        """What attention logits are multiplied with."""
        plain = 1 / math.sqrt(self.head_dim)
        return plain * SHARPENING if self.sharpen and not self.training else plain

    def forward(self, tokens: Tensor, keep: Collection[int]) -> dict[int, Tensor]:
        """tokens [B, N, C] of all views -> outputs [B, N, C] of the layers in ``keep``, counted from 1."""
        kept = {}
        for layer, block in enumerate(self.blocks, start=1):
            tokens = block(tokens, None, self.scale)
            if layer in keep:
                kept[layer] = tokens
        return kept
