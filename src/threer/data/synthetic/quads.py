"""Light that is costly to work out, for one pixel of each quad of 2×2, spread to the others.

Every quad sees two of the lamp's eight places. The kernel that spreads them gives all eight the same weight, and
mixes only what lies on the same side of the same primitive.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from threer.data.synthetic.light import lamp_places, main_lamp, openness
from threer.data.synthetic.rooms import Rooms
from threer.data.synthetic.tiles import TILE, to_frames, to_tiles

_KERNELS = (
    ((-1, 1), (0, 2), (1, 1)),
    ((-1, 1), (0, 3), (1, 3), (2, 1)),
)  # of pixels on a quad's first line, second
_LEAN = (1.0, 0.97, 0.93)  # so that sides at 45° do not change between two axes


def light_of_quads(
    rooms: Rooms, room: Tensor, points: Tensor, normal: Tensor, part: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """``main_lamp`` and ``openness`` [G, TILE², 1] of the tiles that make up whole frames of ``size`` (W, H).

    room [G] int64; points, normal [G, TILE², 3]; part [G, TILE²] int64
    """
    number = torch.arange(TILE // 2, device=points.device)
    first = (2 * TILE * number.unsqueeze(1) + 2 * number).flatten()  # the upper left pixel of each quad
    member = (2 * (number.unsqueeze(1) % 2) + number % 2).flatten()
    places = lamp_places(str(points.device)).view(4, -1, 3)[member]
    at, facing = points[:, first], normal[:, first]
    seen = torch.cat([main_lamp(rooms, room, at, facing, places), openness(rooms, room, at, facing)], dim=-1)

    surface = to_frames(_surfaces(part, normal).unsqueeze(-1), size).squeeze(-1)
    spread, known = _spread(surface, to_frames(seen, size))
    light = to_tiles(spread)
    group, pixel = (to_tiles(known.unsqueeze(-1)).squeeze(-1) == 0).nonzero(as_tuple=True)
    if len(group):
        alone, up = points[group, pixel].unsqueeze(1), normal[group, pixel].unsqueeze(1)
        own = (main_lamp(rooms, room[group], alone, up), openness(rooms, room[group], alone, up))
        light[group, pixel] = torch.cat(own, dim=-1).squeeze(1)
    return light[..., :1], light[..., 1:]


def _surfaces(part: Tensor, normal: Tensor) -> Tensor:
    """[G, k] int32: the same number for what lies on one part and faces the same way."""
    leaning = normal * normal.new_tensor(_LEAN)
    axis = leaning.abs().argmax(-1, keepdim=True)
    forward = leaning.gather(-1, axis).squeeze(-1) > 0
    return (part * 6 + 2 * axis.squeeze(-1) + forward).int()


def _spread(surface: Tensor, light: Tensor) -> tuple[Tensor, Tensor]:
    """Light of quads [n, H / 2, W / 2, c] as that of pixels [n, H, W, c], and the weight [n, H, W] that it had.

    surface [n, H, W]; the light is that of the upper left pixel of each quad
    """
    n, height, width, channels = light.shape
    spread = light.new_zeros(n, 2 * height, 2 * width, channels)
    known = light.new_zeros(surface.shape)
    around = F.pad(light, (0, 0, 1, 2, 1, 2))
    of_quads = F.pad(surface[:, ::2, ::2], (1, 2, 1, 2), value=-1)
    for y in range(2):
        for x in range(2):
            own = surface[:, y::2, x::2]
            total, weight = torch.zeros_like(light), light.new_zeros(own.shape)
            for down, tall in _KERNELS[y]:
                for right, wide in _KERNELS[x]:
                    rows, columns = slice(1 + down, 1 + down + height), slice(1 + right, 1 + right + width)
                    share = (of_quads[:, rows, columns] == own) * float(tall * wide)
                    total += share.unsqueeze(-1) * around[:, rows, columns]
                    weight += share
            spread[:, y::2, x::2] = total / weight.clamp(min=1).unsqueeze(-1)
            known[:, y::2, x::2] = weight
    return spread, known
