"""The small memory from which CUT3R reads a first guess of a camera's pose (CUT3R, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from threer.nn.blocks import DecoderBlock

DEPTH = 2


class PoseMemory(nn.Module):
    """Entries of a key half, which an image is looked up by, and a value half, which holds its pose token.

    A memory [B, M, 2C] is passed in and out, nothing is kept here but the empty one. There are no positions in it.
    """

    def __init__(self, image_dim: int, dim: int, size: int, heads: int) -> None:
        super().__init__()
        self.embed_key = nn.Linear(image_dim, dim)
        self.unknown = nn.Parameter(torch.zeros(1, 1, dim))
        self.empty = nn.Parameter(torch.zeros(1, size, 2 * dim))
        self.writers = nn.ModuleList(DecoderBlock(2 * dim, heads) for _ in range(DEPTH))
        self.readers = nn.ModuleList(DecoderBlock(2 * dim, heads) for _ in range(DEPTH))

    def key(self, features: Tensor) -> Tensor:
        """What an image with encoder ``features`` [B, N, C_e] is looked up by: [B, 1, C]."""
        key: Tensor = self.embed_key(features.mean(dim=1, keepdim=True))
        return key

    def read(self, memory: Tensor, key: Tensor) -> Tensor:
        """memory [B, M, 2C], key [B, 1, C] -> value [B, 1, C]."""
        entry = torch.cat((key, self.unknown.expand_as(key)), dim=-1).unsqueeze(1)  # [B, 1, 1, 2C]
        for block in self.readers:
            entry = block(entry, memory.unsqueeze(1), None, None)
        return entry[:, 0, :, key.shape[-1] :]

    def write(self, memory: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """memory [B, M, 2C] after it has seen ``key`` and ``value`` [B, 1, C]."""
        entry = torch.cat((key, value), dim=-1).unsqueeze(1)
        changed = memory.unsqueeze(1)
        for block in self.writers:
            changed = block(changed, entry, None, None)
        return changed.squeeze(1)
