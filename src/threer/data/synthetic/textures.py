"""A bank of tileable two-channel textures with mip levels, drawn from one seed.

A texture does not hold colours: its channels (a, b) in 0..1 mix the three colours of a material, so that one map
serves many surfaces. Photographs, which do hold colours, can stand beside them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from threer.data.synthetic.photographs import load_photographs

SIZE = 64  # texels along one side of the finest level
LEVELS = 7  # 64, 32, ... 1
COUNT = 160
STYLES = ("plain", "noise", "checker", "stripes", "bricks", "wood", "blobs", "glyphs", "cells", "speckle")


@dataclass(frozen=True, eq=False)
class TextureBank:
    """Textures with their mip levels.

    texels       [T, Σ level², C]: all levels of a texture one after the other
    starts       offset of each level
    size         texels along one side of the finest level
    photographs  a bank of linear RGB (C = 3) of mean brightness 1, if any; its indices follow this one's
    """

    texels: Tensor
    starts: tuple[int, ...]
    size: int = SIZE
    photographs: TextureBank | None = None

    def sample(self, index: Tensor, uv: Tensor, level: Tensor) -> Tensor:
        """Trilinear lookup.

        index [n] int64 texture, uv [n, 2] in tiles (wraps around), level [n] mip level >= 0 -> [n, C] in 0..1
        """
        last = len(self.starts) - 1
        level = level.clamp(0, last)
        fine = level.floor()
        blend = (level - fine).unsqueeze(-1)
        fine_index = fine.long()
        coarse_index = (fine_index + 1).clamp(max=last)
        return torch.lerp(self._bilinear(index, uv, fine_index), self._bilinear(index, uv, coarse_index), blend)

    def colour(self, index: Tensor, uv: Tensor, level: Tensor, colours: Tensor) -> Tensor:
        """Linear RGB [n, 3] of materials with three colours [n, 3, 3]; the rest as in ``sample``."""
        base = _mixed(self.sample(index.clamp(max=len(self.texels) - 1), uv, level), colours)
        if self.photographs is None:
            return base
        chosen = (index >= len(self.texels)).nonzero().squeeze(1)
        finer = math.log2(self.photographs.size / self.size)
        shown = self.photographs.sample(index[chosen] - len(self.texels), uv[chosen], level[chosen] + finer)
        return base.index_put((chosen,), (shown * colours[chosen, 0]).clamp(max=1))

    def mean_colour(self, index: Tensor, colours: Tensor) -> Tensor:
        """Linear RGB [..., 3] of whole textures ``index`` [...] with colours [..., 3, 3]."""
        drawn = _mixed(self.texels[index.clamp(max=len(self.texels) - 1), -1], colours)
        if self.photographs is None:
            return drawn
        photograph = (index - len(self.texels)).clamp(min=0)
        shown = self.photographs.texels[photograph, -1] * colours[..., 0, :]
        return torch.where((index >= len(self.texels)).unsqueeze(-1), shown.clamp(max=1), drawn)

    def _bilinear(self, index: Tensor, uv: Tensor, level: Tensor) -> Tensor:
        side = torch.full_like(level, self.size) >> level
        start = torch.tensor(self.starts, device=level.device)[level]
        grid = (uv - uv.floor()) * side.unsqueeze(-1) - 0.5
        corner = grid.floor()
        fraction = grid - corner
        low = corner.long() % side.unsqueeze(-1)
        high = (low + 1) % side.unsqueeze(-1)
        top, bottom = start + low[:, 1] * side, start + high[:, 1] * side
        left_x, right_x = low[:, 0], high[:, 0]
        fx, fy = fraction[:, :1], fraction[:, 1:]
        texels, first = self.texels.flatten(0, 1), index * self.texels.shape[1]
        top, bottom = first + top, first + bottom

        def at(place: Tensor) -> Tensor:
            return texels.index_select(0, place)

        upper = torch.lerp(at(top + left_x), at(top + right_x), fx)
        lower = torch.lerp(at(bottom + left_x), at(bottom + right_x), fx)
        return torch.lerp(upper, lower, fy)


def _mixed(mix: Tensor, colours: Tensor) -> Tensor:
    """Three colours [..., 3, 3] mixed by two channels [..., 2]."""
    base = torch.lerp(colours[..., 0, :], colours[..., 1, :], mix[..., :1])
    return torch.lerp(base, colours[..., 2, :], mix[..., 1:])


@lru_cache(maxsize=4)
def texture_bank(seed: int = 0, device: str = "cpu", photographs: Sequence[str] = ()) -> TextureBank:
    """The bank for a seed: texture t has style ``STYLES[t % len(STYLES)]``.

    ``photographs`` is a tuple of image files. Raises SourceError for one that cannot be read.
    """
    shown = _mipmaps(load_photographs(photographs), device) if photographs else None
    return replace(_drawn_bank(seed, device), photographs=shown)


@lru_cache(maxsize=4)
def _drawn_bank(seed: int, device: str) -> TextureBank:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.stack([_draw(STYLES[t % len(STYLES)], generator) for t in range(COUNT)])  # [T, 2, S, S]
    return _mipmaps(maps, device)


def _mipmaps(maps: Tensor, device: str) -> TextureBank:
    """The bank of maps [T, C, S, S], S a power of two."""
    size = maps.shape[-1]
    levels, starts, offset = [maps.flatten(2)], [0], size**2
    while maps.shape[-1] > 1:
        maps = F.avg_pool2d(maps, 2)
        starts.append(offset)
        offset += maps.shape[-1] ** 2
        levels.append(maps.flatten(2))
    texels = torch.cat(levels, dim=2).transpose(1, 2).contiguous()
    return TextureBank(texels.to(device), tuple(starts), size)


def _draw(style: str, generator: torch.Generator) -> Tensor:
    """One texture [2, S, S] in 0..1."""
    grain = _fractal(generator, start=4)
    a = {
        "plain": lambda: 0.5 + 0.0 * grain,
        "noise": lambda: _fractal(generator, start=_integer(generator, 1, 4)),
        "checker": lambda: _checker(generator),
        "stripes": lambda: _stripes(generator),
        "bricks": lambda: _bricks(generator),
        "wood": lambda: _wood(generator),
        "blobs": lambda: (_fractal(generator, start=2) > 0.5 + 0.1 * _uniform(generator)).float(),
        "glyphs": lambda: _glyphs(generator),
        "cells": lambda: _cells(generator),
        "speckle": lambda: (torch.rand(SIZE, SIZE, generator=generator) > 0.8).float(),
    }[style]()
    b = (
        _fractal(generator, start=3) * 0.5
        if style in ("plain", "checker", "glyphs", "bricks")
        else _cells(generator)
    )
    strength = 0.04 + 0.16 * _uniform(generator)
    return torch.stack([a + strength * (grain - 0.5), (b * 0.6 + strength * (grain - 0.5))]).clamp(0, 1)


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _integer(generator: torch.Generator, low: int, high: int) -> int:
    """One of low..high."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _axes() -> tuple[Tensor, Tensor]:
    """Texel coordinates (x, y) in 0..1, each [S, S]."""
    steps = (torch.arange(SIZE) + 0.5) / SIZE
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return x, y


def _fractal(generator: torch.Generator, start: int) -> Tensor:
    """Tileable noise in 0..1: octaves of wrapped, smoothly enlarged random grids from ``2**start`` cells up."""
    total = torch.zeros(SIZE, SIZE)
    for octave in range(start, 6):
        cells = 2**octave
        grid = torch.rand(1, 1, cells, cells, generator=generator)
        wrapped = F.pad(grid, (2, 2, 2, 2), mode="circular")
        scale = SIZE // cells
        smooth = F.interpolate(wrapped, scale_factor=scale, mode="bicubic", align_corners=False)[0, 0]
        total += smooth[2 * scale : 2 * scale + SIZE, 2 * scale : 2 * scale + SIZE] * 0.6 ** (octave - start)
    low, high = total.min(), total.max()
    return (total - low) / (high - low).clamp(min=1e-6)


def _checker(generator: torch.Generator) -> Tensor:
    x, y = _axes()
    cells = 2 * _integer(generator, 1, 3)
    return (((x * cells).floor() + (y * cells).floor()) % 2).float()


def _stripes(generator: torch.Generator) -> Tensor:
    x, y = _axes()
    nx, ny = [(1, 0), (0, 1), (1, 1), (2, 1)][_integer(generator, 0, 3)]
    repeats = _integer(generator, 2, 8)
    return (((x * nx + y * ny) * repeats) % 1.0 < 0.2 + 0.5 * _uniform(generator)).float()


def _bricks(generator: torch.Generator) -> Tensor:
    """Mortar is 1, each brick has its own shade below 0.6."""
    x, y = _axes()
    rows = 2 * _integer(generator, 1, 4)
    columns = _integer(generator, 1, max(1, rows // 2))
    row = (y * rows).floor()
    along = x * columns + 0.5 * (row % 2)
    shades = torch.rand(rows, columns, generator=generator) * 0.6
    shade = shades[row.long() % rows, along.floor().long() % columns]
    gap = 0.06
    mortar = ((y * rows) % 1.0 < gap) | ((along % 1.0) * rows / columns < gap * rows / columns * 0.6)
    return torch.where(mortar, torch.ones(()), shade)


def _wood(generator: torch.Generator) -> Tensor:
    """Planks with rings stretched along x."""
    _, y = _axes()
    planks = _integer(generator, 1, 5)
    plank = (y * planks).floor()
    shade = torch.rand(planks, generator=generator)[plank.long() % planks]
    warp = _fractal(generator, start=1)
    rings = 0.5 + 0.5 * torch.sin(2 * math.pi * (y * _integer(generator, 3, 9) + 0.7 * warp + 5 * shade))
    seam = (y * planks) % 1.0 < 0.05
    return torch.where(seam, torch.zeros(()), 0.35 * rings + 0.4 * shade + 0.2)


def _glyphs(generator: torch.Generator) -> Tensor:
    """Lines of random marks, like print."""
    rows, columns = _integer(generator, 4, 8), _integer(generator, 6, 16)
    marks = (torch.rand(1, 1, rows * 4, columns * 2, generator=generator) > 0.45).float()
    marks[:, :, 3::4] = 0
    words = (torch.rand(1, 1, rows, columns, generator=generator) > 0.25).float()
    words = words.repeat_interleave(4, 2).repeat_interleave(2, 3)
    return F.interpolate(marks * words, size=(SIZE, SIZE), mode="nearest")[0, 0]


def _cells(generator: torch.Generator) -> Tensor:
    """Wrapped Voronoi cells, each with its own shade, dark at the borders."""
    x, y = _axes()
    sites = torch.rand(_integer(generator, 6, 24), 2, generator=generator)
    offset = torch.stack([x, y], dim=-1).unsqueeze(2) - sites
    distance = (offset - offset.round()).norm(dim=-1)  # [S, S, sites], wrapped
    nearest, which = distance.topk(2, dim=-1, largest=False)
    shades = torch.rand(len(sites), generator=generator)
    edge = ((nearest[..., 1] - nearest[..., 0]) * 20).clamp(0, 1)
    shade: Tensor = shades[which[..., 0]] * edge
    return shade
