"""The image encoder: 16×16 patches, a grid of integer positions, a stack of transformer blocks (CroCo v2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from threer.nn.blocks import EncoderBlock
from threer.nn.rope import BASE, rope_table
from threer.nn.stem import ConvStem

PATCH = 16


@dataclass(frozen=True)
class Layout:
    """How a batch of images lies in memory.

    size        (H, W) in pixels of samples that are not transposed; multiples of the patch size
    transposed  [B] which samples are really W×H: their tokens run row by row over the real image
    """

    size: tuple[int, int]
    transposed: tuple[bool, ...]

    def __post_init__(self) -> None:
        height, width = self.size
        if height < PATCH or width < PATCH or height % PATCH or width % PATCH:
            raise ValueError(f"image size {height}×{width} (H×W) is not a multiple of {PATCH} on both sides")

    @classmethod
    def of(cls, shapes: Sequence[Sequence[int]], landscape: bool = False) -> Layout:
        """Layout of samples of real sizes ``shapes`` [B] (H, W).

        With ``landscape`` portrait samples count as transposed, and both orientations of one size may be mixed.
        Raises ValueError when the samples cannot share a batch.
        """
        kinds = sorted({(min(s), max(s)) if landscape else (s[0], s[1]) for s in shapes})
        if len(kinds) != 1:
            listed = ", ".join(f"{h}×{w}" for h, w in kinds)
            raise ValueError(f"views have different sizes (H×W: {listed}); views of one call must share one size")
        return cls(kinds[0], tuple(landscape and h > w for h, w in shapes))

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of tokens of samples that are not transposed."""
        return self.size[0] // PATCH, self.size[1] // PATCH

    def positions(self, device: torch.device | None = None) -> Tensor:
        """[B, N, 2] int64 (row, column) of every token, row by row over the real image."""
        rows, columns = self.grid
        plain = grid_positions(rows, columns, device)
        if not any(self.transposed):
            return plain.expand(len(self.transposed), -1, -1)
        turned = grid_positions(columns, rows, device)
        return torch.stack([turned if flag else plain for flag in self.transposed])


def grid_positions(rows: int, columns: int, device: torch.device | None = None) -> Tensor:
    """[rows·columns, 2] int64 (row, column), row by row."""
    return torch.cartesian_prod(torch.arange(rows, device=device), torch.arange(columns, device=device))


def sincos_code(values: Tensor, dim: int) -> Tensor:
    """Fixed code [..., dim] of floating-point ``values`` [...], in their precision: all sines, then all cosines.

    Follows "Attention is all you need", section 3.5. ``dim`` must be even.
    """
    if dim % 2:
        raise ValueError(f"width {dim} is odd, a sine/cosine code needs an even one")
    exponent = torch.arange(dim // 2, device=values.device, dtype=values.dtype) / (dim // 2)
    angles = values.unsqueeze(-1) * 10000.0**-exponent
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


def sincos_positions(positions: Tensor, dim: int) -> Tensor:
    """Fixed sine/cosine code [..., N, dim] of integer ``positions`` [..., N, 2]: half for y, half for x.

    ``dim`` must be a multiple of 4.
    """
    if dim % 4:
        raise ValueError(f"width {dim} is not a multiple of 4, as a 2-D sine/cosine code needs")
    return sincos_code(positions.to(torch.float32), dim // 2).flatten(-2)


class PatchEmbed(nn.Module):
    """16×16 patches to tokens, row by row over the real image."""

    def __init__(self, dim: int, channels: int = 3, stem: Sequence[int] | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, dim, kernel_size=PATCH, stride=PATCH)
        self.stem = None if stem is None else ConvStem(dim, stem, channels)

    def forward(self, images: Tensor, transposed: Sequence[bool] = ()) -> Tensor:
        """images [B, channels, H, W] -> tokens [B, N, C]; samples flagged ``transposed`` are turned back first."""
        if not any(transposed):
            return self._tokens(images)
        turned = torch.tensor(transposed, device=images.device)
        tokens = images.new_empty(len(images), images[0, 0].numel() // PATCH**2, self.conv.out_channels)
        if not all(transposed):
            tokens[~turned] = self._tokens(images[~turned]).to(tokens.dtype)
        tokens[turned] = self._tokens(images[turned].transpose(-1, -2)).to(tokens.dtype)
        return tokens

    def _tokens(self, images: Tensor) -> Tensor:
        maps: Tensor = self.conv(images)
        if self.stem is not None:
            maps = maps + self.stem(images)
        return maps.flatten(2).transpose(1, 2)


class ViTEncoder(nn.Module):
    """Images, or maps of other ``channels``, to tokens. The final norm is left to the network that reads them.

    ``absolute_positions`` adds a fixed sine/cosine code of the position to the patch tokens, on top of the rotary
    embedding inside the blocks: small networks learn the frustum of a camera from it.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        rope_base: float = BASE,
        absolute_positions: bool = False,
        channels: int = 3,
        stem: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.head_dim = dim // heads
        self.rope_base = rope_base
        self.absolute_positions = absolute_positions
        self.patch = PatchEmbed(dim, channels, stem)
        self.blocks = nn.ModuleList(EncoderBlock(dim, heads, mlp_ratio) for _ in range(depth))

    def forward(self, images: Tensor, layout: Layout) -> Tensor:
        """images [B, channels, H, W], pictures in [-1, 1] -> tokens [B, N, C] before any final norm."""
        tokens: Tensor = self.patch(images, layout.transposed)
        positions = layout.positions(images.device)
        if self.absolute_positions:
            tokens = tokens + sincos_positions(positions, tokens.shape[-1])
        rope = rope_table(positions, self.head_dim, self.rope_base)
        for block in self.blocks:
            tokens = block(tokens, rope)
        return tokens
