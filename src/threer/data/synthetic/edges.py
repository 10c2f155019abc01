"""Smooth edges without shading anything again: pixels take shares of what their neighbours show."""

from __future__ import annotations

import torch
from torch import Tensor

from threer.data.synthetic.raycast import first_of
from threer.data.synthetic.rooms import Rooms
from threer.data.synthetic.tiles import Views

_BESIDE = ((0, 0), (0, -1), (-1, 0), (1, 0), (0, 1), (-1, -1), (1, -1), (-1, 1), (1, 1))  # x, y; itself first


def smooth_edges(
    rooms: Rooms, room: Tensor, views: Views, part: Tensor, shown: Tensor, offsets: tuple[tuple[float, float], ...]
) -> Tensor:
    """Pictures [n, H, W, c] whose pixels show each surface by the share of them that it covers.

    Pixels beside another part cast further rays, ``offsets`` (x, y) pixels beside their centres, at the parts
    around them only. What such a ray meets has the colour of the neighbour that shows it.

    room [n] int64; part [n, H, W] int64 and shown [n, H, W, c] of the pixels' centres
    """
    height, width = part.shape[1:]
    device = part.device
    frame, y, x = _edges(part).nonzero(as_tuple=True)
    beside = torch.tensor(_BESIDE, device=device)
    xs = (x.unsqueeze(1) + beside[:, 0]).clamp(0, width - 1)  # [m, 9]
    ys = (y.unsqueeze(1) + beside[:, 1]).clamp(0, height - 1)
    around = part[frame.unsqueeze(1), ys, xs]
    again = (around.unsqueeze(2) == around.unsqueeze(1)).tril(-1).any(2)
    centre = torch.stack([x, y], dim=-1).unsqueeze(1)
    rays = views.rays_at(frame, centre + torch.tensor(offsets, device=device))
    origin = views.c2w[frame, :3, 3]
    first = first_of(rooms, room[frame], around.masked_fill(again, -1), origin, rays)  # [m, r]
    seen = shown[frame.unsqueeze(1), ys.gather(1, first), xs.gather(1, first)]
    return shown.index_put((frame, y, x), seen.mean(1))


def _edges(part: Tensor) -> Tensor:
    """[n, H, W] whether a pixel has another part beside it."""
    edge = torch.zeros_like(part, dtype=torch.bool)
    down, right = part[:, 1:] != part[:, :-1], part[..., 1:] != part[..., :-1]
    edge[:, 1:] |= down
    edge[:, :-1] |= down
    edge[..., 1:] |= right
    edge[..., :-1] |= right
    return edge
