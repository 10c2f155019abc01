"""The decoder that DUSt3R and SLAM3R share: two streams of views that read each other (SLAM3R, section 3.2)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from threer.nn.blocks import DecoderBlock
from threer.nn.rope import BASE, rope_table

Side = Literal["first", "second"]


@dataclass(frozen=True, eq=False)
class Stream:
    """The views on one side of the decoder.

    tokens     [B, V, N, C]
    positions  [B, V, N, 2] integer (row, column)
    offset     [B, V, N, C] added to the tokens before every layer (SLAM3R's point embedding), or None
    """

    tokens: Tensor
    positions: Tensor
    offset: Tensor | None = None


class TwoStreamDecoder(nn.Module):
    """In every layer each view attends to itself, then to all views of the other stream.

    Both streams read the *previous* layer of the other, so the two halves of a layer do not depend on each other.
    Several views on the other side are max-pooled; with one view on each side this is DUSt3R's decoder.
    """

    def __init__(
        self, dim: int, depth: int, heads: tuple[int, int], mlp_ratio: float = 4.0, rope_base: float = BASE
    ) -> None:
        super().__init__()
        self.head_dims = (dim // heads[0], dim // heads[1])
        self.rope_base = rope_base
        self.first = nn.ModuleList(DecoderBlock(dim, heads[0], mlp_ratio) for _ in range(depth))
        self.second = nn.ModuleList(DecoderBlock(dim, heads[1], mlp_ratio) for _ in range(depth))

    @property
    def depth(self) -> int:
        return len(self.first)

    def forward(
        self,
        first: Stream,
        second: Stream,
        keep: Collection[int],
        depth: int | None = None,
        last: Side | None = None,
    ) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Outputs [B, V, N, C] of the layers in ``keep`` (counted from 1), one dictionary for each stream.

        depth  stop after so many layers (all by default)
        last   in the last layer compute only this stream: nobody reads the other
        """
        depth = self.depth if depth is None else depth
        if not 1 <= depth <= self.depth:
            raise ValueError(f"depth {depth} is not between 1 and the decoder's {self.depth} layers")
        # Tables [B, V, N, 2, Q] for (own queries and keys, the other's keys) at each stream's head size.
        ropes = [
            tuple(rope_table(stream.positions, head_dim, self.rope_base) for stream in (first, second))
            for head_dim in self.head_dims
        ]
        x, y = first.tokens, second.tokens
        kept: tuple[dict[int, Tensor], dict[int, Tensor]] = ({}, {})
        for layer in range(1, depth + 1):
            x = x if first.offset is None else x + first.offset
            y = y if second.offset is None else y + second.offset
            only = last if layer == depth else None
            new_x = x if only == "second" else self.first[layer - 1](x, y, ropes[0][0], ropes[0][1])
            new_y = y if only == "first" else self.second[layer - 1](y, x, ropes[1][1], ropes[1][0])
            x, y = new_x, new_y
            if layer in keep:
                if only != "second":
                    kept[0][layer] = x
                if only != "first":
                    kept[1][layer] = y
        return kept
